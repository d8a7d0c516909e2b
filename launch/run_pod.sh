#!/usr/bin/env bash
# Trains on all hosts; the same command goes on from the newest checkpoint after a preemption.
# Further arguments are the program's own: launch/run_pod.sh --config.steps=1000
set -euo pipefail
source "$(dirname "$0")/pod.env"

arguments=$(printf '%q ' "--config=$CONFIG" "--workdir=$BUCKET/runs/$RUN" "$@")
on_all_hosts "cd oneflow_jax_checkout &&
    .venv/run/bin/python -m oneflow_jax.main $arguments 2>&1 | tee -a ../train.log"
