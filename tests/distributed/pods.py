"""Runs of several processes on this machine, as on the hosts of a pod."""

import contextlib
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time

from oneflow_jax.runtime import distributed
from tests import runs

TIMEOUT_S = 400
"""Seconds that anything may take, on a machine that has much else to do."""


def find_free_port():
    with socket.socket() as socket_:
        socket_.bind(("localhost", 0))
        return socket_.getsockname()[1]


class Pod:
    """Processes that share `devices` devices and a run; a context manager, which kills them."""

    def __init__(self, count, *arguments, devices=8, module="oneflow_jax.main"):
        given = runs.popen_kwargs(*arguments)
        given["args"] = [sys.executable, "-m", module, *arguments]
        environment = given.pop("env") | {"JAX_NUM_CPU_DEVICES": str(devices // count)}
        environment = {k: v for k, v in environment.items() if k not in distributed.ENV_VARS}
        address = f"localhost:{find_free_port()}"
        self._open = contextlib.ExitStack()
        enter, temporary = self._open.enter_context, tempfile.TemporaryFile
        self._said = [enter(temporary()) for _ in range(count)]
        self.all = []
        for index, said in enumerate(self._said):
            told = zip(distributed.ENV_VARS, (address, str(count), str(index)), strict=True)
            mine = environment | dict(told if count > 1 else ())
            begun = subprocess.Popen(**given, env=mine, stdout=said, stderr=subprocess.STDOUT)
            self.all.append(begun)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        for process in self.all:
            process.kill()
            process.wait()
        self._open.close()

    def said(self, index):
        """What a process has said so far."""
        size = os.fstat(self._said[index].fileno()).st_size
        return os.pread(self._said[index].fileno(), size, 0).decode()

    def wait_for(self, text):
        """Until the leader says this, or ends; whether it has said it."""
        until = time.monotonic() + TIMEOUT_S
        while text not in self.said(0) and self.all[0].poll() is None:
            assert time.monotonic() < until, self.said(0)
            time.sleep(0.02)
        return text in self.said(0)

    def kill(self, index):
        self.all[index].send_signal(signal.SIGKILL)

    def codes(self):
        """How the processes end."""
        return [process.wait(TIMEOUT_S) for process in self.all]


def run(num_processes, *arguments, **options):
    """What processes say who run to their end, which must be a good one."""
    with Pod(num_processes, *arguments, **options) as pod:
        codes = pod.codes()
        said = [pod.said(index) for index in range(num_processes)]
    assert codes == [0] * num_processes, "\n\n".join(each[-3000:] for each in said)
    return said
