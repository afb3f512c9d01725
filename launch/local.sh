#!/usr/bin/env bash
# Run any stage or the whole protocol on this machine, on all its devices.
#   launch/local.sh configs/davis.py --config.data.root=/data/DAVIS
# Ctrl-C and SIGTERM stop training at a checkpoint, all else at once; the same command
# continues.
set -euo pipefail
cd "$(dirname "$0")/.."
config=${1:?usage: launch/local.sh CONFIG [--config.FIELD=VALUE ...]}
shift
python=.venv/bin/python
[ -x "$python" ] || python=python3
exec "$python" -m imas_jax.main --config="$config" "$@"
