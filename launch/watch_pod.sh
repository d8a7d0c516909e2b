#!/usr/bin/env bash
# Follows the log of one host, or of all hosts. Ctrl-C ends this script, not the run.
#
#     launch/watch_pod.sh [--dry-run] [HOST [SLICE]]
#
# HOST and SLICE are numbers from 0, or "all". The default is 0.
set -euo pipefail
source "$(dirname "$0")/pod.sh"
needs PROJECT
if (($# > 2)); then fail "unknown argument $3; see --help."; fi
for place in "$@"; do
    if ! [[ "$place" =~ ^([0-9]+|all)$ ]]; then fail "$place: give a number, or all."; fi
done

on_hosts "${2:-0}" "${1:-0}" follow 50
