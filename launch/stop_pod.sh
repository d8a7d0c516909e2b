#!/usr/bin/env bash
# Stops the run and waits until it has saved a checkpoint; launch/run_pod.sh resumes from there.
#
#     launch/stop_pod.sh [--dry-run]
set -euo pipefail
source "$(dirname "$0")/pod.sh"
needs PROJECT
no_arguments "$@"

on_hosts all all stop_run
