# shellcheck shell=bash
# Sourced by the scripts beside it: their options, and how they reach the pod and its hosts.
# Bash 3.2 is enough, which is what macOS has.

HERE=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
# shellcheck source=pod.env
source "$HERE/pod.env"
# shellcheck source=checks.sh
source "$HERE/checks.sh"
# shellcheck source=on_host.sh
source "$HERE/on_host.sh"
while [[ "$BUCKET" == gs://?*/ ]]; do BUCKET=${BUCKET%/}; done
WORKDIR="$BUCKET/runs/$RUN"
export DRY_RUN="${DRY_RUN:-}"
exec 3>&1 # Where --dry-run prints, also from within $(...).

# The script's arguments, without those that are for every script; after -- all are left alone.
ours=1
for argument in "$@"; do
    shift
    case "$ours$argument" in
        1--) ours="" ;;
        1--dry-run) DRY_RUN=1 ;;
        1--help | 1-h) sed -n '2,/^[^#]/s/^# \{0,1\}//p' "$0" && exit 0 ;;
        *) set -- "$@" "$argument" ;;
    esac
done

# run COMMAND...: with --dry-run prints it instead.
run() {
    if [[ -n "$DRY_RUN" ]]; then quoted "$@" >&3; else "$@"; fi
}

# queued_resource VERB [FLAG...]
queued_resource() {
    local verb=$1
    shift
    run gcloud compute tpus queued-resources "$verb" "$NAME" \
        --project="$PROJECT" --zone="$ZONE" "$@"
}

# ask COMMAND...: sets ANSWER to what gcloud says; if it refuses, sets ERROR, and fails. When the
# connection fails it is asked again, because some of the scripts look for days.
ask() {
    local file tries
    file=$(mktemp)
    for tries in 1 2 3 4 5; do
        if ANSWER=$("$@" 2>"$file"); then rm "$file" && return; fi
        ERROR=$(<"$file")
        if ((tries == 5)) || ! of_the_connection "$ERROR"; then break; fi
        if ((tries == 1)); then echo "$ERROR (asking again, every $POLL seconds)" >&2; fi
        sleep "$POLL"
    done
    rm "$file"
    return 1
}

# of_the_connection ERROR: whether it may be gone at the next try.
of_the_connection() {
    if grep -qE "PERMISSION_DENIED|UNAUTHENTICATED|INVALID_ARGUMENT|NOT_FOUND" <<<"$1"; then
        return 1
    fi
    grep -qiE "UNAVAILABLE|DEADLINE_EXCEEDED|RESOURCE_EXHAUSTED|INTERNAL:|HTTPError (429|5..)|\
time[d -]*out|max retries|name resolution|broken pipe|network is unreachable|\
connection ([a-z]+ )?(reset|refused|aborted|error|closed)|unable to (connect|find the server)|\
could not (connect|reach)|(transport|ssl|socket) ?error" \
        <<<"$1"
}

# pod_state SUPPOSED: sets STATE to that of the queued resource, or to NONE; --dry-run supposes one.
# A zone or project that does not exist is no missing pod.
pod_state() {
    if ask queued_resource describe --format="value(state.state)"; then
        STATE=$ANSWER
    elif [[ "$ERROR" == *NOT_FOUND*queuedResources/* ]]; then
        STATE=NONE
    elif [[ "$ERROR" == *NOT_FOUND* ]] && ! grep -qiE "project|location|zone" <<<"$ERROR"; then
        STATE=NONE
    else
        fail "gcloud cannot tell the state of $NAME: $ERROR"
    fi
    if [[ -n "$DRY_RUN" ]]; then STATE=$1; fi
    if [[ -z "$STATE" ]]; then fail "gcloud tells no state of $NAME."; fi
}

# on_hosts SLICE HOST FUNCTION [ARGUMENT...]: a function of on_host.sh, there or on "all".
on_hosts() {
    local slice=$1 host=$2 flags=()
    shift 2
    read -ra flags <<<"$SSH_FLAGS"
    queued_resource ssh --node="$slice" --worker="$host" --batch-size=all \
        ${flags[@]+"${flags[@]}"} --command="$(declare -f "$1"); $(quoted "$@")"
}

# Sets HOSTS to what the run does: of several answers the last one here counts.
# shellcheck disable=SC2034  # Scripts read it.
hosts_state() {
    local told state
    HOSTS=unreachable
    if ! told=$(on_hosts all all host_state); then return; fi
    for state in idle running stopped failed; do
        if grep -q "^oneflow on [^ ]*: $state" <<<"$told"; then HOSTS=$state; fi
    done
}

# The bucket is looked at before anything is rented or started for it.
check_bucket() {
    local bucket
    bucket=gs://$(cut -d / -f 3 <<<"$BUCKET")
    if ask run gcloud storage ls "$bucket"; then return; fi
    if [[ "$ERROR" == *"matched no objects"* ]]; then return; fi
    fail "BUCKET=$BUCKET: you cannot list $bucket; create it, or ask for access to it. $ERROR"
}

# Whether the run's page is there, which is the last thing that a run writes.
finished() {
    if ask run gcloud storage ls "$WORKDIR/samples.html"; then
        [[ -z "$DRY_RUN" ]]
    elif [[ "$ERROR" == *"matched no objects"* ]]; then
        return 1
    else
        fail "gcloud cannot tell whether there is $WORKDIR/samples.html: $ERROR"
    fi
}
