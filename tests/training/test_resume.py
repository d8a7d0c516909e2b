"""A run that was stopped, at any moment and however rudely, ends where it would have ended."""

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


def cut_back(folder, step):
    """Leaves of a run what a kill just after the save at `step` leaves."""
    for path in (folder / workdir.CHECKPOINTS).iterdir():
        if int(path.name) > step:
            shutil.rmtree(path)


@pytest.mark.parametrize("workers", [0, 2])
def test_stopped_and_continued_is_bit_for_bit_the_same(workers, tmp_path):
    system, finished = runs.trained_run(workers)
    folder = runs.copy_run(finished, tmp_path)
    cut_back(folder, 2)
    before, _ = runs.load_state(system, folder)
    assert int(before.step) == 2
    loop.run(system, folder)
    state, position = runs.load_state(system, folder)
    expected, expected_position = runs.load_state(system, finished)
    runs.assert_identical(state, expected)
    assert position == expected_position
    assert int(state.step) == runs.STEPS
    assert runs.list_reports(folder) == runs.list_reports(finished)


def test_each_step_is_reported_once():
    _, finished = runs.trained_run()
    assert sorted(runs.list_reports(finished)) == sorted(
        [(n, "step") for n in range(1, 7)] + [(n, "heldout") for n in (2, 4, 6)]
    )


def test_the_state_moves(tmp_path):
    """Else all of the above would hold of a run that does nothing."""
    system, finished = runs.trained_run()
    folder = runs.copy_run(finished, tmp_path)
    last, last_position = runs.load_state(system, folder)
    cut_back(folder, 2)
    early, early_position = runs.load_state(system, folder)
    assert early_position != last_position
    for one, other in ((last.params, early.params), (last.ema, early.ema)):
        moved = jax.tree.map(lambda x, y: bool(np.any(x != y)), one, other)
        assert all(jax.tree.leaves(moved))


def test_a_finished_run_is_left_alone(tmp_path):
    system, finished = runs.trained_run()
    folder = runs.copy_run(finished, tmp_path)
    before = runs.read_files(folder)
    loop.run(system, folder)
    assert runs.read_files(folder) == before


def killed(arguments, lines, rng):
    """Runs the command, kills it after so many lines of its progress; whether it was in time."""
    process = subprocess.Popen(**runs.popen_kwargs(*arguments), stderr=subprocess.PIPE)
    seen = 0
    for line in process.stderr:
        seen += "training" in line
        if seen == lines:
            # Saves go on in the background: anywhere between two of them.
            time.sleep(rng.random() * 0.1)
            break
    process.send_signal(signal.SIGKILL)
    process.stderr.close()
    return process.wait() == -signal.SIGKILL


def test_killed_at_random_moments_ends_with_the_same_bits(tmp_path):
    rng = random.Random(0)
    given = [runs.CONFIG, "--config.steps=40", "--config.evaluation.every=7"]
    whole, broken = (epath.Path(tmp_path / name) for name in ("whole", "broken"))
    done = runs.run(*given, f"--workdir={whole}")
    assert done.returncode == 0, done.stderr
    kills = [killed([*given, f"--workdir={broken}"], rng.randint(1, 10), rng) for _ in range(2)]
    assert all(kills)
    done = runs.run(*given, f"--workdir={broken}")
    assert done.returncode == 0, done.stderr
    assert "Going on from step" in done.stderr
    system = runs.prepare_system(broken, runs.make_config(steps=40, evaluation__every=7))
    state, position = runs.load_state(system, broken)
    expected, expected_position = runs.load_state(system, whole)
    runs.assert_identical(state, expected)
    assert position == expected_position
    assert int(state.step) == 40
    assert runs.list_reports(broken) == runs.list_reports(whole)
    assert max(collections.Counter(runs.list_reports(broken)).values()) == 1
