#!/usr/bin/env bash
# The protocol on DAVIS16, one line a stage; each can be killed and run again.
#   launch/davis.sh --config.data.root=/data/DAVIS --config.model.weights=densecl_r50.pth
# Ctrl-C, SIGTERM and SIGUSR1/2 go to the stage that runs, and no other is begun.
set -euo pipefail
set -m # a stage hears of a signal from here only, and so once
cd "$(dirname "$0")/.."
asked="" stage=""
for name in INT TERM USR1 USR2; do trap "asked=$name; pass_on" "$name"; done
pass_on() { [ -z "$asked" ] || [ -z "$stage" ] || kill -s "$asked" "$stage" || true; }
run() {
  launch/local.sh configs/davis.py "$@" &
  stage=$! code=0
  pass_on # what came before there was a stage
  wait "$stage" || code=$?
  # A signal ends the wait, not the stage.
  while kill -0 "$stage" 2>/dev/null; do code=0 && wait "$stage" || code=$?; done
  stage=""
  [ "$code" = 0 ] || exit "$code"
  [ -z "$asked" ] || exit $((128 + $(kill -l "$asked")))
}
run --config.stage=flow "$@"      # forward and backward flow of every pair
run --config.stage=prepare "$@"   # check everything; shards for tf.data
run --config.stage=discover "$@"  # stage 1: masks that explain flow
run --config.stage=align "$@"     # which channel is the object, without annotations
run --config.stage=refine "$@"    # stage 2: appearance corrects motion
run --config.stage=predict "$@"   # one PNG mask a frame
run --config.stage=evaluate "$@"  # the first and only look at annotations
run --config.stage=report "$@"    # report.html, overlays, videos
