"""Runs of several processes on this machine, as on the hosts of a pod."""

import dataclasses
import os
import socket
import subprocess
import sys

from oneflow_jax import processes
from tests import runs

TRAINING = "tests.processes.training"
MAIN = "oneflow_jax.main"
DEVICES = 8


def free_port():
    with socket.socket() as socket_:
        socket_.bind(("localhost", 0))
        return socket_.getsockname()[1]


def started(count, *arguments, devices=DEVICES, module=TRAINING):
    """Processes that share `devices` devices, begun; what they say on stderr is a pipe."""
    given = runs.command(*arguments)
    line = [sys.executable, "-m", module, *arguments]
    environment = given["env"] | {"JAX_NUM_CPU_DEVICES": str(devices // count)}
    for name in processes.ENVIRONMENT:
        environment.pop(name, None)
    port = free_port()
    begun = []
    for index in range(count):
        told = (f"localhost:{port}", str(count), str(index))
        mine = environment | (dict(zip(processes.ENVIRONMENT, told, strict=True)) if count > 1 else {})
        pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
        begun.append(subprocess.Popen(**given | {"args": line, "env": mine} | pipes))
    return begun


@dataclasses.dataclass(frozen=True)
class Ended:
    """A process that has ended: its exit code and what it has said."""

    code: int
    out: str
    err: str


def ended(begun, timeout=300):
    """Waits for processes; they are killed if it takes too long."""
    found = []
    try:
        for process in begun:
            out, err = process.communicate(timeout=timeout)
            found.append(Ended(process.returncode, out, err))
    finally:
        for process in begun:
            process.kill()
    return found


def run(count, *arguments, **given):
    """Runs processes to their end, which must be a good one."""
    done = ended(started(count, *arguments, **given))
    assert [one.code for one in done] == [0] * count, "\n\n".join(one.err[-3000:] for one in done)
    return done
