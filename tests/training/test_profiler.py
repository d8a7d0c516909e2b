"""Profiles, previews, milestones and kept programs: what a long run leaves on its way."""

import jax
import jax.numpy as jnp
import pytest
from etils import epath

from oneflow_jax.errors import UserError
from oneflow_jax.runtime import workdir
from oneflow_jax.training import checkpoint, profiler
from tests import runs


def test_a_run_leaves_what_it_is_asked_for(tmp_path):
    folder = epath.Path(tmp_path / "run")
    done = runs.run(
        runs.CONFIG,
        f"--workdir={folder}",
        "--config.steps=6",
        "--config.profile=(3,4)",
        "--config.sampling.every=3",
        "--config.sampling.prompts=('<text> <image>',)",
        "--config.checkpoint.every=1",
        "--config.checkpoint.keep=1",
        "--config.checkpoint.milestones=2",
        "--config.keep_compiled=True",
    )
    assert done.returncode == 0, done.stderr
    assert list((folder / workdir.PROFILE).glob("plugins/profile/*/*.xplane.pb"))
    previews = {path.name for path in (folder / workdir.PREVIEWS).iterdir()}
    assert previews == {"3.html", "3.png", "6.html", "6.png"}
    kept = {int(path.name) for path in (folder / workdir.CHECKPOINTS).iterdir()}
    assert kept == {2, 4, 6}
    assert list((folder / workdir.COMPILATION_CACHE).iterdir())


def test_milestones_that_never_come_are_refused():
    given = runs.make_config(checkpoint__every=2, checkpoint__milestones=3).checkpoint
    with pytest.raises(UserError, match=r"milestones=3 must be a multiple of checkpoint.every=2"):
        checkpoint.validate(given)


@pytest.mark.parametrize("steps", [(3,), (0, 2), (4, 3), (5, 11), (1.0, 2.0)])
def test_steps_that_cannot_be_profiled_are_refused(steps):
    with pytest.raises(UserError, match=r"profile=.* 1 to steps=10"):
        profiler.validate_range(steps, 10)


@pytest.mark.parametrize("steps", [(), (1, 1), (2, 10)])
def test_steps_that_can(steps):
    profiler.validate_range(steps, 10)


def test_a_profile_that_was_missed_is_not_ended(tmp_path):
    """A run that goes on from between the first and the last of its steps."""
    step = profiler.ProfiledStep(jax.jit(lambda x, y: x + y), epath.Path(tmp_path), (2, 4))
    assert int(step(3, jnp.int32(1), jnp.int32(2))) == 3
    assert int(step(4, jnp.int32(3), jnp.int32(2))) == 5
    assert not (tmp_path / workdir.PROFILE).exists()
