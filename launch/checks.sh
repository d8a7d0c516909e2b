# shellcheck shell=bash
# Sourced by pod.sh: what is mistyped is told in one line, before anything is called or rented.

fail() {
    echo "error: $*" >&2
    exit 1
}

# quoted WORD...: one line that a shell reads as these very words.
quoted() {
    local words
    printf -v words ' %q' "$@"
    printf '%s\n' "${words# }"
}

# wrong VARIABLE ADVICE
wrong() {
    fail "$1=$(quoted "${!1}"): $2"
}

# needs VARIABLE...: all that are missing are told at once; then values that every script has.
needs() {
    local LC_ALL=C variable missing="" # In other locales a-z may have more in it.
    for variable in "$@"; do
        if [[ -z "${!variable}" ]]; then missing="$missing $variable"; fi
    done
    if [[ -n "$missing" ]]; then fail "set$missing in launch/pod.env or in the environment."; fi
    for variable in SPOT RESERVED DRY_RUN DELETE_WHEN_FINISHED; do
        case "${!variable}" in
            "" | 1) ;;
            0) printf -v "$variable" %s "" ;; # bash 3.2 does nothing by an empty format.
            *) wrong "$variable" "give 1 for yes, 0 or nothing for no." ;;
        esac
    done
    for variable in TIMEOUT POLL; do
        if ! [[ "${!variable}" =~ ^(0|[1-9][0-9]{0,8})$ ]]; then
            wrong "$variable" "give whole seconds, as 3600."
        fi
    done
    if ! [[ "$SLICES" =~ ^[1-9][0-9]{0,3}$ ]]; then wrong SLICES "give a number from 1 on."; fi
    if ! [[ "$NAME" =~ ^[a-z]([a-z0-9-]{0,61}[a-z0-9])?$ ]]; then
        wrong NAME "give up to 63 of a-z, 0-9 and hyphens, beginning with a letter."
    fi
    if ! [[ "$ZONE" =~ ^[a-z]+-[a-z]+[0-9]+-(ai[0-9]+)?[a-z]$ ]]; then
        wrong ZONE "give a region and a letter, as us-central2-b."
    fi
    if ! [[ "$BUCKET" =~ ^(gs://[a-z0-9][a-z0-9._-]*[a-z0-9](/[A-Za-z0-9._-]+)*)?$ ]]; then
        wrong BUCKET "give gs:// and the bucket's name (a-z, 0-9, dots, hyphens), as gs://my-bucket."
    fi
}

no_arguments() {
    if (($# > 0)); then fail "unknown argument $(quoted "$1"); see --help."; fi
}

# program_arguments [ARGUMENT...]: holds them against the flags of oneflow_jax/main.py. A mistyped
# --dry-run would otherwise go to the program, and the pod be rented.
program_arguments() {
    local LC_ALL=C argument flags="--config.KEY=VALUE --mode= --prompt= --revise= --into="
    flags="$flags --topology= --rows_per_chip= --program="
    for argument in "$@"; do
        case "$argument" in
            --config=*) fail "$(quoted "$argument"): set CONFIG instead." ;;
            --workdir=*) fail "$(quoted "$argument"): set BUCKET and RUN instead." ;;
            --mode=train | --mode=evaluate | --mode=sample | --mode=prepare | --mode=release) ;;
            --mode=compile | --prompt=* | --revise=* | --into=*) ;;
            --topology=* | --rows_per_chip=* | --program=*) ;;
            --mode=*)
                fail "$(quoted "$argument"): give one of train, evaluate, sample, prepare," \
                    "release, compile."
                ;;
            *)
                if ! [[ "$argument" =~ ^--config\.[A-Za-z_][A-Za-z0-9_.]*= ]]; then
                    fail "unknown argument $(quoted "$argument"): the script knows --dry-run" \
                        "and --help, the program $flags"
                fi
                ;;
        esac
    done
}

# only_training [ARGUMENT...]: what resume_pod.sh sees through is finished when there is a page.
only_training() {
    local argument
    for argument in "$@"; do
        case "$argument" in
            --config.* | --prompt=* | --revise=* | --mode=train) ;;
            *)
                fail "$(quoted "$argument"): only a training is seen through; start this by" \
                    "launch/run_pod.sh."
                ;;
        esac
    done
}

# Whether ACCELERATOR can be had, CONFIG is there, and the one is meant for the other.
check_pod() {
    local LC_ALL=C file=${CONFIG%%:*} of=${ACCELERATOR%%-*} chips=${ACCELERATOR#*-} meant size
    case "$of" in
        v2 | v3 | v4 | v5p)
            if ! [[ "$chips" =~ ^[1-9][0-9]{0,5}$ ]] || ((chips % 8 != 0)); then
                wrong ACCELERATOR "give $of- and a multiple of 8, its cores: two for each chip."
            fi
            ;;
        v5litepod | v6e)
            if ! [[ "$chips" =~ ^(1|4|8|16|32|64|128|256)$ ]]; then
                wrong ACCELERATOR "give $of- and 1, 4, 8, 16, 32, 64, 128 or 256 chips."
            fi
            ;;
        v5e) wrong ACCELERATOR "write it as v5litepod${ACCELERATOR#v5e}." ;;
        *) wrong ACCELERATOR "give one of v2-, v3-, v4-, v5litepod-, v5p-, v6e- and a number." ;;
    esac
    if [[ -n "$SPOT" && -n "$RESERVED" ]]; then fail "SPOT and RESERVED: give one or the other."; fi
    if [[ ! -f "$HERE/../$file" ]]; then
        wrong CONFIG "there is no such file in this project; give one of configs/."
    fi
    if ! [[ "$file" =~ (^|/)tpu_(v4|v5e|v5p|v6e)\.py$ ]]; then return; fi
    meant=${BASH_REMATCH[2]}
    if [[ "$meant" == v5e ]]; then meant=v5litepod; fi
    if [[ "$of" != "$meant" ]]; then
        fail "CONFIG=$(quoted "$CONFIG") is for $meant, and ACCELERATOR=$ACCELERATOR is not:" \
            "set both for the same, for all scripts."
    fi
    size=${CONFIG#"$file"}
    if [[ -n "$size" ]] && ! grep -qF "\"${size#:}\": {" "$HERE/../$file"; then
        wrong CONFIG "there is no such size in it; see its PLANS."
    fi
}
