"""The host: its process's memory for XLA's CPU backend, its machine."""

import ctypes
import os
import pathlib
import platform
import sys

import jax
from etils import epath

# Parameters of mallopt(3), from malloc.h; glibc's numbers are part of its ABI.
_M_TRIM_THRESHOLD, _M_TOP_PAD, _M_MMAP_MAX, _M_ARENA_MAX = -1, -2, -4, -8
_MAX_THRESHOLD = 2**31 - 1


def configure_malloc() -> None:
    """Has glibc's malloc keep what is freed, on Linux; elsewhere nothing changes.

    XLA's CPU backend allocates its scratch memory anew at every step. glibc maps and unmaps blocks
    that large, and the kernel clears every page again: some 27,000 page faults a step, and 1.7
    times the processor time of a small model (benchmarks/README.md).
    """
    if sys.platform != "linux":
        return
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is None:  # A libc other than glibc.
        return
    for parameter, value in (
        (_M_MMAP_MAX, 0),
        (_M_TRIM_THRESHOLD, _MAX_THRESHOLD),
        (_M_TOP_PAD, 256 * 2**20),
        (_M_ARENA_MAX, 1),
    ):
        mallopt(parameter, value)


def enable_compilation_cache(folder: epath.Path) -> None:
    """Keeps compiled programs in a folder, so that the next start need not compile them again."""
    jax.config.update("jax_compilation_cache_dir", str(folder))


def disable_xla_optimizations() -> None:
    """Compiles without optimizing, in two thirds of the time: for what computes next to nothing."""
    jax.config.update("jax_disable_most_optimizations", True)


def machine_info() -> dict[str, str | int]:
    """What was measured on."""
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
