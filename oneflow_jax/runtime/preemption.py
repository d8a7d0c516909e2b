"""Graceful preemption: on SIGTERM, finish the step, save a checkpoint and exit with code 143.

Clouds send SIGTERM some 30 seconds before they reclaim a machine.
"""

import contextlib
import signal
import threading
from collections.abc import Callable, Iterator

import jax
from jax.experimental import multihost_utils

from oneflow_jax.errors import Preempted


@contextlib.contextmanager
def sigterm_handler() -> Iterator[Callable[[int], bool]]:
    """Handle SIGTERM in a `with` block, so that the signal does not end the process.

    Yields:
        A function of the step number, which returns whether to save and exit after this step. All
        processes of a run must call it after each step. It returns the same value in all of them,
        no matter which process received the signal.
    """
    if jax.process_count() > 1:
        # With JAX's handler, the processes agree on a step that none of them has passed yet.
        yield multihost_utils.reached_preemption_sync_point
        return
    if threading.current_thread() is not threading.main_thread():
        yield lambda step: False  # Only the main thread can handle signals.
        return
    told = threading.Event()
    before = signal.signal(signal.SIGTERM, lambda *_: told.set())
    try:
        yield lambda step: told.is_set()
    finally:
        signal.signal(signal.SIGTERM, before)


def raise_preempted(step: int) -> None:
    """End a run whose state was saved after `step`.

    Raises:
        Preempted: always.
    """
    raise Preempted(
        f"Stopped after step {step} because of SIGTERM; the state is saved. The same command "
        "resumes from there."
    )
