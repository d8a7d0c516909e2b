"""Profiles of training steps, for TensorBoard's profile page and for xprof."""

from collections.abc import Callable
from typing import Any

import jax
from etils import epath

from oneflow_jax.errors import UserError
from oneflow_jax.runtime import storage, workdir


def validate_range(steps: tuple[int, ...], num_steps: int) -> None:
    """Refuses what is not the first and last step of a profile of a run of `num_steps` steps.

    Raises:
        UserError: as said.
    """
    whole = len(steps) == 2 and all(isinstance(step, int) for step in steps)
    if steps and not (whole and 1 <= steps[0] <= steps[1] <= num_steps):
        raise UserError(
            f"profile={steps!r} must be the first and the last step to be profiled, of 1 to "
            f"steps={num_steps}, as in '(100,105)'; or '()' for none."
        )


class ProfiledStep:
    """A training step that takes its number first, and is profiled if it is one of those asked for.

    Profiles go to `<folder>/profile`.
    """

    def __init__(
        self, step: Callable[..., Any], folder: epath.Path, steps: tuple[int, ...]
    ) -> None:
        """Wraps `step`, which takes a state and a batch.

        Args:
            step: what is profiled.
            folder: of the run.
            steps: the first and the last that are asked for; () for none.
        """
        self._step, self._folder = step, folder / workdir.PROFILE
        self._first, self._last = steps or (0, 0)
        self._staged: storage.StagedDirectory | None = None

    def __call__(self, number: int, *given: Any) -> Any:  # noqa: ANN401 - whatever the step takes
        """The step of this number."""
        if number == self._first:
            self._staged = storage.StagedDirectory(self._folder)
            jax.profiler.start_trace(str(self._staged.local))
        with jax.profiler.StepTraceAnnotation("train", step_num=number):
            after = self._step(*given)
        # A run that went on from between the two has no profile to end.
        if self._staged and number == self._last:
            jax.block_until_ready(after)
            jax.profiler.stop_trace()
            self._staged.close()
            self._staged = None
        return after
