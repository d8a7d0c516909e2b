"""Tests of the number of steps that follows from `finetune.minutes`."""

import dataclasses

import pytest
from etils import epath

from oneflow_jax.build import step_budget
from oneflow_jax.runtime import workdir
from tests import runs


@pytest.fixture
def timed(monkeypatch):
    """Replace the measured time of a step by half a second, and count the measurements."""
    calls = []
    monkeypatch.setattr(step_budget, "measure_step", lambda system: calls.append(system) or 0.5)
    return calls


def fit_to_time(folder, minutes):
    """Return the configuration of a tiny system that fine-tunes for a number of minutes."""
    system = runs.trained_run()[0]
    config = system.config.copy_and_resolve_references().unlock()
    config.finetune = {"minutes": minutes, "lora_rank": 0}
    system = dataclasses.replace(system, config=config.lock())
    return step_budget.fit_to_time(system, epath.Path(folder)).config


def test_minutes_become_steps(timed, tmp_path):
    config = fit_to_time(tmp_path, 10.0)
    assert config.steps == 10 * 60 * 2
    assert fit_to_time(tmp_path, 0.01).steps == config.optimizer.warmup_steps + 1
    assert len(timed) == 2


def test_without_minutes_nothing_is_measured(timed, tmp_path):
    assert fit_to_time(tmp_path, 0.0).steps == runs.STEPS
    tiny = runs.trained_run()[0]
    assert step_budget.fit_to_time(tiny, epath.Path(tmp_path)) is tiny
    assert not timed


def test_a_resumed_run_keeps_its_steps(timed, tmp_path):
    folder = epath.Path(tmp_path)
    config = fit_to_time(tmp_path / "other", 10.0)
    (folder / workdir.CHECKPOINTS / "1").mkdir(parents=True)
    workdir.save_config(folder, config)
    assert fit_to_time(folder, 99.0).steps == 10 * 60 * 2
    assert len(timed) == 1


def test_the_number_of_steps_reaches_the_optimizer():
    system = runs.trained_run()[0].replace_steps(77)
    assert system.config.steps == system.optimizer_config.total_steps == 77


def test_measured_seconds_are_those_of_a_step():
    seconds = step_budget.measure_step(runs.trained_run()[0])
    assert 0 < seconds < runs.TIMEOUT_S
