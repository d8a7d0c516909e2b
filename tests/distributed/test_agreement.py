"""Tests that all processes of a run refuse with the same message, or continue together."""

import json

import jax
import numpy as np
import pytest

from tests.distributed import agreement, pods
from tests.training import test_damaged_checkpoints as damaged


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    """Return the result of each scenario in two processes, by name."""
    root = tmp_path_factory.mktemp("agreement")
    outputs = pods.run(2, str(root), devices=2, module="tests.distributed.agreement")
    # Process 1 may use its own folder; on a real host, this folder would have the same path.
    lines = [
        line.replace(".host1", "")
        for output in outputs
        for line in output.splitlines()
        if line.startswith('["')
    ]
    by_name = {}
    for name, result in map(json.loads, lines):
        by_name.setdefault(name, []).append(result)
    return by_name


def assert_agreed(results, name, text):
    one, two = results[name]
    assert one == two
    assert text in one


SOURCE_DIFFERS = "the files differ between the hosts of the run"


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("same_files", "Prepared: "),
        ("changed_files", "was trained on other data than source.path="),
        ("accepted_files", "Prepared: "),
        ("another_listing", SOURCE_DIFFERS),
        ("another_content", SOURCE_DIFFERS),
        ("other_files_in_a_trained_run", SOURCE_DIFFERS),
        ("no_files", "error: source.path="),
        ("no_files_on_host_1", "(In process 1 of 2.)"),
        ("own_disks", "Prepared: "),
        ("own_disks_of_latents", "Prepared: "),
        ("one_disk_of_latents", "Prepared: "),
        ("a_new_disk_of_host_1", "Prepared: "),
        ("no_codec_on_host_1", "there is no such folder"),
        ("own_run_folders", "All hosts of a run need the same folder"),
    ],
)
def test_all_processes_refuse_with_one_message_or_continue(name, text, results):
    assert_agreed(results, name, text)


@pytest.mark.parametrize("damage", agreement.DAMAGES)
def test_all_processes_find_the_damage_and_resume_from_the_same_step(damage, results):
    one, two = results[f"damage: {damage}"]
    assert one == two
    message, step, position = one
    assert "checkpoints/6: the checkpoint is damaged" in message
    assert (step, position) == (4, 4)


def test_the_clock_of_the_primary_process_decides_when_to_save(results):
    assert results["save_by_time"] == [[True, False]] * 2


def test_one_replica_reads_a_checkpoint_for_both_processes(results):
    one, two = results["one_replica_reads"]
    assert one == two
    message, ema, key, position = one
    assert "checkpoints/6: the checkpoint is damaged" in message
    expected = damaged.make_state(6)
    assert ema == pytest.approx([np.sum(x).item() for x in jax.tree.leaves(expected.ema)], rel=1e-5)
    assert key == jax.random.key_data(expected.key).tolist()
    assert position == 6


def test_damage_that_one_replica_finds_ends_both_processes(tmp_path):
    arguments = (str(tmp_path), "one_replica_finds_damage")
    with pods.Pod(2, *arguments, devices=2, module="tests.distributed.agreement") as pod:
        codes = pod.exit_codes()
        output = pod.output(0)
    assert all(codes)
    assert "checkpoints/6: the checkpoint is damaged (" in output
    assert "--config.checkpoint.skip_damaged=True" in output


def test_every_scenario_is_judged(results):
    assert set(results) == set(agreement.SCENARIOS)


def test_the_command_ends_in_all_processes_with_the_same_message(tmp_path):
    flags = [
        "--config=own", f"--config.source.path={tmp_path / 'none'}", "--mode=prepare",
        f"--config.data.dir={tmp_path / 'data'}", f"--workdir={tmp_path / 'run'}",
    ]  # fmt: skip
    with pods.Pod(2, *flags, devices=2) as pod:
        codes = pod.exit_codes()
        one, two = (pod.output(index).strip().splitlines()[-1] for index in range(2))
    assert (
        one
        == two
        == (
            f"error: source.path={tmp_path / 'none'}: there is no such file or folder. "
            "Give the folder of your data."
        )
    )
    assert codes == [1, 1]
