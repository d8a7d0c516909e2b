#!/usr/bin/env bash
# Starts the run on all hosts and returns; it goes on from the newest checkpoint, if there is one.
#
#     launch/run_pod.sh [--dry-run] [ARGUMENT...]
#
# Arguments are the program's own, as --config.steps=1000. In launch/pod.env: CONFIG says what is
# trained, on a pod of ACCELERATOR; BUCKET and RUN where it is kept. A pod that has a run already is
# left alone.
set -euo pipefail
source "$(dirname "$0")/pod.sh"
needs PROJECT BUCKET
program_arguments "$@"
check_pod
check_bucket

if ((SLICES > 1)); then set -- "--config.mesh.slices=$SLICES" "$@"; fi
on_hosts all all must_be_idle
on_hosts all all start_run "$LIBTPU_INIT_ARGS" "--config=$CONFIG" "--workdir=$WORKDIR" "$@"
