#!/usr/bin/env bash
# Run any stage or the whole protocol on every host of a Cloud TPU slice. The name and
# zone of the slice stand first; the other arguments are those of launch/local.sh:
#   launch/tpu_pod.sh my-v4-32 us-central2-b configs/davis.py --config.data.root=/mnt/DAVIS
# Once, on all hosts: clone the repository to ~/imas_jax (or set REPOSITORY) and there
#   python3 -m venv .venv && .venv/bin/pip install -e ".[tpu,tfrecord]" -c constraints.txt
# Data and workdir must lie on a disk that every host mounts. Ctrl-C here may end only the
# connection; `pkill -TERM -f '[i]mas_jax.main'` on any host stops training on all of them
# at a checkpoint. The same command continues.
set -euo pipefail
usage="usage: launch/tpu_pod.sh NAME ZONE CONFIG [--config.FIELD=VALUE ...]"
name=${1:?$usage} zone=${2:?$usage} config=${3:?$usage}
shift 3
arguments=$(printf ' %q' "$config" "$@" --config.distributed=auto)
exec gcloud compute tpus tpu-vm ssh "$name" --zone="$zone" --worker=all \
  --command="cd ${REPOSITORY:-imas_jax} && launch/local.sh$arguments"
