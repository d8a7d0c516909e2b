import jax
import numpy as np
import pytest
from etils import epath

from oneflow_jax.errors import UserError
from oneflow_jax.runtime import metric_writer, sharding, workdir
from oneflow_jax.training import checkpoint
from tests import runs
from tests.training import test_damaged_checkpoints as damaged


def test_only_the_newest_checkpoints_are_kept(tmp_path):
    system, finished = runs.trained_run()
    state, _ = runs.load_state(system, finished)
    assert sorted(path.name for path in (finished / workdir.CHECKPOINTS).iterdir()) == list("246")
    folder = runs.copy_run(finished, tmp_path)
    with checkpoint.Checkpoints(folder, max_to_keep=2) as checkpoints:
        data = iter(system.train_batches())
        restored = checkpoints.restore(system.abstract_state, data)
        checkpoints.save(restored, 8, data)
        checkpoints.wait()
        assert checkpoints.latest_step == 8
        data.close()
    assert sorted(path.name for path in (folder / workdir.CHECKPOINTS).iterdir()) == list("68")
    again, _ = runs.load_state(system, folder)
    runs.assert_identical(again, state)


def test_incomplete_save_is_ignored(tmp_path):
    _system, finished = runs.trained_run()
    folder = runs.copy_run(finished, tmp_path)
    half = folder / workdir.CHECKPOINTS / "9.orbax-checkpoint-tmp"
    half.mkdir()
    (half / "ema").write_text("half")
    with checkpoint.Checkpoints(folder, 3) as checkpoints:
        assert checkpoints.latest_step == 6


def test_ema_parameters_are_restored_alone(tmp_path):
    system, finished = runs.trained_run()
    state, _ = runs.load_state(system, finished)
    with checkpoint.Checkpoints(finished, 3) as checkpoints:
        ema = checkpoints.restore_ema(system.abstract_state.ema)
    runs.assert_identical(jax.tree.map(np.asarray, ema), state.ema)
    # EMA and parameters differ, so the check above would notice if they were interchanged.
    differs = jax.tree.map(lambda x, y: bool(np.any(x != y)), state.ema, state.params)
    assert all(jax.tree.leaves(differs))


def test_checkpoint_restores_on_another_mesh(tmp_path):
    """Save on 8 data-parallel devices, and restore on a 2 x 4 mesh with sharded parameters."""
    system, finished = runs.trained_run()
    sharded_system = runs.prepare_system(tmp_path, runs.make_config(mesh__data=2, mesh__fsdp=4))
    moved, position = runs.load_state(sharded_system, finished)
    state, expected_position = runs.load_state(system, finished)
    runs.assert_identical(moved, state)
    assert position == expected_position
    with sharding.mesh_context(sharded_system.mesh):
        like = sharded_system.abstract_state
    ways = {leaf.sharding.num_devices for leaf in jax.tree.leaves(like.params)}
    assert ways == {8}
    assert any("fsdp" in str(leaf.sharding.spec) for leaf in jax.tree.leaves(like.params))


def test_missing_checkpoint_is_reported(tmp_path):
    with checkpoint.Checkpoints(epath.Path(tmp_path), 3) as checkpoints:
        assert checkpoints.latest_step is None
        with pytest.raises(UserError, match=r"there is no checkpoint.*--mode=train"):
            checkpoints.restore_ema({})


def test_unrelated_errors_are_not_converted(tmp_path):
    checkpoints = checkpoint.Checkpoints(epath.Path(tmp_path), 3)
    with checkpoints, pytest.raises(ValueError, match="mine"), checkpoints._translate_errors():
        raise ValueError("mine")


def test_relative_folder_is_accepted(tmp_path, monkeypatch):
    system, finished = runs.trained_run()
    folder = runs.copy_run(finished, tmp_path)
    monkeypatch.chdir(tmp_path)
    state, _ = runs.load_state(system, epath.Path(folder.name))
    expected, _ = runs.load_state(system, finished)
    runs.assert_identical(state, expected)


def test_old_checkpoint_format_can_be_sampled_but_not_resumed(tmp_path):
    system, finished = runs.trained_run()
    folder = runs.copy_run(finished, tmp_path)
    data = folder / workdir.CHECKPOINTS / "6" / "data"
    (data / "data.json").rename(data / "process_0-of-1.json")
    with pytest.raises(UserError, match=r"earlier version.*another --workdir; with init_from="):
        runs.load_state(system, folder)
    with checkpoint.Checkpoints(folder, 3) as checkpoints:
        ema = checkpoints.restore_ema(system.abstract_state.ema)
    state, _ = runs.load_state(system, finished)
    runs.assert_identical(jax.tree.map(np.asarray, ema), state.ema)


def save_losses(folder, losses, **options):
    """Save a checkpoint with each loss, at steps 2, 4, ...; None is a loss that is not known."""
    with checkpoint.Checkpoints(epath.Path(folder), **options) as checkpoints:
        for step, loss in enumerate(losses, 1):
            state, position = damaged.make_state(2 * step), damaged.Position(2 * step)
            checkpoints.save(state, 2 * step, position, loss)
            checkpoints.wait()
    paths = (epath.Path(folder) / workdir.CHECKPOINTS).iterdir()
    return sorted(int(path.name) for path in paths)


def load_best(folder, **options):
    return damaged.restore_ema(folder, use="best", **options)


def test_the_checkpoint_with_the_lowest_loss_is_kept_and_used(tmp_path):
    losses = [3.0, 1.0, None, 2.0, 4.0]
    assert save_losses(tmp_path, losses, max_to_keep=1, keep_best=True) == [4, 10]
    damaged.assert_ema(load_best(tmp_path), 4)
    damaged.assert_ema(damaged.restore_ema(tmp_path), 10)
    state, position = damaged.restore(tmp_path)
    damaged.assert_step(state, 10)
    assert position == 10


def test_the_best_checkpoint_survives_a_resume_and_a_better_one_replaces_it(tmp_path):
    save_losses(tmp_path, [3.0, 1.0, 2.0], max_to_keep=1, keep_best=True)
    with checkpoint.Checkpoints(epath.Path(tmp_path), 1, keep_best=True) as checkpoints:
        for step, loss in ((8, 1.5), (10, 0.5), (12, 0.7)):
            checkpoints.save(damaged.make_state(step), step, damaged.Position(step), loss)
    names = sorted(path.name for path in (tmp_path / workdir.CHECKPOINTS).iterdir())
    assert names == ["10", "12"]


def test_a_best_checkpoint_needs_a_loss(tmp_path):
    save_losses(tmp_path, [None, None], max_to_keep=3, keep_best=True)
    with pytest.raises(UserError, match=r"checkpoint.use='best': no checkpoint in .* loss"):
        load_best(tmp_path)


def test_a_damaged_loss_is_as_good_as_none(tmp_path):
    save_losses(tmp_path, [1.0, 2.0, 3.0], max_to_keep=3, keep_best=True)
    path = tmp_path / workdir.CHECKPOINTS / "2" / "loss" / "data.json"
    for text in ("", "{", "[]", '{"heldout_loss": "low"}', '{"heldout_loss": null}'):
        path.write_text(text)
        damaged.assert_ema(load_best(tmp_path), 4)
        damaged.assert_ema(damaged.restore_ema(tmp_path), 6)


def test_a_damaged_best_checkpoint_is_reported_or_skipped(tmp_path):
    save_losses(tmp_path, [2.0, 1.0, 3.0], max_to_keep=3, keep_best=True)
    path = tmp_path / workdir.CHECKPOINTS / "4"
    damaged.flip(damaged.largest(path, "ema"))
    with pytest.raises(UserError, match=r"4: the checkpoint is damaged .* continue from step 2"):
        load_best(tmp_path)
    damaged.assert_ema(load_best(tmp_path, skip_damaged=True), 2)


def test_a_run_saves_its_heldout_loss_with_each_evaluated_checkpoint():
    system, folder = runs.trained_run()
    with checkpoint.Checkpoints(folder) as checkpoints:
        ema = checkpoints.restore_ema(system.abstract_state.ema, use="best")
    rows = metric_writer.read_metrics(folder / workdir.LOGS)
    losses = {row["step"]: row["eval/loss"] for row in rows if "eval/loss" in row}
    best = min(losses, key=losses.get)
    weights = dict(system.paradigm.weights)
    row = next(row for row in rows if row["step"] == best and "eval/loss" in row)
    assert losses[best] == pytest.approx(sum(w * row[f"eval/loss_{k}"] for k, w in weights.items()))
    if best == max(losses):
        state, _ = runs.load_state(system, folder)
        runs.assert_identical(jax.tree.map(np.asarray, ema), state.ema)
