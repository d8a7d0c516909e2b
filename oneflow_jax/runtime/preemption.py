"""Being told to leave: by SIGTERM, which clouds send some 30 seconds before they take a machine."""

import contextlib
import signal
import threading
from collections.abc import Callable, Iterator

import jax
from jax.experimental import multihost_utils

from oneflow_jax.errors import Preempted


@contextlib.contextmanager
def sigterm_handler() -> Iterator[Callable[[int], bool]]:
    """Within it SIGTERM does not kill, but is told to whoever asks.

    Yields:
        What is asked after each step, with its number, whether to save and leave now. Of several
        processes all ask and all get the same answer, whichever of them was told.
    """
    if jax.process_count() > 1:
        # JAX's own handler: the processes agree on a step that none of them has passed.
        yield multihost_utils.reached_preemption_sync_point
        return
    if threading.current_thread() is not threading.main_thread():
        yield lambda step: False  # Python lets no other thread handle signals.
        return
    told = threading.Event()
    before = signal.signal(signal.SIGTERM, lambda *_: told.set())
    try:
        yield lambda step: told.is_set()
    finally:
        signal.signal(signal.SIGTERM, before)


def raise_preempted(step: int) -> None:
    """Ends a run that has saved its state after `step`.

    Raises:
        Stopped: always.
    """
    raise Preempted(
        f"Stopped after step {step}, as told by SIGTERM, and saved: the same command goes on from "
        "there."
    )
