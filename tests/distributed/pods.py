"""Runs of several processes on this machine, like the hosts of a pod."""

import contextlib
import os
import signal
import socket
import subprocess
import tempfile
import time

from oneflow_jax.runtime import distributed
from tests import runs


def find_free_port():
    with socket.socket() as socket_:
        socket_.bind(("localhost", 0))
        return socket_.getsockname()[1]


class Pod:
    """Processes of one run that share `devices` devices; the context manager kills them at exit."""

    def __init__(self, num_processes, *arguments, devices=8, **options):
        kwargs = runs.popen_kwargs(*arguments, **options)
        environment = kwargs.pop("env") | {"JAX_NUM_CPU_DEVICES": str(devices // num_processes)}
        environment = {k: v for k, v in environment.items() if k not in distributed.ENV_VARS}
        address = f"localhost:{find_free_port()}"
        self._exit_stack = contextlib.ExitStack()
        enter, temporary = self._exit_stack.enter_context, tempfile.TemporaryFile
        self._output_files = [enter(temporary()) for _ in range(num_processes)]
        self.processes = []
        for index, file in enumerate(self._output_files):
            variables = zip(
                distributed.ENV_VARS, (address, str(num_processes), str(index)), strict=True
            )
            mine = environment | dict(variables if num_processes > 1 else ())
            process = subprocess.Popen(**kwargs, env=mine, stdout=file, stderr=subprocess.STDOUT)
            self.processes.append(process)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        for process in self.processes:
            process.kill()
            process.wait()
        self._exit_stack.close()

    def output(self, index):
        """Return the output of a process so far."""
        size = os.fstat(self._output_files[index].fileno()).st_size
        return os.pread(self._output_files[index].fileno(), size, 0).decode()

    def wait_for(self, text):
        """Wait until process 0 prints the text or ends; return whether it printed the text."""
        until = time.monotonic() + runs.TIMEOUT_S
        while text not in self.output(0) and self.processes[0].poll() is None:
            assert time.monotonic() < until, self.output(0)
            time.sleep(0.02)
        return text in self.output(0)

    def kill(self, index):
        self.processes[index].send_signal(signal.SIGKILL)

    def exit_codes(self):
        """Wait for all processes and return their exit codes."""
        return [process.wait(runs.TIMEOUT_S) for process in self.processes]


def run(num_processes, *arguments, **options):
    """Run processes to the end, check that all succeed, and return their outputs."""
    with Pod(num_processes, *arguments, **options) as pod:
        codes = pod.exit_codes()
        outputs = [pod.output(index) for index in range(num_processes)]
    assert codes == [0] * num_processes, "\n\n".join(each[-3000:] for each in outputs)
    return outputs
