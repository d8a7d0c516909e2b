#!/usr/bin/env bash
# Puts this project and JAX for TPUs on every host of the pod; run again to update.
set -euo pipefail
source "$(dirname "$0")/pod.env"

repository=$(printf %q "$REPOSITORY")
on_all_hosts "set -e
    sudo apt-get install -y -qq python3.11-venv || sudo apt-get install -y -qq python3-venv
    test -d oneflow_jax_checkout || git clone --depth=1 $repository oneflow_jax_checkout
    cd oneflow_jax_checkout && git pull --ff-only
    test -d .venv/run || \"\$(command -v python3.11 || echo python3)\" -m venv .venv/run
    .venv/run/bin/pip install --quiet -r requirements.txt 'jax[tpu]'
    .venv/run/bin/python -c 'import jax; print(jax.device_count(), \"chips\")'"
