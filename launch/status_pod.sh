#!/usr/bin/env bash
# Prints the state of the pod, the state and the last log line of each host, and whether the run is
# finished.
#
#     launch/status_pod.sh [--dry-run]
set -euo pipefail
source "$(dirname "$0")/pod.sh"
needs PROJECT BUCKET
no_arguments "$@"

pod_state ACTIVE
echo "$NAME: $STATE" >&2
if [[ "$STATE" == ACTIVE ]]; then on_hosts all all host_state; fi
if finished; then
    echo "finished: $WORKDIR/samples.html"
else
    echo "not finished: no $WORKDIR/samples.html"
fi
