#!/usr/bin/env bash
# Tells the run to save and leave, and waits until it has; launch/run_pod.sh goes on from there.
#
#     launch/stop_pod.sh [--dry-run]
set -euo pipefail
source "$(dirname "$0")/pod.sh"
needs PROJECT
no_arguments "$@"

on_hosts all all stop_run
