#!/usr/bin/env bash
# Deletes the pod, which ends its costs; the run's files stay in the bucket.
#
#     launch/delete_pod.sh [--dry-run]
set -euo pipefail
source "$(dirname "$0")/pod.sh"
needs PROJECT
no_arguments "$@"

pod_state ACTIVE
if [[ "$STATE" == NONE ]]; then
    echo "$NAME: there is no such pod in $ZONE"
else
    queued_resource delete --force --quiet
fi
