#!/usr/bin/env bash
# Starts the run on all hosts and returns. The run resumes from the newest checkpoint, if any.
#
#     launch/run_pod.sh [--dry-run] [ARGUMENT...]
#
# The arguments are flags of the program, such as --config.steps=1000. Variables in launch/pod.env:
# CONFIG is the configuration, for the generation of ACCELERATOR; BUCKET and RUN set the run's
# folder. The script fails if a run is active on the pod.
set -euo pipefail
source "$(dirname "$0")/pod.sh"
needs PROJECT BUCKET
program_arguments "$@"
check_pod
check_bucket

if ((SLICES > 1)); then set -- "--config.mesh.slices=$SLICES" "$@"; fi
on_hosts all all must_be_idle
on_hosts all all start_run "$LIBTPU_INIT_ARGS" "--config=$CONFIG" "--workdir=$WORKDIR" "$@"
