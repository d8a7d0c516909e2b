"""Multi-process runs: start-up, barriers, gathers and orderly exits.

A run has one process, or one process per host, or under SLURM one process per GPU. All processes
execute the same program and take every step together. Each process has its own devices. Process 0,
the primary process, also writes the log and the run's files, which must be readable on all hosts.
"""

import collections
import contextlib
import glob
import importlib.util
import itertools
import json
import os
import subprocess
import sys
import uuid
from collections.abc import Iterator
from typing import Any, NoReturn

import jax
import numpy as np
from etils import epath
from jax.experimental import multihost_utils

from oneflow_jax.errors import Preempted, UserError
from oneflow_jax.runtime import slurm, watchdog
from oneflow_jax.shapes import PyTree

ENV_VARS = ("JAX_COORDINATOR_ADDRESS", "JAX_NUM_PROCESSES", "JAX_PROCESS_ID")
"""Environment variables of a multi-process run on CPUs or GPUs; all three are required.

On a TPU pod and under SLURM, JAX finds these values without the variables.
"""

TPU_DEVICE_GLOBS = ("/dev/accel[0-9]*", "/dev/vfio/[0-9]*")
"""Device files of TPU hosts: the first pattern for TPUs up to v4, the second for newer TPUs."""

HEARTBEAT_TIMEOUT_S = 30
"""Seconds without a heartbeat after which a process counts as dead and all others stop."""

BARRIER_TIMEOUT_S = 24 * 3600
"""Maximum wait at a barrier in seconds, for example while the primary process prepares data.

If a process dies, the other processes stop earlier, after `HEARTBEAT_TIMEOUT_S`.
"""

EXPECTED_ERRORS = (UserError, Preempted, KeyboardInterrupt)
"""Exceptions whose message `main` prints without a traceback."""

_barrier_ids = itertools.count()


def initialize() -> None:
    """Join the other processes of the run, if any. Call this before JAX uses a device.

    Raises:
        UserError: the environment variables `ENV_VARS` are incomplete or invalid.
    """
    env = {name: os.environ[name] for name in ENV_VARS if os.environ.get(name)}
    if env:
        address, count, index = _parse_env(env)
        jax.distributed.initialize(
            address, count, index, heartbeat_timeout_seconds=HEARTBEAT_TIMEOUT_S
        )
    elif slurm.num_processes() > 1:
        jax.distributed.initialize(
            cluster_detection_method="slurm",
            local_device_ids=slurm.local_gpus(),
            heartbeat_timeout_seconds=HEARTBEAT_TIMEOUT_S,
        )
    elif _running_on_tpu():
        try:  # JAX reads Google's metadata server or GKE's environment variables.
            jax.distributed.initialize(heartbeat_timeout_seconds=HEARTBEAT_TIMEOUT_S)
        except ValueError as error:
            if "coordinator_address should be defined" not in str(error):
                raise
            # Neither source describes this host, so the run has a single process.


def _running_on_tpu() -> bool:
    """Return whether JAX will run on TPUs of this host, without initializing a device."""
    allowed = "tpu" in (jax.config.jax_platforms or "tpu")
    return (
        allowed
        and bool(importlib.util.find_spec("libtpu"))
        and any(map(glob.glob, TPU_DEVICE_GLOBS))
    )


def _parse_env(env: dict[str, str]) -> tuple[str, int, int]:
    settings = ", ".join(f"{name}={value}" for name, value in env.items())
    missing = [name for name in ENV_VARS if name not in env]
    if missing:
        raise UserError(
            f"{settings}: {' and '.join(missing)} must be set too. Several processes need all of "
            f"{', '.join(ENV_VARS)}; a single process needs none."
        )
    address, count, index = env.values()
    if not (count.isdecimal() and index.isdecimal() and int(index) < int(count)):
        raise UserError(
            f"{settings}: the last two values must be whole numbers. Set the number of processes "
            "and the index of this process, from 0."
        )
    if not address.rpartition(":")[2].isdecimal():
        raise UserError(f"{settings}: the first value is no address. Set HOST:PORT of process 0.")
    return address, int(count), int(index)


def is_multi_process() -> bool:
    """Return whether the run has several processes, without initializing a device."""
    return jax.distributed.is_initialized() and jax.process_count() > 1


def is_primary() -> bool:
    """Return whether this is the primary process, without initializing a device."""
    return not is_multi_process() or jax.process_index() == 0


def barrier() -> None:
    """Wait until every process has called this function as many times as this process."""
    if is_multi_process():
        # JAX's own barrier runs on devices and times out after half a minute. Orbax has a barrier
        # between processes, whose timeout can be set.
        everyone = set(range(jax.process_count()))
        name = f"oneflow_jax {next(_barrier_ids)}"
        from orbax.checkpoint import multihost  # A slow import that only multi-process runs need.

        multihost.sync_global_processes(name, timeout=BARRIER_TIMEOUT_S, processes=everyone)


@contextlib.contextmanager
def share_errors() -> Iterator[None]:
    """Run a `with` block in all processes; a `UserError` in one process is raised in all.

    The block must not wait for the other processes.

    Raises:
        UserError: the block raised this error in one of the processes.
    """
    message = ""
    try:
        yield
    except UserError as error:
        if not is_multi_process():
            raise
        message = str(error)
    _raise_first(message)


@contextlib.contextmanager
def primary_first() -> Iterator[None]:
    """Run a `with` block first in the primary process, and then in the other processes.

    So the other processes can read files that the primary process writes in the block.

    Raises:
        UserError: the block raised this error in one of the processes. All processes raise it.
    """
    if not is_primary():
        _raise_first("")  # Wait while the primary process runs the block.
    with share_errors():
        yield
    if is_primary():
        _raise_first("")  # Wait while the other processes run the block.


def _raise_first(message: str) -> None:
    """Raise a UserError in all processes with the first `message` that is not empty, if any."""
    barrier()  # The gather below would time out if a process is in the block for long.
    messages = all_gather_json({str(jax.process_index()): message}) if is_multi_process() else {}
    count = len(messages)
    for index in range(count):
        text = messages[str(index)]
        if text:
            where = f" (In process {index} of {count}.)" if index else ""
            raise UserError(f"{text}{where}", in_all_processes=True)


def follow_primary(decision: bool) -> bool:
    """Return the decision of the primary process; every process must call this."""
    if not is_multi_process():
        return decision
    return bool(multihost_utils.broadcast_one_to_all(np.int32(decision)))


def all_gather_json(values: dict[str, Any]) -> dict[str, Any]:
    """Merge JSON-serializable dictionaries of all processes; every process must call this."""
    if not is_multi_process():
        return values
    text = np.frombuffer(json.dumps(values).encode(), np.uint8)
    lengths = multihost_utils.process_allgather(np.int32(len(text)))
    # Pad the texts to powers of two, because JAX compiles a program for each new length.
    room = 1 << int(max(lengths)).bit_length()
    texts = multihost_utils.process_allgather(np.pad(text, (0, room - len(text))))
    rows = zip(texts, lengths, strict=True)
    return dict(collections.ChainMap(*(json.loads(bytes(row[:length])) for row, length in rows)))


def is_shared(folder: epath.Path) -> bool:
    """Return whether all processes see the same folder; every process must call this.

    The primary process writes a file to the folder, and deletes it at the end.
    """
    if not is_multi_process():
        return True
    name = {}
    if is_primary():
        name = {"name": f".{uuid.uuid4().hex}"}
        (folder / name["name"]).touch()
    file = folder / all_gather_json(name)["name"]
    seen = all_gather_json({str(jax.process_index()): file.exists()})
    if is_primary():
        file.unlink()
    return all(seen.values())


def to_host(tree: PyTree) -> PyTree:
    """Gather arrays of all processes as NumPy arrays; every process must call this."""
    return (
        multihost_utils.process_allgather(tree, tiled=True)
        if is_multi_process()
        else jax.device_get(tree)
    )


@contextlib.contextmanager
def watch_peers(checkpoint_dir: epath.Path) -> Iterator[None]:
    """Make every process print how to resume if the run dies in this `with` block.

    When a process dies, JAX kills the other processes from a C++ thread, and no Python code runs in
    these processes afterwards. So each process starts a small separate process, `watchdog`. The
    watchdog waits for the end of its parent and prints the message.
    """
    if not is_multi_process():
        yield
        return
    arguments = [str(jax.process_index()), str(jax.process_count()), str(checkpoint_dir)]
    command = [sys.executable, "-I", str(watchdog.__file__), *arguments]
    # The watchdog runs in a new session, because Ctrl-C must not reach it. The standard input of
    # the watchdog closes when this process ends.
    watcher = subprocess.Popen(command, stdin=subprocess.PIPE, start_new_session=True)
    try:
        yield
        barrier()  # No process exits while the primary process is still writing files.
    except EXPECTED_ERRORS:
        watcher.communicate(watchdog.EXITED_CLEANLY)
        raise
    watcher.communicate(watchdog.EXITED_CLEANLY)


def exit_process(
    message: str, exit_code: int = 1, *, immediately: bool = False, together: bool = False
) -> NoReturn:
    """Print a message and exit without waiting for the other processes, which JAX then stops.

    Args:
        message: printed to standard error.
        exit_code: exit code of the process.
        immediately: whether to skip Python's shutdown, during which busy threads may crash.
        together: whether all processes call this function. They wait for each other, so every
            process prints its message before JAX stops it.
    """
    print(message, file=sys.stderr, flush=True)
    if together and is_multi_process():
        jax.distributed.shutdown()
        sys.stdout.flush()
        os._exit(exit_code)
    if is_multi_process() or immediately:
        # Python's shutdown would first wait for the other processes to end.
        sys.stdout.flush()
        os._exit(exit_code)
    sys.exit(exit_code)
