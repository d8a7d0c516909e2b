"""Settings of malloc and XLA for this process, and a description of the machine."""

import ctypes
import os
import pathlib
import platform
import sys

import jax

from oneflow_jax.runtime import gpu

# Parameters of mallopt(3), from malloc.h. These numbers are part of glibc's ABI.
_M_TRIM_THRESHOLD, _M_TOP_PAD, _M_MMAP_MAX, _M_ARENA_MAX = -1, -2, -4, -8
_MAX_THRESHOLD = 2**31 - 1


def configure() -> None:
    """Configure malloc, and JAX and XLA for GPUs; call this before JAX uses a device."""
    configure_malloc()
    gpu.configure()


def configure_malloc() -> None:
    """Configure glibc's malloc to keep freed memory; do nothing without glibc.

    XLA's CPU backend allocates its scratch memory again at every step. By default glibc maps and
    unmaps such large blocks at every step, and the kernel clears every page again. This causes
    about 27,000 page faults per step. A small model then takes 1.7 times as much CPU time
    (benchmarks/README.md).
    """
    if sys.platform != "linux":
        return
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is None:  # The libc is not glibc.
        return
    for parameter, value in (
        (_M_MMAP_MAX, 0),
        (_M_TRIM_THRESHOLD, _MAX_THRESHOLD),
        (_M_TOP_PAD, 256 * 2**20),
        (_M_ARENA_MAX, 1),
    ):
        mallopt(parameter, value)


def disable_xla_optimizations() -> None:
    """Disable most XLA optimizations, for programs that compute little.

    Compilation then takes two thirds of the usual time.
    """
    jax.config.update("jax_disable_most_optimizations", True)


def machine_info() -> dict[str, str | int]:
    """Describe the hardware and software of this machine, for results of benchmarks."""
    return {
        "cpu": _cpu_name(),
        "cores": os.cpu_count() or 1,
        "load": round(os.getloadavg()[0], 1),
        "platform": jax.devices()[0].device_kind,
        "python": platform.python_version(),
        "jax": jax.__version__,
    }


def _cpu_name() -> str:
    info = pathlib.Path("/proc/cpuinfo")
    if info.exists():
        for line in info.read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()
