"""Settings of JAX and XLA for NVIDIA GPUs.

Variables that are set in the environment take precedence: XLA_FLAGS, and XLA_CLIENT_MEM_FRACTION or
its older name XLA_PYTHON_CLIENT_MEM_FRACTION.
"""

import glob
import importlib.util
import os

import jax

from oneflow_jax.runtime import distributed

MEMORY_FRACTION = 0.9
"""Fraction of a GPU's memory that JAX allocates at its start.

JAX's default is 0.75. The rest is for the CUDA context, the libraries' workspaces and the buffers
of collectives, which JAX allocates separately.
"""

XLA_OPTIONS: dict[str, bool | int | str] = {"xla_gpu_enable_latency_hiding_scheduler": True}
"""Options of XLA that differ from its defaults, by name.

The latency hiding scheduler overlaps collectives with computation. XLA aborts the process if
XLA_FLAGS has an unknown option, so each option here must exist in all supported versions.
"""

DEVICE_GLOBS = ("/dev/nvidia[0-9]*", "/dev/dxg")
"""Device files of machines with an NVIDIA GPU: the second pattern for WSL on Windows."""

PLUGIN_NAMES = ("jax_cuda13_plugin", "jax_cuda12_plugin")
"""Packages with which JAX supports NVIDIA GPUs."""


def configure() -> None:
    """Set JAX's and XLA's variables for GPUs; call this before JAX uses a device.

    On a machine without accelerators, the function selects the CPU if JAX's CUDA plugin is
    installed, for example for `--mode=aot`. JAX would otherwise print an error of the plugin.
    """
    if any(map(glob.glob, DEVICE_GLOBS)):
        if not {"XLA_CLIENT_MEM_FRACTION", "XLA_PYTHON_CLIENT_MEM_FRACTION"} & set(os.environ):
            os.environ["XLA_CLIENT_MEM_FRACTION"] = str(MEMORY_FRACTION)
        os.environ["XLA_FLAGS"] = add_flags(os.environ.get("XLA_FLAGS", ""))
    elif has_plugin() and not any(map(glob.glob, distributed.TPU_DEVICE_GLOBS)):
        jax.config.update("jax_platforms", jax.config.jax_platforms or "cpu")


def add_flags(flags: str) -> str:
    """Return the value of XLA_FLAGS with those `XLA_OPTIONS` that it does not set."""
    names = {word.lstrip("-").partition("=")[0] for word in flags.split()}
    missing = [
        f"--{name}={str(value).lower()}" for name, value in XLA_OPTIONS.items() if name not in names
    ]
    return " ".join([*flags.split(), *missing])


def has_plugin() -> bool:
    """Return whether JAX's CUDA plugin is installed, without loading it."""
    return any(map(importlib.util.find_spec, PLUGIN_NAMES))
