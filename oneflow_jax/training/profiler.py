"""Profiles of training steps, for TensorBoard's profile plugin and for xprof."""

from collections.abc import Callable
from typing import Any

import jax
from etils import epath

from oneflow_jax.errors import UserError
from oneflow_jax.runtime import storage, workdir


def validate_range(steps: tuple[int, ...], num_steps: int) -> None:
    """Check `config.profile_steps`, the first and the last step to profile.

    Raises:
        UserError: `steps` is neither empty nor a range within 1 to `num_steps`.
    """
    whole = len(steps) == 2 and all(isinstance(step, int) for step in steps)
    if steps and not (whole and 1 <= steps[0] <= steps[1] <= num_steps):
        raise UserError(
            f"profile_steps={steps!r}: it must be the first and the last step to profile, from 1 "
            f"to steps={num_steps}, as in '(100,105)', or '()' for no profile."
        )


class ProfiledStep:
    """A training step that writes a profile of a range of steps to `<folder>/profile`.

    The wrapper takes the step number as an additional first argument.
    """

    def __init__(
        self, step_fn: Callable[..., Any], folder: epath.Path, step_range: tuple[int, ...]
    ) -> None:
        """Wrap `step_fn`, a function of a state and a batch.

        Args:
            step_fn: the training step.
            folder: the run's folder.
            step_range: first and last step to profile; () for none.
        """
        self._step_fn, self._folder = step_fn, folder / workdir.PROFILE
        self._first_step, self._last_step = step_range or (0, 0)
        self._staged: storage.StagedDirectory | None = None

    def __call__(self, step: int, *args: Any) -> Any:  # noqa: ANN401 - arguments of the step
        """Run step number `step` on `args`, and start or stop the profile if due."""
        if step == self._first_step:
            self._staged = storage.StagedDirectory(self._folder)
            jax.profiler.start_trace(str(self._staged.local))
        with jax.profiler.StepTraceAnnotation("train", step_num=step):
            after = self._step_fn(*args)
        # No profile is running if the run resumed after the first step to profile.
        if self._staged and step == self._last_step:
            jax.block_until_ready(after)
            jax.profiler.stop_trace()
            self._staged.close()
            self._staged = None
        return after
