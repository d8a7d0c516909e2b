# shellcheck shell=bash
# What the hosts do. pod.sh sends one function at a time, so each stands alone; bash runs them.
# The run is a service of systemd: it outlives the connection, a second one cannot start, and when
# the machine is taken away it gets SIGTERM, upon which it saves.

# set_up REPOSITORY REVISION PYTHON
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
    # Hosts wait for each other in here.
    .venv/run/bin/python -c 'import jax; jax.distributed.initialize()
print(f"{jax.local_device_count()} of {jax.device_count()} chips, JAX {jax.__version__}")'
}

must_be_idle() {
    if [[ "$(systemctl is-active oneflow)" =~ ^(active|activating|deactivating)$ ]]; then
        echo "error: $HOSTNAME has a run already; launch/stop_pod.sh ends it." >&2
        return 1
    fi
}

# start_run LIBTPU_INIT_ARGS [ARGUMENT...]: the arguments are the program's.
start_run() {
    set -euo pipefail
    local command="$HOME/oneflow.command" log="append:$HOME/oneflow.log" words
    # Through a file, because systemd would read the dollar signs in a service's arguments. With
    # exec the program itself is the service's main process, which alone is told to stop.
    {
        printf 'export LIBTPU_INIT_ARGS=%q\n' "$1"
        shift
        printf -v words ' %q' "$@"
        echo "exec .venv/run/bin/python -m oneflow_jax.main$words"
    } >"$command"
    sudo systemctl reset-failed oneflow 2>/dev/null || true
    # TPUs are reached through locked memory.
    sudo systemd-run --unit=oneflow --uid="$(id -u)" --working-directory="$HOME/oneflow_jax" \
        --property=Type=exec --property=KillMode=mixed --property=TimeoutStopSec=600 \
        --property=LimitMEMLOCK=infinity --property=LimitNOFILE=65536 \
        --property=StandardOutput="$log" --property=StandardError="$log" \
        --setenv=PYTHONUNBUFFERED=1 /bin/bash "$command"
}

# Prints "oneflow on HOST: STATE" and the log's last line. 143 is the code of a run that was told to stop.
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

# follow LINES
follow() {
    tail -n "$1" -F "$HOME/oneflow.log"
}

# Waits until the run has saved and left.
stop_run() {
    if [[ "$(systemctl is-active oneflow)" =~ ^(active|activating|deactivating)$ ]]; then
        sudo systemctl stop oneflow
    fi
    tail -qn 1 "$HOME/oneflow.log" 2>/dev/null || true
}
