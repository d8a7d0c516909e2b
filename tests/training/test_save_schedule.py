"""Tests of the steps after which a run saves; tests/distributed tests that processes agree."""

import pytest

from oneflow_jax.training import save_schedule
from oneflow_jax.training.loop_config import LoopConfig


class Clock:
    """A replacement of the module `time`."""

    def __init__(self):
        self.seconds = 1_000.0

    def monotonic(self):
        return self.seconds


def make_schedule(monkeypatch, minutes=1.0):
    """Return the schedule of a run that logs every 2 steps and saves every 10, and its clock."""
    clock = Clock()
    monkeypatch.setattr(save_schedule, "time", clock)
    settings = LoopConfig(
        seed=0,
        steps=100,
        log_every=2,
        eval_every=10,
        checkpoint_every=10,
        max_to_keep=1,
        checkpoint_minutes=minutes,
    )
    return save_schedule.SaveSchedule(settings), clock


def list_saves(schedule, clock, seconds_per_step, steps=20):
    saves = []
    for step in range(1, steps + 1):
        clock.seconds += seconds_per_step
        if schedule.is_due(step):
            saves.append(step)
            schedule.restart()
    return saves


@pytest.mark.parametrize(
    ("minutes", "seconds_per_step", "saves"),
    [
        (0.0, 3_600.0, [10, 20]),
        (1.0, 1.0, [10, 20]),
        (1.0, 16.0, [4, 8, 10, 14, 18, 20]),
        (1.0, 90.0, [2, 4, 6, 8, 10, 12, 14, 16, 18, 20]),
    ],
)
def test_a_save_is_due_at_logged_steps_after_the_minutes_and_at_every_interval(
    minutes, seconds_per_step, saves, monkeypatch
):
    schedule, clock = make_schedule(monkeypatch, minutes)
    assert list_saves(schedule, clock, seconds_per_step) == saves
