#!/usr/bin/env bash
# Runs training to its end: creates the pod, sets it up and starts the run, and repeats this
# whenever the pod was preempted.
#
#     launch/resume_pod.sh [--dry-run] [ARGUMENT...]
#
# The arguments are flags of the program. A run is finished when samples.html is in the bucket. The
# script gives up if the pod cannot be created, the run was stopped by hand, its hosts cannot be
# reached, or the run ended three times on one pod. --dry-run shows one loop for a preempted pod.
set -euo pipefail
source "$(dirname "$0")/pod.sh"
needs PROJECT BUCKET REPOSITORY
program_arguments "$@"
only_training "$@"
check_pod
check_bucket
starts=0 setbacks=0

# start [ARGUMENT...]: starts the run. A failure does not end the script, because the next check of
# the loop finds out whether the pod was preempted.
start() {
    starts=$((starts + 1))
    if ((starts > 3)); then fail "the run ended three times on this pod; see launch/watch_pod.sh"; fi
    # The run is stopped first, because other hosts may still wait for a host that failed.
    "$HERE/stop_pod.sh" && "$HERE/setup_pod.sh" && "$HERE/run_pod.sh" -- "$@" ||
        echo "the run was not started" >&2
}

# setback REASON: prints the reason, and fails at the fifth setback in a row.
setback() {
    echo "$1" >&2
    setbacks=$((setbacks + 1))
    if ((setbacks == 5)); then fail "$1, five times in a row; see launch/status_pod.sh."; fi
}

until finished; do
    pod_state SUSPENDED
    case "$STATE" in
        ACTIVE)
            hosts_state
            case "$HOSTS" in
                running) setbacks=0 ;;
                idle | failed) start "$@" ;;
                stopped) setback "the run was stopped" ;;
                unreachable) setback "the hosts cannot be reached" ;;
            esac
            ;;
        SUSPENDING | DELETING) echo "$NAME: $STATE" >&2 ;;
        *)
            if [[ "$STATE" == SUSPENDED ]]; then "$HERE/delete_pod.sh"; fi
            "$HERE/create_pod.sh"
            starts=0 setbacks=0
            start "$@"
            ;;
    esac
    if [[ -n "$DRY_RUN" ]]; then exit; fi
    sleep "$POLL"
done
echo "finished: $WORKDIR/samples.html (to train further, delete this page first)"
if [[ -n "$DELETE_WHEN_FINISHED" ]]; then "$HERE/delete_pod.sh"; fi
