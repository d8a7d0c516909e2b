#!/usr/bin/env bash
# Puts this project, Python and JAX for TPUs on every host of the pod; run again to update.
#
#     launch/setup_pod.sh [--dry-run]
#
# In launch/pod.env: REPOSITORY and REVISION say which code, PYTHON which Python.
set -euo pipefail
source "$(dirname "$0")/pod.sh"
needs PROJECT REPOSITORY
no_arguments "$@"

on_hosts all all must_be_idle
on_hosts all all set_up "$REPOSITORY" "$REVISION" "$PYTHON"
