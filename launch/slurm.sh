#!/usr/bin/env bash
# Run any stage or the whole protocol on a SLURM cluster, one task a GPU. From the
# repository's root; the arguments are those of launch/local.sh:
#   sbatch --nodes=2 --ntasks-per-node=8 --gpus-per-node=8 --time=24:00:00 \
#     launch/slurm.sh configs/davis.py --config.data.root=/data/DAVIS
# Data and workdir must lie on a disk that every node sees. discover.batch_size must be
# a multiple of the number of tasks. Two minutes before the time limit, and when the job
# is preempted, the tasks get SIGTERM: training stops at a checkpoint. The same command
# continues it; a preempted job does so by itself. Another --signal (USR1, USR2) does the
# same; without "B:", which would send it to this script only.
#SBATCH --job-name=imas
#SBATCH --output=imas-%j.log
#SBATCH --open-mode=append
#SBATCH --cpus-per-task=8
#SBATCH --signal=TERM@120
#SBATCH --requeue
set -euo pipefail
cd "${SLURM_SUBMIT_DIR:-$(dirname "$0")/..}"
: "${1:?usage: sbatch [options] launch/slurm.sh CONFIG [--config.FIELD=VALUE ...]}"
exec srun --kill-on-bad-exit=1 --cpus-per-task="${SLURM_CPUS_PER_TASK:-1}" \
  launch/local.sh "$@" --config.distributed=auto
