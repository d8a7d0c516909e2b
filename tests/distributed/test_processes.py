"""Tests that several processes train like one, and that any number resumes a checkpoint."""

import json
import pathlib
import re
import shutil

import jax
import numpy as np
import pytest
from etils import epath

from oneflow_jax.runtime import metric_writer, workdir
from oneflow_jax.training import loop
from tests import runs
from tests.distributed import config, pods
from tests.training import test_damaged_checkpoints as damaged
from tests.training import test_resume


def config_flag(paradigm):
    return f"--config=tests/distributed/config.py:{paradigm}"


def run_single_process(paradigm, folder):
    """Train in this process with 8 devices; resume if the folder has a run."""
    system = runs.prepare_system(folder, config.get_config(paradigm).lock())
    loop.run(system, folder)
    return system


@pytest.fixture(scope="module")
def two_process_run(tmp_path_factory):
    """Return the outputs and the folder of a complete run of two processes."""
    folder = epath.Path(tmp_path_factory.mktemp("two") / "run")
    outputs = pods.run(
        2, config_flag("oneflow"), f"--workdir={folder}", module="tests.distributed.recording"
    )
    return outputs, folder


def read_losses(folder):
    """Return all reported training metrics except for speeds."""
    rows = metric_writer.read_metrics(folder / workdir.LOGS)
    quick = re.compile("step|per_second|data_wait|goodput")
    return [
        (row["step"], name, x) for row in rows for name, x in row.items() if not quick.search(name)
    ]


def assert_same_curve(actual, reference):
    """Assert that both runs reported every step once, with equal values."""
    losses, expected = read_losses(actual), read_losses(reference)
    assert [row[:2] for row in losses] == [row[:2] for row in expected]
    assert len({row[:2] for row in losses}) == len(losses)
    assert len({step for step, _, _ in losses}) == 6
    np.testing.assert_allclose(
        [x for *_, x in losses], [x for *_, x in expected], rtol=1e-5, atol=1e-6
    )


def test_two_processes_train_like_one(two_process_run, tmp_path):
    _, folder = two_process_run
    whole = epath.Path(tmp_path / "whole")
    system = run_single_process("oneflow", whole)
    assert_same_curve(folder, whole)
    state, position = runs.load_state(system, folder)
    expected, there = runs.load_state(system, whole)
    assert position == there
    assert sorted(position) == ["0", "1", "2", "3"]
    for x, y in zip(*map(jax.tree.leaves, (state.params, expected.params)), strict=True):
        np.testing.assert_allclose(x, y, atol=1e-4)


def test_each_process_reads_its_own_documents(two_process_run):
    _, folder = two_process_run
    first, second = (set(json.loads((folder / f"read-{n}.json").read_text())) for n in (0, 1))
    assert not first & second
    # Prefetching differs between the processes, but not by much.
    assert 0.5 < len(first) / len(second) < 2
    assert len(first | second) < 2_000


def test_only_the_primary_process_logs_and_writes(two_process_run):
    outputs, folder = two_process_run
    assert all(word in outputs[0] for word in ("training 6/6", "Metrics: ", "Page: "))
    assert not re.search("training|Figures|Page", outputs[1])
    assert (folder / workdir.SAMPLES_PAGE).exists()
    assert (folder / workdir.EVALUATION).exists()
    assert [step for step, name, _ in read_losses(folder) if name == "train/loss"] == list(
        range(1, 7)
    )


def test_one_process_resumes_a_checkpoint_of_two(two_process_run, tmp_path):
    _, finished = two_process_run
    folder = epath.Path(shutil.copytree(finished, tmp_path / "run"))
    for step in (4, 6):
        shutil.rmtree(folder / workdir.CHECKPOINTS / str(step))
    run_single_process("oneflow", folder)
    assert_same_curve(folder, finished)


@pytest.mark.parametrize("saves", test_resume.SAVES)
def test_death_of_a_process_is_reported_and_the_run_resumes(saves, tmp_path):
    folder, whole = (epath.Path(tmp_path / name) for name in ("run", "whole"))
    arguments = (config_flag("edit_flow"), f"--workdir={folder}", *test_resume.SAVES[saves])
    with pods.Pod(2, *arguments, module=runs.TRAINING_MODULE) as pod:
        assert pod.wait_for("training 5/6")
        pod.kill(1)
        codes = pod.exit_codes()
        last_line = pod.output(0).strip().splitlines()[-1]
    assert all(code != 0 for code in codes)
    saved = max(int(path.name) for path in (folder / workdir.CHECKPOINTS).glob("[0-9]"))
    assert last_line.startswith("error: process 0 of 2 stopped before the end of the run")
    assert last_line.endswith(f"resume from the newest checkpoint, step {saved}.")
    run_single_process("edit_flow", folder)
    run_single_process("edit_flow", whole)
    assert_same_curve(folder, whole)


def test_a_damaged_checkpoint_stops_both_processes_or_is_skipped_by_both(two_process_run, tmp_path):
    folder = epath.Path(shutil.copytree(two_process_run[1], tmp_path / "run"))
    newest = folder / workdir.CHECKPOINTS / "6"
    damaged.DAMAGES["truncated training state"](pathlib.Path(newest))
    arguments = (config_flag("oneflow"), f"--workdir={folder}", "--config.steps=8")
    with pods.Pod(2, *arguments, module=runs.TRAINING_MODULE) as pod:
        codes = pod.exit_codes()
        messages = [pod.output(index).strip().splitlines()[-1] for index in range(2)]
    assert messages[0] == messages[1]
    assert messages[0].startswith(f"error: {newest}: the checkpoint is damaged (")
    assert codes == [1, 1]
    outputs = pods.run(
        2, *arguments, "--config.checkpoint.skip_damaged=True", module=runs.TRAINING_MODULE
    )
    assert "Resuming from step 4" in outputs[0]
    assert (folder / workdir.CHECKPOINTS / "8").exists()
    assert [path.name for path in (folder / workdir.DAMAGED_CHECKPOINTS).iterdir()] == ["6"]
