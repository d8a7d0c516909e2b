#!/usr/bin/env bash
# Sees a run through to its end: creates the pod, sets it up and starts the run, and does so again
# whenever the pod was taken away.
#
#     launch/resume_pod.sh [--dry-run] [ARGUMENT...]
#
# Arguments are the program's own. A run is finished when its page, samples.html, is in the bucket.
# Gives up when the pod cannot be had, the run was stopped by hand, its hosts cannot be reached, or
# it ended three times on the same pod. --dry-run prints one round, from a pod that was taken away.
set -euo pipefail
source "$(dirname "$0")/pod.sh"
needs PROJECT BUCKET REPOSITORY
program_arguments "$@"
only_training "$@"
check_pod
check_bucket
starts=0 setbacks=0

# start [ARGUMENT...]: a failure may be a pod that is being taken away, so the next look decides.
start() {
    starts=$((starts + 1))
    if ((starts > 3)); then fail "it ended three times on this pod; see launch/watch_pod.sh"; fi
    # Stopped first, because where one host failed others may wait for it.
    "$HERE/stop_pod.sh" && "$HERE/setup_pod.sh" && "$HERE/run_pod.sh" -- "$@" ||
        echo "not started" >&2
}

# setback REASON: the fifth in a row is one too many.
setback() {
    echo "$1" >&2
    setbacks=$((setbacks + 1))
    if ((setbacks == 5)); then fail "$1, and stays so; launch/status_pod.sh tells more."; fi
}

until finished; do
    pod_state SUSPENDED
    case "$STATE" in
        ACTIVE)
            hosts_state
            case "$HOSTS" in
                running) setbacks=0 ;;
                idle | failed) start "$@" ;;
                stopped) setback "the run was told to stop" ;;
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
echo "finished: $WORKDIR/samples.html (to train further, remove this page first)"
if [[ -n "$DELETE_WHEN_FINISHED" ]]; then "$HERE/delete_pod.sh"; fi
