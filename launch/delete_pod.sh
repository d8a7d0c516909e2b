#!/usr/bin/env bash
# Gives the pod back, which ends its costs; checkpoints stay in the bucket.
set -euo pipefail
source "$(dirname "$0")/pod.env"

gcloud compute tpus queued-resources delete "$NAME" \
    --project="$PROJECT" --zone="$ZONE" --force --quiet
