"""Compiled programs on disk, from which later processes load them: JAX's compilation cache.

Training uses a folder of the run if `compilation_cache` is True. Sampling uses a folder of the
user:

    $XDG_CACHE_HOME/oneflow_jax/programs/<version of JAX and kind of processor>/

| environment variable               | meaning                                                 |
|------------------------------------|---------------------------------------------------------|
| XDG_CACHE_HOME                     | folder of the caches of all programs; default: ~/.cache |
| JAX_ENABLE_COMPILATION_CACHE=false | stores and loads no programs                            |
| JAX_COMPILATION_CACHE_DIR          | another folder, which is then never cleared             |

JAX's key of a program has its operations, the options and version of the compiler, and the kind of
accelerator. The name of the folder adds the version of JAX and the processor with its features:
home folders may be shared by machines, and native code of one machine may crash on another.
"""

import hashlib
import logging
import os
import pathlib
import platform
import shutil
import tempfile

import jax
import jaxlib
from etils import epath

MAX_BYTES = 2**30
"""Maximum size of the user's folder; the next process deletes programs beyond it."""

MIN_FREE_BYTES = 2**28
"""Free space on the disk below which no programs are stored: 256 MiB."""


def enable(folder: epath.Path) -> None:
    """Store compiled programs in a folder, from which later processes load them."""
    jax.config.update("jax_compilation_cache_dir", str(folder))


def enable_user_cache() -> None:
    """Store compiled programs in the user's folder, unless JAX has a folder or has caches disabled.

    If the folder cannot be used, the function logs the reason, and programs are compiled in each
    process.
    """
    if jax.config.jax_compilation_cache_dir or not jax.config.jax_enable_compilation_cache:
        return
    try:
        root = user_folder()
        folder = root / _machine_key()
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        _check_usable(folder)
        _delete_oldest(root, MAX_BYTES)
    except (OSError, RuntimeError) as error:  # RuntimeError: the user has no home folder.
        logging.warning(
            "Compiled programs are not stored on disk, so each process compiles them again: %s",
            error,
        )
        return
    enable(epath.Path(folder))


def user_folder() -> pathlib.Path:
    """Return the folder of the user's compiled programs.

    Raises:
        RuntimeError: XDG_CACHE_HOME is not set, and the user has no home folder.
    """
    cache = os.environ.get("XDG_CACHE_HOME", "")
    # The XDG specification says to ignore a relative path.
    root = pathlib.Path(cache) if os.path.isabs(cache) else pathlib.Path.home() / ".cache"
    return root / "oneflow_jax" / "programs"


def _check_usable(folder: pathlib.Path) -> None:
    """Check that JAX can write to the folder, and that no other user can.

    Raises:
        OSError: the folder cannot be written, its disk is full, or another user may write to it.
    """
    status = folder.stat()
    if status.st_uid != os.geteuid() or status.st_mode & 0o022:
        # The process executes the programs that it loads.
        raise PermissionError(f"{folder}: other users may write to this folder. Run chmod 700.")
    free = shutil.disk_usage(folder).free
    if free < MIN_FREE_BYTES:
        raise OSError(f"{folder}: its disk has only {free / 2**20:.0f} MiB of free space.")
    with tempfile.TemporaryFile(dir=folder):  # Raises an error if the folder is read-only.
        pass


def _delete_oldest(root: pathlib.Path, max_bytes: int) -> None:
    """Delete the programs that were read longest ago, until the rest has at most `max_bytes`."""
    files = [(path, path.stat()) for path in root.rglob("*") if path.is_file()]
    size = sum(status.st_size for _, status in files)
    for path, status in sorted(files, key=lambda file: file[1].st_atime):
        if size <= max_bytes:
            break
        path.unlink(missing_ok=True)
        size -= status.st_size


def _machine_key() -> str:
    """Return a name for the version of JAX and the processor, whose native code programs have."""
    parts = [jax.__version__, jaxlib.__version__, platform.machine(), platform.processor()]
    info = pathlib.Path("/proc/cpuinfo")
    if info.exists():
        names = ("model name", "flags", "Features", "CPU part")
        lines = info.read_text().splitlines()
        parts += sorted({line for line in lines if line.startswith(names)})
    digest = hashlib.sha256("\n".join(parts).encode()).hexdigest()
    return f"jax-{jax.__version__}-{digest[:16]}"
