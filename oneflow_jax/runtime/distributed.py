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

from oneflow_jax.errors import Stopped, UserError
from oneflow_jax.runtime import watchdog
from oneflow_jax.shapes import PyTree

ENVIRONMENT = ("JAX_COORDINATOR_ADDRESS", "JAX_NUM_PROCESSES", "JAX_PROCESS_ID")
"""Set all of them to run several processes on CPUs or GPUs; a TPU pod tells JAX by itself."""

TPUS = ("/dev/accel[0-9]*", "/dev/vfio/[0-9]*")
"""What there is on hosts of TPUs: the former up to v4, the latter from v5e on."""

HEARTBEAT = 30
"""Seconds without a sign of life after which a process counts as dead, and the others stop."""

PATIENCE = 24 * 3600
"""Seconds that processes wait for one that prepares data, say. If it dies they wait no longer."""

TOLD = (UserError, Stopped, KeyboardInterrupt)
"""What `main` tells of by itself."""

_meetings = itertools.count()


def join() -> None:
    """Makes this one of the processes of a run, if there are several; before JAX runs.

    Raises:
        UserError: the environment tells a part of what it must, or what cannot be.
    """
    given = {name: os.environ[name] for name in ENVIRONMENT if os.environ.get(name)}
    if given:
        address, count, index = _of_environment(given)
        jax.distributed.initialize(address, count, index, heartbeat_timeout_seconds=HEARTBEAT)
    elif _on_tpus():
        try:  # JAX asks Google's metadata server, or GKE's environment.
            jax.distributed.initialize(heartbeat_timeout_seconds=HEARTBEAT)
        except ValueError as error:
            if "coordinator_address should be defined" not in str(error):
                raise
            # Neither knows of this host: it is alone.


def _on_tpus() -> bool:
    """Whether JAX will run on TPUs that are here; starts no devices."""
    allowed = "tpu" in (jax.config.jax_platforms or "tpu")
    return allowed and bool(importlib.util.find_spec("libtpu")) and any(map(glob.glob, TPUS))


def _of_environment(given: dict[str, str]) -> tuple[str, int, int]:
    told = ", ".join(f"{name}={value}" for name, value in given.items())
    missing = [name for name in ENVIRONMENT if name not in given]
    if missing:
        raise UserError(
            f"{told}, but no {' and no '.join(missing)}: several processes want all of "
            f"{', '.join(ENVIRONMENT)}; one alone wants none."
        )
    address, count, index = given.values()
    if not (count.isdecimal() and index.isdecimal() and int(index) < int(count)):
        raise UserError(
            f"{told}: the last two must be whole numbers, how many processes there are and which "
            "of them this one is, from 0."
        )
    if not address.rpartition(":")[2].isdecimal():
        raise UserError(f"{told}: the first must be HOST:PORT, of process 0.")
    return address, int(count), int(index)


def several() -> bool:
    """Whether this is one of several processes; starts no devices."""
    return jax.distributed.is_initialized() and jax.process_count() > 1


def leads() -> bool:
    """Whether this process writes and tells for all; starts no devices."""
    return not several() or jax.process_index() == 0


def meet() -> None:
    """Waits for all processes; each must call this as often as the others."""
    if several():
        # Not by way of the devices, where waiting ends after half a minute.
        everyone = set(range(jax.process_count()))
        name = f"oneflow_jax {next(_meetings)}"
        multihost.sync_global_processes(name, timeout=PATIENCE, processes=everyone)


@contextlib.contextmanager
def leader_first() -> Iterator[None]:
    """The leader goes through this alone; then the others do, who find what it has made."""
    if not leads():
        meet()
    yield
    if leads():
        meet()


def together(told: dict[str, Any]) -> dict[str, Any]:
    """What all processes tell, in values that JSON has; all of them must call this."""
    if not several():
        return told
    text = np.frombuffer(json.dumps(told).encode(), np.uint8)
    lengths = multihost_utils.process_allgather(np.int32(len(text)))
    # Each new length would be compiled anew.
    room = 1 << int(max(lengths)).bit_length()
    texts = multihost_utils.process_allgather(np.pad(text, (0, room - len(text))))
    rows = zip(texts, lengths, strict=True)
    return dict(collections.ChainMap(*(json.loads(bytes(row[:length])) for row, length in rows)))


def fetched(tree: PyTree) -> PyTree:
    """Arrays that lie on devices of all processes, as numpy arrays; all of them must call this."""
    return (
        multihost_utils.process_allgather(tree, tiled=True) if several() else jax.device_get(tree)
    )


@contextlib.contextmanager
def mourned(checkpoints: epath.Path) -> Iterator[None]:
    """Around the whole of a run: if it ends too early in one process, all say how to go on.

    JAX kills a process whose companions are dead, from a thread of its own that no Python code can
    stop or follow; so another small process, which does nothing else, waits for that.
    """
    if not several():
        yield
        return
    told = [str(jax.process_index()), str(jax.process_count()), str(checkpoints)]
    command = [sys.executable, "-I", str(watchdog.__file__), *told]
    # In a session of its own, Ctrl-C does not reach it. Its input ends with this process.
    watcher = subprocess.Popen(command, stdin=subprocess.PIPE, start_new_session=True)
    try:
        yield
        meet()  # Nobody leaves while the leader still writes.
    except TOLD:
        watcher.communicate(watchdog.DONE)
        raise
    watcher.communicate(watchdog.DONE)


def leave(message: str, code: int = 1, *, at_once: bool = False) -> NoReturn:
    """Ends this process with a message; does not wait for others, who will notice.

    `at_once` does without Python's own way out, in which threads that are amid work may crash.
    """
    print(message, file=sys.stderr, flush=True)
    if several() or at_once:
        # Python's own way out would first wait for the other processes to end too.
        sys.stdout.flush()
        os._exit(code)
    sys.exit(code)
