# shellcheck shell=bash
# Functions that run on the hosts, in bash. pod.sh sends one function at a time, so no function may
# call another. The run is a systemd service: it survives the end of the connection, a second run
# cannot start, and when the machine is preempted the run receives SIGTERM and saves a checkpoint.

# set_up REPOSITORY REVISION PYTHON: installs the project and its packages.
set_up() {
    set -euo pipefail
    local uv=0.13.9
    export PATH="$HOME/.local/bin:$PATH"
    if [[ "$(uv --version 2>/dev/null)" != "uv $uv"* ]]; then
        curl -LsSf "https://astral.sh/uv/$uv/install.sh" | sh
    fi
    mkdir -p "$HOME/oneflow_jax"
    cd "$HOME/oneflow_jax"
    git init --quiet
    git fetch --quiet --depth=1 "$1" "$2"
    git checkout --quiet --force --detach FETCH_HEAD
    uv venv --quiet --allow-existing --python "$3" .venv/run
    uv pip install --quiet --python .venv/run/bin/python -r requirements.txt \
        -r launch/requirements.txt
    # The hosts wait for each other in jax.distributed.initialize().
    .venv/run/bin/python -c 'import jax; jax.distributed.initialize()
print(f"{jax.local_device_count()} of {jax.device_count()} chips, JAX {jax.__version__}")'
}

must_be_idle() {
    if [[ "$(systemctl is-active oneflow)" =~ ^(active|activating|deactivating)$ ]]; then
        echo "error: $HOSTNAME has a run already; stop it with launch/stop_pod.sh." >&2
        return 1
    fi
}

# start_run LIBTPU_INIT_ARGS [ARGUMENT...]: starts the program with these arguments.
start_run() {
    set -euo pipefail
    local command="$HOME/oneflow.command" log="append:$HOME/oneflow.log" words
    # The command is written to a file, because systemd would expand dollar signs in a service's
    # arguments. With exec the program itself is the service's main process, and only this process
    # receives SIGTERM.
    {
        printf 'export LIBTPU_INIT_ARGS=%q\n' "$1"
        shift
        printf -v words ' %q' "$@"
        echo "exec .venv/run/bin/python -m oneflow_jax.main$words"
    } >"$command"
    sudo systemctl reset-failed oneflow 2>/dev/null || true
    # TPU drivers need locked memory.
    sudo systemd-run --unit=oneflow --uid="$(id -u)" --working-directory="$HOME/oneflow_jax" \
        --property=Type=exec --property=KillMode=mixed --property=TimeoutStopSec=600 \
        --property=LimitMEMLOCK=infinity --property=LimitNOFILE=65536 \
        --property=StandardOutput="$log" --property=StandardError="$log" \
        --setenv=PYTHONUNBUFFERED=1 /bin/bash "$command"
}

# Prints "oneflow on HOST: STATE" and the log's last line. After SIGTERM the program exits with 143.
host_state() {
    local state
    state="$(systemctl show oneflow --property=ActiveState --value):"
    state+="$(systemctl show oneflow --property=ExecMainStatus --value)"
    case "$state" in
        active:* | activating:* | deactivating:*) state=running ;;
        failed:143) state=stopped ;;
        failed:*) state="failed with code ${state#failed:}" ;;
        *) state="idle" ;;
    esac
    echo "oneflow on $HOSTNAME: $state"
    tail -qn 1 "$HOME/oneflow.log" 2>/dev/null || true
}

# follow LINES: prints the last lines of the log and follows it.
follow() {
    tail -n "$1" -F "$HOME/oneflow.log"
}

# Stops the run and waits until it has saved and exited.
stop_run() {
    if [[ "$(systemctl is-active oneflow)" =~ ^(active|activating|deactivating)$ ]]; then
        sudo systemctl stop oneflow
    fi
    tail -qn 1 "$HOME/oneflow.log" 2>/dev/null || true
}
