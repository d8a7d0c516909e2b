# shellcheck shell=bash
# Common part of the scripts in this folder: options, and functions that access the pod and its
# hosts. The code works with bash 3.2, the version of macOS.

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
exec 3>&1 # --dry-run prints to descriptor 3, even from within $(...).

# Handle --dry-run, --help and -h, and remove them from the script's arguments. Arguments after --
# are kept.
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

# run COMMAND...: runs the command, or prints it with --dry-run.
run() {
    if [[ -n "$DRY_RUN" ]]; then quoted "$@" >&3; else "$@"; fi
}

# queued_resource VERB [FLAG...]: calls gcloud on the pod's queued resource.
queued_resource() {
    local verb=$1
    shift
    run gcloud compute tpus queued-resources "$verb" "$NAME" \
        --project="$PROJECT" --zone="$ZONE" "$@"
}

# ask COMMAND...: runs COMMAND, which calls gcloud, and sets ANSWER to its output. If COMMAND fails,
# ask sets ERROR to its error message and fails too. After a connection error, ask runs COMMAND
# again, because some scripts poll for days and one lost connection must not end them.
ask() {
    local file tries
    file=$(mktemp)
    for tries in 1 2 3 4 5; do
        if ANSWER=$("$@" 2>"$file"); then rm "$file" && return; fi
        ERROR=$(<"$file")
        if ((tries == 5)) || ! of_the_connection "$ERROR"; then break; fi
        if ((tries == 1)); then echo "$ERROR (retrying every $POLL seconds)" >&2; fi
        sleep "$POLL"
    done
    rm "$file"
    return 1
}

# of_the_connection ERROR: succeeds if ERROR is a connection error, which a retry may solve.
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

# pod_state SUPPOSED: sets STATE to the state of the queued resource, or to NONE if there is none;
# --dry-run assumes the state SUPPOSED. A missing zone or project is an error, not a missing pod.
pod_state() {
    if ask queued_resource describe --format="value(state.state)"; then
        STATE=$ANSWER
    elif [[ "$ERROR" == *NOT_FOUND*queuedResources/* ]]; then
        STATE=NONE
    elif [[ "$ERROR" == *NOT_FOUND* ]] && ! grep -qiE "project|location|zone" <<<"$ERROR"; then
        STATE=NONE
    else
        fail "gcloud cannot get the state of $NAME: $ERROR"
    fi
    if [[ -n "$DRY_RUN" ]]; then STATE=$1; fi
    if [[ -z "$STATE" ]]; then fail "gcloud returned no state of $NAME."; fi
}

# on_hosts SLICE HOST FUNCTION [ARGUMENT...]: runs a function of on_host.sh on a host, or on "all".
on_hosts() {
    local slice=$1 host=$2 flags=()
    shift 2
    read -ra flags <<<"$SSH_FLAGS"
    queued_resource ssh --node="$slice" --worker="$host" --batch-size=all \
        ${flags[@]+"${flags[@]}"} --command="$(declare -f "$1"); $(quoted "$@")"
}

# hosts_state: sets HOSTS to the state of the run. If the hosts differ, HOSTS is the state that comes
# last in the list idle, running, stopped, failed.
# shellcheck disable=SC2034  # Scripts read it.
hosts_state() {
    local told state
    HOSTS=unreachable
    if ! told=$(on_hosts all all host_state); then return; fi
    for state in idle running stopped failed; do
        if grep -q "^oneflow on [^ ]*: $state" <<<"$told"; then HOSTS=$state; fi
    done
}

# check_bucket: checks access to the bucket, before anything is rented or started.
check_bucket() {
    local bucket
    bucket=gs://$(cut -d / -f 3 <<<"$BUCKET")
    if ask run gcloud storage ls "$bucket"; then return; fi
    if [[ "$ERROR" == *"matched no objects"* ]]; then return; fi
    fail "BUCKET=$BUCKET: you cannot list $bucket; create it, or request access to it. $ERROR"
}

# finished: succeeds if samples.html exists, the last file that a run writes.
finished() {
    if ask run gcloud storage ls "$WORKDIR/samples.html"; then
        [[ -z "$DRY_RUN" ]]
    elif [[ "$ERROR" == *"matched no objects"* ]]; then
        return 1
    else
        fail "gcloud cannot check whether $WORKDIR/samples.html exists: $ERROR"
    fi
}
