"""Tests of what a long run leaves: profiles, previews, kept checkpoints, compiled programs."""

import jax
import jax.numpy as jnp
import pytest
from etils import epath

from oneflow_jax.build.loop_config import make_loop_config
from oneflow_jax.errors import UserError
from oneflow_jax.runtime import workdir
from oneflow_jax.training import profiler
from oneflow_jax.training.loop_config import LoopConfig
from tests import runs


def test_run_writes_profiles_previews_checkpoints_and_compile_cache(tmp_path):
    folder = epath.Path(tmp_path / "run")
    done = runs.run(
        runs.CONFIG,
        f"--workdir={folder}",
        "--config.steps=6",
        "--config.profile_steps=(3,4)",
        "--config.sampling.preview_every=3",
        "--config.sampling.prompts=('<text> <image>',)",
        "--config.checkpoint.every=1",
        "--config.checkpoint.max_to_keep=1",
        "--config.checkpoint.keep_period=2",
        "--config.compilation_cache=True",
        module=runs.TRAINING_MODULE,
    )
    assert done.returncode == 0, done.stderr
    assert list((folder / workdir.PROFILE).glob("plugins/profile/*/*.xplane.pb"))
    previews = {path.name for path in (folder / workdir.PREVIEWS).iterdir()}
    assert previews == {"3.html", "3.png", "6.html", "6.png"}
    steps = {int(path.name) for path in (folder / workdir.CHECKPOINTS).iterdir()}
    assert steps == {2, 4, 6}
    assert list((folder / workdir.COMPILATION_CACHE).iterdir())


def test_keep_period_must_be_a_multiple_of_checkpoint_every():
    config = runs.make_config(checkpoint__every=2, checkpoint__keep_period=3)
    with pytest.raises(
        UserError, match=r"keep_period=3: it must be a multiple of checkpoint.every=2"
    ):
        make_loop_config(config)


@pytest.mark.parametrize("steps", [(3,), (0, 2), (4, 3), (5, 11), (1.0, 2.0)])
def test_invalid_profile_steps_are_refused(steps):
    with pytest.raises(UserError, match=r"profile_steps=.* 1 to steps=10"):
        profiler.validate_range(steps, 10)


@pytest.mark.parametrize("steps", [(), (1, 1), (2, 10)])
def test_valid_profile_steps_are_accepted(steps):
    config = LoopConfig(0, 10, 1, 1, 1, 1, profile_steps=steps)
    assert config.profile_steps == steps


def test_resuming_after_the_first_profiled_step_starts_no_profile(tmp_path):
    """Check a run that resumes between the first and the last profiled step."""
    step = profiler.ProfiledStep(jax.jit(lambda x, y: x + y), epath.Path(tmp_path), (2, 4))
    assert int(step(3, jnp.int32(1), jnp.int32(2))) == 3
    assert int(step(4, jnp.int32(3), jnp.int32(2))) == 5
    assert not (tmp_path / workdir.PROFILE).exists()
