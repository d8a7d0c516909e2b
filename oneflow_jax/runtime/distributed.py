"""The processes of one run: one alone, or those of several hosts, which take every step together.

Each holds some of the devices. All of them do the same; the first, the leader, also writes what a
run leaves on disk, which all hosts see, and tells people of it.
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
from collections.abc import Iterator
from typing import Any, NoReturn

import jax
import numpy as np
from etils import epath
from jax.experimental import multihost_utils
from orbax.checkpoint import multihost

from oneflow_jax.errors import Preempted, UserError
from oneflow_jax.runtime import watchdog
from oneflow_jax.shapes import PyTree

ENV_VARS = ("JAX_COORDINATOR_ADDRESS", "JAX_NUM_PROCESSES", "JAX_PROCESS_ID")
"""Set all of them to run several processes on CPUs or GPUs; a TPU pod tells JAX by itself."""

TPU_DEVICE_GLOBS = ("/dev/accel[0-9]*", "/dev/vfio/[0-9]*")
"""What there is on hosts of TPUs: the former up to v4, the latter from v5e on."""

HEARTBEAT_TIMEOUT_S = 30
"""Seconds without a sign of life after which a process counts as dead, and the others stop."""

BARRIER_TIMEOUT_S = 24 * 3600
"""Seconds that processes wait for one that prepares data, say. If it dies they wait no longer."""

EXPECTED_ERRORS = (UserError, Preempted, KeyboardInterrupt)
"""What `main` tells of by itself."""

_barrier_ids = itertools.count()


def initialize() -> None:
    """Makes this one of the processes of a run, if there are several; before JAX runs.

    Raises:
        UserError: the environment tells a part of what it must, or what cannot be.
    """
    given = {name: os.environ[name] for name in ENV_VARS if os.environ.get(name)}
    if given:
        address, count, index = _parse_env(given)
        jax.distributed.initialize(
            address, count, index, heartbeat_timeout_seconds=HEARTBEAT_TIMEOUT_S
        )
    elif _running_on_tpu():
        try:  # JAX asks Google's metadata server, or GKE's environment.
            jax.distributed.initialize(heartbeat_timeout_seconds=HEARTBEAT_TIMEOUT_S)
        except ValueError as error:
            if "coordinator_address should be defined" not in str(error):
                raise
            # Neither knows of this host: it is alone.


def _running_on_tpu() -> bool:
    """Whether JAX will run on TPUs that are here; starts no devices."""
    allowed = "tpu" in (jax.config.jax_platforms or "tpu")
    return (
        allowed
        and bool(importlib.util.find_spec("libtpu"))
        and any(map(glob.glob, TPU_DEVICE_GLOBS))
    )


def _parse_env(env: dict[str, str]) -> tuple[str, int, int]:
    told = ", ".join(f"{name}={value}" for name, value in env.items())
    missing = [name for name in ENV_VARS if name not in env]
    if missing:
        raise UserError(
            f"{told}, but no {' and no '.join(missing)}: several processes want all of "
            f"{', '.join(ENV_VARS)}; one alone wants none."
        )
    address, count, index = env.values()
    if not (count.isdecimal() and index.isdecimal() and int(index) < int(count)):
        raise UserError(
            f"{told}: the last two must be whole numbers, how many processes there are and which "
            "of them this one is, from 0."
        )
    if not address.rpartition(":")[2].isdecimal():
        raise UserError(f"{told}: the first must be HOST:PORT, of process 0.")
    return address, int(count), int(index)


def is_multi_process() -> bool:
    """Whether this is one of several processes; starts no devices."""
    return jax.distributed.is_initialized() and jax.process_count() > 1


def is_primary() -> bool:
    """Whether this process writes and tells for all; starts no devices."""
    return not is_multi_process() or jax.process_index() == 0


def barrier() -> None:
    """Waits for all processes; each must call this as often as the others."""
    if is_multi_process():
        # Not by way of the devices, where waiting ends after half a minute.
        everyone = set(range(jax.process_count()))
        name = f"oneflow_jax {next(_barrier_ids)}"
        multihost.sync_global_processes(name, timeout=BARRIER_TIMEOUT_S, processes=everyone)


@contextlib.contextmanager
def primary_first() -> Iterator[None]:
    """The leader goes through this alone; then the others do, who find what it has made."""
    if not is_primary():
        barrier()
    yield
    if is_primary():
        barrier()


def all_gather_json(values: dict[str, Any]) -> dict[str, Any]:
    """What all processes tell, in values that JSON has; all of them must call this."""
    if not is_multi_process():
        return values
    text = np.frombuffer(json.dumps(values).encode(), np.uint8)
    lengths = multihost_utils.process_allgather(np.int32(len(text)))
    # Each new length would be compiled anew.
    room = 1 << int(max(lengths)).bit_length()
    texts = multihost_utils.process_allgather(np.pad(text, (0, room - len(text))))
    rows = zip(texts, lengths, strict=True)
    return dict(collections.ChainMap(*(json.loads(bytes(row[:length])) for row, length in rows)))


def to_host(tree: PyTree) -> PyTree:
    """Arrays that lie on devices of all processes, as numpy arrays; all of them must call this."""
    return (
        multihost_utils.process_allgather(tree, tiled=True)
        if is_multi_process()
        else jax.device_get(tree)
    )


@contextlib.contextmanager
def watch_peers(checkpoint_dir: epath.Path) -> Iterator[None]:
    """Around the whole of a run: if it ends too early in one process, all say how to go on.

    JAX kills a process whose companions are dead, from a thread of its own that no Python code can
    stop or follow; so another small process, which does nothing else, waits for that.
    """
    if not is_multi_process():
        yield
        return
    told = [str(jax.process_index()), str(jax.process_count()), str(checkpoint_dir)]
    command = [sys.executable, "-I", str(watchdog.__file__), *told]
    # In a session of its own, Ctrl-C does not reach it. Its input ends with this process.
    watcher = subprocess.Popen(command, stdin=subprocess.PIPE, start_new_session=True)
    try:
        yield
        barrier()  # Nobody leaves while the leader still writes.
    except EXPECTED_ERRORS:
        watcher.communicate(watchdog.EXITED_CLEANLY)
        raise
    watcher.communicate(watchdog.EXITED_CLEANLY)


def exit_process(message: str, exit_code: int = 1, *, immediately: bool = False) -> NoReturn:
    """Ends this process with a message; does not wait for others, who will notice.

    `immediately` does without Python's own way out, in which threads that are amid work may crash.
    """
    print(message, file=sys.stderr, flush=True)
    if is_multi_process() or immediately:
        # Python's own way out would first wait for the other processes to end too.
        sys.stdout.flush()
        os._exit(exit_code)
    sys.exit(exit_code)
