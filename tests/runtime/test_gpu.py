"""Tests of the settings for NVIDIA GPUs, on machines that have a GPU or not."""

import glob
import importlib.util
import os
import subprocess
import sys

import jax
import pytest

from oneflow_jax.runtime import distributed, gpu
from tests import runs

OPTIONS = "--xla_gpu_enable_latency_hiding_scheduler=true"
VARIABLES = ("XLA_FLAGS", "XLA_CLIENT_MEM_FRACTION", "XLA_PYTHON_CLIENT_MEM_FRACTION")


@pytest.fixture
def machine(monkeypatch):
    """Return a function that sets which device files a machine has, and what its variables are."""
    for name in VARIABLES:
        monkeypatch.delenv(name, raising=False)

    def make(*patterns, has_plugin=True, **variables):
        monkeypatch.setattr(glob, "glob", lambda pattern: [pattern] * (pattern in patterns))
        monkeypatch.setattr(
            importlib.util, "find_spec", lambda name: has_plugin and name.startswith("jax_cuda")
        )
        for name, value in variables.items():
            monkeypatch.setenv(name, value)

    before = jax.config.jax_platforms
    jax.config.update("jax_platforms", None)
    yield make
    jax.config.update("jax_platforms", before)


@pytest.mark.parametrize("files", gpu.DEVICE_GLOBS)
def test_a_gpu_gets_flags_and_a_memory_fraction(machine, files):
    machine(files)
    gpu.configure()
    assert os.environ["XLA_FLAGS"] == OPTIONS
    assert os.environ["XLA_CLIENT_MEM_FRACTION"] == "0.9"
    assert not jax.config.jax_platforms


@pytest.mark.parametrize("name", ["XLA_CLIENT_MEM_FRACTION", "XLA_PYTHON_CLIENT_MEM_FRACTION"])
def test_variables_of_the_user_take_precedence(machine, name):
    """Check that only one of the two names is set, because JAX refuses both."""
    given = "--xla_gpu_enable_latency_hiding_scheduler=false --xla_dump_to=/tmp/x"
    machine(gpu.DEVICE_GLOBS[0], XLA_FLAGS=given, **{name: "0.5"})
    gpu.configure()
    assert os.environ["XLA_FLAGS"] == given
    assert {key: os.environ[key] for key in VARIABLES[1:] if key in os.environ} == {name: "0.5"}


def test_other_flags_are_kept():
    assert gpu.add_flags("--xla_dump_to=/tmp/x") == f"--xla_dump_to=/tmp/x {OPTIONS}"


def test_the_plugin_alone_selects_the_cpu(machine):
    machine()
    gpu.configure()
    assert jax.config.jax_platforms == "cpu"
    assert not {*VARIABLES} & set(os.environ)


def test_machines_without_the_plugin_or_with_a_tpu_are_left_alone(machine):
    machine(has_plugin=False)
    gpu.configure()
    assert not jax.config.jax_platforms
    machine(distributed.TPU_DEVICE_GLOBS[0])
    gpu.configure()
    assert not jax.config.jax_platforms


def test_a_selected_platform_is_kept(machine):
    machine()
    jax.config.update("jax_platforms", "cuda")
    gpu.configure()
    assert jax.config.jax_platforms == "cuda"


def test_xla_accepts_the_flags():
    """Start a process with the flags: XLA aborts if it does not know one of them."""
    code = "import jax; jax.numpy.ones(2).sum(); print('started')"
    for flags, expected in ((OPTIONS, "started"), ("--xla_gpu_no_such_option=true", "Unknown")):
        environment = os.environ | {"XLA_FLAGS": flags, "JAX_PLATFORMS": "cpu"}
        done = subprocess.run(
            [sys.executable, "-c", code],
            env=environment,
            capture_output=True,
            text=True,
            check=False,
            timeout=runs.TIMEOUT_S,
        )
        assert expected in done.stdout + done.stderr
