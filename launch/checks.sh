# shellcheck shell=bash
# Checks of variables and arguments, sourced by pod.sh. They report a mistake in one line, before
# any command runs and before a pod is rented.

fail() {
    echo "error: $*" >&2
    exit 1
}

# quoted WORD...: prints the words in one line, quoted for the shell.
quoted() {
    local words
    printf -v words ' %q' "$@"
    printf '%s\n' "${words# }"
}

# wrong VARIABLE ADVICE: fails with a message of the form VARIABLE=VALUE: ADVICE.
wrong() {
    fail "$1=$(quoted "${!1}"): $2"
}

# needs VARIABLE...: fails if any VARIABLE is empty, and lists these. Then it checks the variables
# that all scripts use.
needs() {
    local LC_ALL=C variable missing="" # In other locales a-z may contain more letters.
    for variable in "$@"; do
        if [[ -z "${!variable}" ]]; then missing="$missing $variable"; fi
    done
    if [[ -n "$missing" ]]; then fail "set$missing in launch/pod.env or in the environment."; fi
    for variable in SPOT RESERVED DRY_RUN DELETE_WHEN_FINISHED; do
        case "${!variable}" in
            "" | 1) ;;
            0) printf -v "$variable" %s "" ;; # bash 3.2 ignores an empty format string.
            *) wrong "$variable" "give 1 for yes, or 0 or nothing for no." ;;
        esac
    done
    for variable in TIMEOUT POLL; do
        if ! [[ "${!variable}" =~ ^(0|[1-9][0-9]{0,8})$ ]]; then
            wrong "$variable" "give whole seconds, such as 3600."
        fi
    done
    if ! [[ "$SLICES" =~ ^[1-9][0-9]{0,3}$ ]]; then wrong SLICES "give a number, at least 1."; fi
    if ! [[ "$NAME" =~ ^[a-z]([a-z0-9-]{0,61}[a-z0-9])?$ ]]; then
        wrong NAME "give up to 63 characters of a-z, 0-9 and hyphens, starting with a letter."
    fi
    if ! [[ "$ZONE" =~ ^[a-z]+-[a-z]+[0-9]+-(ai[0-9]+)?[a-z]$ ]]; then
        wrong ZONE "give a region and a letter, such as us-central2-b."
    fi
    if ! [[ "$BUCKET" =~ ^(gs://[a-z0-9][a-z0-9._-]*[a-z0-9](/[A-Za-z0-9._-]+)*)?$ ]]; then
        wrong BUCKET "give gs:// and the name (a-z, 0-9, dots, hyphens), such as gs://my-bucket."
    fi
}

no_arguments() {
    if (($# > 0)); then fail "unknown argument $(quoted "$1"); see --help."; fi
}

# program_arguments [ARGUMENT...]: checks that the arguments are flags of oneflow_jax/main.py.
# Without this check, a mistyped --dry-run would be passed to the program, and a pod would be rented.
program_arguments() {
    local LC_ALL=C argument flags="--config.KEY=VALUE --mode= --prompt= --edit= --output="
    flags="$flags --topology= --per_device_batch= --program="
    for argument in "$@"; do
        case "$argument" in
            --config=*) fail "$(quoted "$argument"): set CONFIG instead." ;;
            --workdir=*) fail "$(quoted "$argument"): set BUCKET and RUN instead." ;;
            --mode=train | --mode=evaluate | --mode=sample | --mode=prepare | --mode=export) ;;
            --mode=aot | --prompt=* | --edit=* | --output=*) ;;
            --topology=* | --per_device_batch=* | --program=*) ;;
            --mode=*)
                fail "$(quoted "$argument"): give one of train, evaluate, sample, prepare," \
                    "export, aot."
                ;;
            *)
                if ! [[ "$argument" =~ ^--config\.[A-Za-z_][A-Za-z0-9_.]*= ]]; then
                    fail "unknown argument $(quoted "$argument"): the script has --dry-run" \
                        "and --help, and the program has $flags"
                fi
                ;;
        esac
    done
}

# only_training [ARGUMENT...]: allows only flags of training, because resume_pod.sh ends when the
# training's page exists.
only_training() {
    local argument
    for argument in "$@"; do
        case "$argument" in
            --config.* | --prompt=* | --edit=* | --mode=train) ;;
            *)
                fail "$(quoted "$argument"): this script only runs training; use" \
                    "launch/run_pod.sh."
                ;;
        esac
    done
}

# check_pod: checks that ACCELERATOR and CONFIG exist and belong to the same TPU generation.
check_pod() {
    local LC_ALL=C file=${CONFIG%%:*} of=${ACCELERATOR%%-*} chips=${ACCELERATOR#*-} meant size
    case "$of" in
        v2 | v3 | v4 | v5p)
            if ! [[ "$chips" =~ ^[1-9][0-9]{0,5}$ ]] || ((chips % 8 != 0)); then
                wrong ACCELERATOR "give $of- and a multiple of 8 cores; a chip has two cores."
            fi
            ;;
        v5litepod | v6e)
            if ! [[ "$chips" =~ ^(1|4|8|16|32|64|128|256)$ ]]; then
                wrong ACCELERATOR "give $of- and the chips: 1, 4, 8, 16, 32, 64, 128 or 256."
            fi
            ;;
        v5e) wrong ACCELERATOR "write it as v5litepod${ACCELERATOR#v5e}." ;;
        *) wrong ACCELERATOR "give one of v2-, v3-, v4-, v5litepod-, v5p-, v6e- and a number." ;;
    esac
    if [[ -n "$SPOT" && -n "$RESERVED" ]]; then fail "SPOT and RESERVED: set only one of them."; fi
    if [[ ! -f "$HERE/../$file" ]]; then
        wrong CONFIG "there is no such file in this project; give a file in configs/."
    fi
    if ! [[ "$file" =~ (^|/)tpu_(v4|v5e|v5p|v6e)\.py$ ]]; then return; fi
    meant=${BASH_REMATCH[2]}
    if [[ "$meant" == v5e ]]; then meant=v5litepod; fi
    if [[ "$of" != "$meant" ]]; then
        fail "CONFIG=$(quoted "$CONFIG") is for $meant, but ACCELERATOR=$ACCELERATOR is not:" \
            "set both to the same generation, for all scripts."
    fi
    size=${CONFIG#"$file"}
    size=${size%%,*} # without the data, as in 1B,own
    if [[ -n "$size" ]] && ! grep -qF "\"${size#:}\": {" "$HERE/../$file"; then
        wrong CONFIG "the file has no such size; see its PLANS."
    fi
}
