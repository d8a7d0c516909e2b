"""Tests that a run stopped at any time ends with the same state as an uninterrupted run."""

import collections
import random
import shutil
import signal
import subprocess
import time

import jax
import numpy as np
import pytest
from etils import epath

from oneflow_jax.runtime import workdir
from oneflow_jax.training import loop
from tests import runs


def delete_checkpoints_after(folder, step):
    """Delete what a run would not have if it were killed just after the checkpoint at `step`."""
    for path in (folder / workdir.CHECKPOINTS).iterdir():
        if int(path.name) > step:
            shutil.rmtree(path)


def check_resuming(system, folder, finished, step):
    """Check that a run killed after `step` ends like `finished`, with the same reports."""
    delete_checkpoints_after(folder, step)
    before, _ = runs.load_state(system, folder)
    assert int(before.step) == step
    loop.run(system, folder)
    state, position = runs.load_state(system, folder)
    expected, expected_position = runs.load_state(system, finished)
    runs.assert_identical(state, expected)
    assert position == expected_position
    assert int(state.step) == runs.STEPS
    assert runs.list_reports(folder) == runs.list_reports(finished)


@pytest.mark.parametrize("workers", [0, 2])
def test_resumed_run_is_bit_identical(workers, tmp_path):
    system, finished = runs.trained_run(workers)
    check_resuming(system, runs.copy_run(finished, tmp_path), finished, 2)


def test_run_that_saves_by_time_and_resumes_is_bit_identical(tmp_path):
    _, finished = runs.trained_run()
    folder = epath.Path(tmp_path / "run")
    system = runs.prepare_system(
        folder, runs.make_config(checkpoint__every=1000, checkpoint__minutes=1e-6)
    )
    loop.run(system, folder)
    check_resuming(system, folder, finished, 5)


def test_each_step_is_reported_once():
    _, finished = runs.trained_run()
    assert sorted(runs.list_reports(finished)) == sorted(
        [(n, "step") for n in range(1, 7)] + [(n, "eval") for n in (2, 4, 6)]
    )


def test_training_changes_the_state(tmp_path):
    """Check that training changes the state, so that the tests above are not trivial."""
    system, finished = runs.trained_run()
    folder = runs.copy_run(finished, tmp_path)
    last, last_position = runs.load_state(system, folder)
    delete_checkpoints_after(folder, 2)
    early, early_position = runs.load_state(system, folder)
    assert early_position != last_position
    for late_tree, early_tree in ((last.params, early.params), (last.ema, early.ema)):
        moved = jax.tree.map(lambda x, y: bool(np.any(x != y)), late_tree, early_tree)
        assert all(jax.tree.leaves(moved))


def test_finished_run_is_not_changed(tmp_path):
    system, finished = runs.trained_run()
    folder = runs.copy_run(finished, tmp_path)
    before = runs.read_files(folder)
    loop.run(system, folder)
    assert runs.read_files(folder) == before


def run_and_kill(arguments, lines, rng):
    """Run the command, kill it after some lines of progress, and return whether it was running."""
    kwargs = runs.popen_kwargs(*arguments, module=runs.TRAINING_MODULE)
    process = subprocess.Popen(**kwargs, stderr=subprocess.PIPE)
    num_lines = 0
    for line in process.stderr:
        num_lines += "training" in line
        if num_lines == lines:
            # Checkpoints are written in the background, so kill the run at a random time between
            # two of them.
            time.sleep(rng.random() * 0.1)
            break
    process.send_signal(signal.SIGKILL)
    process.stderr.close()
    return process.wait() == -signal.SIGKILL


SAVES = {
    "by step": [],
    "by time": ["--config.checkpoint.every=1000", "--config.checkpoint.minutes=0.002"],
}
"""Flags that make a run save a checkpoint every 2 steps, or every 0.12 seconds."""


@pytest.mark.parametrize("saves", SAVES)
def test_run_killed_at_random_times_is_bit_identical(saves, tmp_path):
    rng = random.Random(0)
    arguments = [runs.CONFIG, "--config.steps=40", "--config.evaluation.every=7", *SAVES[saves]]
    whole, broken = (epath.Path(tmp_path / name) for name in ("whole", "broken"))
    done = runs.run(*arguments, f"--workdir={whole}", module=runs.TRAINING_MODULE)
    assert done.returncode == 0, done.stderr
    kills = [
        run_and_kill([*arguments, f"--workdir={broken}"], rng.randint(1, 10), rng) for _ in range(2)
    ]
    assert all(kills)
    done = runs.run(*arguments, f"--workdir={broken}", module=runs.TRAINING_MODULE)
    assert done.returncode == 0, done.stderr
    assert "Resuming from step" in done.stderr
    system = runs.prepare_system(broken, runs.make_config(steps=40, evaluation__every=7))
    state, position = runs.load_state(system, broken)
    expected, expected_position = runs.load_state(system, whole)
    runs.assert_identical(state, expected)
    assert position == expected_position
    assert int(state.step) == 40
    assert runs.list_reports(broken) == runs.list_reports(whole)
    assert max(collections.Counter(runs.list_reports(broken)).values()) == 1
