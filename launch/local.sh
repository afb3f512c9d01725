#!/usr/bin/env bash
# Run any stage or the whole protocol on this machine, on all its devices.
#   launch/local.sh configs/davis.py --config.data.root=/data/DAVIS
set -euo pipefail
cd "$(dirname "$0")/.."
config=${1:?usage: launch/local.sh CONFIG [--config.FIELD=VALUE ...]}
shift
python=.venv/bin/python
[ -x "$python" ] || python=python3
exec "$python" -m imas_jax.main --config="$config" "$@"
