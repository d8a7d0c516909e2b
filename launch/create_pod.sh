#!/usr/bin/env bash
# Requests a TPU pod and waits until it is active. If it is run again, it continues to wait.
#
#     launch/create_pod.sh [--dry-run]
#
# Variables in launch/pod.env: ACCELERATOR and SLICES set the size. SPOT=1 or RESERVED=1 sets the
# kind of capacity; the default is on demand. VALID_UNTIL is the duration after which Google drops a
# pending request. After TIMEOUT seconds the script ends, but the request stays pending.
set -euo pipefail
source "$(dirname "$0")/pod.sh"
needs PROJECT
no_arguments "$@"
check_pod

if [[ -z "$VERSION" ]]; then
    case "$ACCELERATOR" in
        v2-* | v3-* | v4-*) VERSION=tpu-ubuntu2204-base ;;
        v5litepod-*) VERSION=v2-alpha-tpuv5-lite ;;
        v5p-*) VERSION=v2-alpha-tpuv5 ;;
        v6e-*) VERSION=v2-alpha-tpuv6e ;;
    esac
fi
read -ra flags <<<"$CREATE_FLAGS"
flags+=(--accelerator-type="$ACCELERATOR" --runtime-version="$VERSION")
if ((SLICES == 1)); then
    flags+=(--node-id="$NAME")
else
    flags+=(--node-count="$SLICES" --node-prefix="$NAME")
fi
if [[ -n "$SPOT" ]]; then flags+=(--spot); fi
if [[ -n "$RESERVED" ]]; then flags+=(--reserved); fi
if [[ -n "$VALID_UNTIL" ]]; then flags+=(--valid-until-duration="$VALID_UNTIL"); fi

pod_state NONE
if [[ "$STATE" == NONE ]]; then queued_resource create "${flags[@]}"; fi
SECONDS=0
while true; do
    pod_state ACTIVE
    echo "$NAME: $STATE" >&2
    case "$STATE" in
        ACTIVE) break ;;
        FAILED | SUSPENDING | SUSPENDED)
            queued_resource describe >&2
            fail "$NAME is $STATE, for the reason above. Run launch/delete_pod.sh, then try again."
            ;;
    esac
    if ((SECONDS >= TIMEOUT)); then
        fail "$NAME is $STATE after $TIMEOUT seconds. The request is still pending: run this" \
            "script again to continue to wait, or launch/delete_pod.sh to cancel it."
    fi
    sleep "$POLL"
done
