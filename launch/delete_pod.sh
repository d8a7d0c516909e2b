#!/usr/bin/env bash
# Gives the pod back, which ends its costs; what the run saved stays in the bucket.
#
#     launch/delete_pod.sh [--dry-run]
set -euo pipefail
source "$(dirname "$0")/pod.sh"
needs PROJECT
no_arguments "$@"

pod_state ACTIVE
if [[ "$STATE" == NONE ]]; then
    echo "$NAME: there is none in $ZONE"
else
    queued_resource delete --force --quiet
fi
