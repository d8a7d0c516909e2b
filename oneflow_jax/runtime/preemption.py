"""Graceful stops: on SIGTERM, SIGHUP or Ctrl-C, finish the step, save a checkpoint and exit.

Clouds send SIGTERM about 30 seconds before they take a machine away, and the system sends SIGHUP
when a terminal is closed or a connection by SSH ends. The exit code is 128 plus the number of the
signal: 143 for SIGTERM, 129 for SIGHUP, and 130 for Ctrl-C (SIGINT).

Python runs a handler only between two instructions of the main thread. So while a program is
compiled or a step is computed, which may take a minute, the handler waits. If it waits for more
than a second, a thread says so.
"""

import contextlib
import logging
import os
import select
import signal
import socket
import threading
import time
from collections.abc import Iterator
from types import FrameType

import jax
from jax.experimental import multihost_utils

from oneflow_jax.errors import Preempted

_NAMES = {
    signal.SIGTERM: "SIGTERM",
    signal.SIGHUP: "SIGHUP (its terminal was closed)",
    signal.SIGINT: "Ctrl-C",
}

_AFTER = {
    signal.SIGTERM: "",
    signal.SIGINT: " Press Ctrl-C again to stop at once, without saving.",
}
"""What follows the message about a signal; the terminal of a SIGHUP may be closed."""

MAX_SILENT_S = 1.0
"""Seconds that a handler may wait before the user reads why."""


class StopRequest:
    """Whether a signal has requested that the run saves a checkpoint and exits.

    Attributes:
        signal_number: the signal that requested the stop; None if there was none.
    """

    def __init__(self) -> None:
        """Initialize without a request to stop."""
        self.signal_number: signal.Signals | None = None
        self._is_handled = False
        self._reached = multihost_utils.reached_preemption_sync_point
        self._multi_process = jax.process_count() > 1

    def is_due(self, step: int) -> bool:
        """Return whether to save and exit after a step.

        All processes of a run must call this after each step. The result is the same in all
        processes, no matter which process received the signal.
        """
        if not self._multi_process:
            return self.signal_number is not None
        # JAX's handler chooses a step that no process has passed yet. All processes stop after it.
        due = self._reached(step)
        if due and self.signal_number is None:
            self.signal_number = signal.SIGTERM
        return due

    def receive(self, number: int, frame: FrameType | None) -> None:
        """Handle a signal. A second Ctrl-C stops the process at once, without saving."""
        del frame
        if number == signal.SIGINT:
            signal.signal(signal.SIGINT, signal.default_int_handler)
        if number in _AFTER and not self._is_handled:
            logging.warning(
                "%s: the run finishes its step, also its evaluation if one is due, and saves a "
                "checkpoint.%s",
                _NAMES[number],
                _AFTER[number],
            )
        self._is_handled = True
        if number == signal.SIGHUP:
            _replace_closed_streams()
        self.signal_number = self.signal_number or signal.Signals(number)
        if self._multi_process:
            signal.raise_signal(signal.SIGTERM)  # JAX's handler informs the other processes.

    def raise_if_made(self, step: int) -> None:
        """Raise an error that ends the run if a stop was requested; call this after saving `step`.

        Raises:
            Preempted: a stop was requested.
        """
        if self.signal_number is not None:
            raise Preempted(
                f"Stopped after step {step} because of {_NAMES[self.signal_number]}; the state is "
                "saved. The same command resumes from there.",
                exit_code=128 + self.signal_number,
            )

    @contextlib.contextmanager
    def explain_silence(self) -> Iterator[None]:
        """Log during a `with` block that a signal has arrived, if its handler waits for long."""
        reading, writing = socket.socketpair()
        writing.setblocking(False)

        def watch() -> None:
            with reading:
                received = reading.recv(1)  # "" after the block
                if received and received[0] in _AFTER:
                    time.sleep(MAX_SILENT_S)
                    if not self._is_handled:
                        logging.warning(
                            "%s has arrived. The run first finishes the program that it compiles "
                            "or computes now, which can take a minute.",
                            _NAMES[signal.Signals(received[0])],
                        )
                while reading.recv(1):  # Writing to a closed socket would be an error.
                    pass

        threading.Thread(target=watch, daemon=True).start()
        before = signal.set_wakeup_fd(writing.fileno(), warn_on_full_buffer=False)
        try:
            yield
        finally:
            signal.set_wakeup_fd(before)
            writing.close()


def _replace_closed_streams() -> None:
    """Discard all further output to a terminal that was closed, since writing would fail."""
    poll = select.poll()
    for stream in (1, 2):
        poll.register(stream, 0)  # `poll` always reports errors and hang-ups.
    for stream, event in poll.poll(0):
        if event & (select.POLLHUP | select.POLLERR):
            with open(os.devnull, "wb") as null:
                os.dup2(null.fileno(), stream)


@contextlib.contextmanager
def stop_handler() -> Iterator[StopRequest]:
    """Record SIGTERM, SIGHUP and Ctrl-C during a `with` block in a `StopRequest`.

    Signals are not recorded if the block runs outside of the main thread, where Python cannot
    install handlers. A signal that was ignored when the program started stays ignored.
    """
    request = StopRequest()
    if threading.current_thread() is not threading.main_thread():
        yield request
        return
    # With several processes, JAX handles SIGTERM.
    handled = [each for each in _NAMES if each != signal.SIGTERM or jax.process_count() == 1]
    before = {
        number: signal.signal(number, request.receive)
        for number in handled
        if signal.getsignal(number) is not signal.SIG_IGN
    }
    try:
        with request.explain_silence():
            yield request
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
