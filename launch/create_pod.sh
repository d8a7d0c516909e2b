#!/usr/bin/env bash
# Asks for a TPU pod slice and waits until it is there; SPOT=1 for one that may be taken away.
set -euo pipefail
source "$(dirname "$0")/pod.env"

spot=()
if [[ -n "${SPOT:-}" ]]; then spot=(--spot); fi
gcloud compute tpus queued-resources create "$NAME" \
    --project="$PROJECT" --zone="$ZONE" --node-id="$NAME" \
    --accelerator-type="$ACCELERATOR" --runtime-version="$VERSION" "${spot[@]}"

state=""
until [[ "$state" == ACTIVE ]]; do
    sleep 30
    state=$(gcloud compute tpus queued-resources describe "$NAME" \
        --project="$PROJECT" --zone="$ZONE" --format="value(state.state)")
    echo "$NAME: $state"
    if [[ "$state" == FAILED || "$state" == SUSPENDED ]]; then exit 1; fi
done
