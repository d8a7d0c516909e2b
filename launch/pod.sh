# shellcheck shell=bash
# Sourced by the scripts beside it: their options, and how they reach the pod and its hosts.
# Bash 3.2 is enough, which is what macOS has.

HERE=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
# shellcheck source=pod.env
source "$HERE/pod.env"
# shellcheck source=on_host.sh
source "$HERE/on_host.sh"
WORKDIR="$BUCKET/runs/$RUN"
export DRY_RUN="${DRY_RUN:-}"
exec 3>&1 # Where --dry-run prints, also from within $(...).

fail() {
    echo "error: $*" >&2
    exit 1
}

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

# needs VARIABLE...: all that are missing are told at once.
needs() {
    local name missing=""
    for name in "$@"; do
        if [[ -z "${!name}" ]]; then missing="$missing $name"; fi
    done
    if [[ -n "$missing" ]]; then fail "set$missing in launch/pod.env or in the environment."; fi
    if [[ -n "$BUCKET" && "$BUCKET" != gs://?* ]]; then fail "BUCKET=$BUCKET: begin it with gs://"; fi
    if ! [[ "$SLICES" =~ ^[1-9][0-9]*$ ]]; then fail "SLICES=$SLICES: give a number from 1 on."; fi
}

no_arguments() {
    if (($# > 0)); then fail "unknown argument $1; see --help."; fi
}

# quoted WORD...: one line that a shell reads as these very words.
quoted() {
    local words
    printf -v words ' %q' "$@"
    printf '%s\n' "${words# }"
}

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

# pod_state SUPPOSED: sets STATE to that of the queued resource, or to NONE; --dry-run supposes one.
# A connection that fails is tried again, because some of the scripts look for days.
pod_state() {
    local file error tries
    file=$(mktemp)
    for tries in 1 2 3 4 5; do
        if STATE=$(queued_resource describe --format="value(state.state)" 2>"$file"); then break; fi
        STATE=""
        if grep -q NOT_FOUND "$file"; then STATE=NONE && break; fi
        if ((tries < 5)); then sleep "$POLL"; fi
    done
    error=$(<"$file")
    rm "$file"
    if [[ -n "$DRY_RUN" ]]; then STATE=$1; fi
    if [[ -z "$STATE" ]]; then fail "gcloud cannot tell the state of $NAME: $error"; fi
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

# Whether the run's page is there, which is the last thing that a run writes.
finished() {
    run gcloud storage ls "$WORKDIR/samples.html" >/dev/null 2>&1 && [[ -z "$DRY_RUN" ]]
}
