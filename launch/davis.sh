#!/usr/bin/env bash
# The protocol on DAVIS16, one line a stage; each can be killed and run again.
#   launch/davis.sh --config.data.root=/data/DAVIS --config.model.weights=densecl_r50.pth
set -euo pipefail
cd "$(dirname "$0")/.."
run() { launch/local.sh configs/davis.py "$@"; }
run --config.stage=flow "$@"      # forward and backward flow of every pair
run --config.stage=prepare "$@"   # check everything; shards for tf.data
run --config.stage=discover "$@"  # stage 1: masks that explain flow
run --config.stage=align "$@"     # which channel is the object, without annotations
run --config.stage=refine "$@"    # stage 2: appearance corrects motion
run --config.stage=predict "$@"   # one PNG mask a frame
run --config.stage=evaluate "$@"  # the first and only look at annotations
run --config.stage=report "$@"    # report.html, overlays, videos
