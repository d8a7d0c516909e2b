"""The decision whether to save a checkpoint after a step, which all processes of a run share.

A checkpoint is due after every `checkpoint_every` steps. With `checkpoint_minutes`, it is also due
once this time has passed since the last save. Hosts have different clocks, so the clock of the
primary process decides. The other processes learn the decision at the steps that are logged, at
which the hosts exchange other values too. So training waits for other hosts at no further step.
"""

import time

from oneflow_jax.runtime import distributed
from oneflow_jax.training.loop_config import LoopConfig


class SaveSchedule:
    """The steps after which a run saves a checkpoint."""

    def __init__(self, settings: LoopConfig) -> None:
        """Start measuring the time since the last save."""
        self._every = settings.checkpoint_every
        self._seconds = 60 * settings.checkpoint_minutes
        self._log_every = settings.log_every
        self.restart()

    def is_due(self, step: int) -> bool:
        """Return whether to save after a step.

        All processes of a run must call this after each step; the result is the same in all.
        """
        if step % self._every == 0:
            return True
        if not self._seconds or step % self._log_every:
            return False
        is_late = time.monotonic() - self._save_time >= self._seconds
        return distributed.follow_primary(is_late)

    def restart(self) -> None:
        """Measure the time from now on; call this after each save."""
        self._save_time = time.monotonic()
