#!/usr/bin/env bash
# Installs this project, Python and JAX for TPUs on every host of the pod. Run it again to update.
#
#     launch/setup_pod.sh [--dry-run]
#
# Variables in launch/pod.env: REPOSITORY and REVISION set the code, PYTHON the Python version.
set -euo pipefail
source "$(dirname "$0")/pod.sh"
needs PROJECT REPOSITORY
no_arguments "$@"

on_hosts all all must_be_idle
on_hosts all all set_up "$REPOSITORY" "$REVISION" "$PYTHON"
