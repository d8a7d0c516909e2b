import jax
import numpy as np
import pytest
from etils import epath

from oneflow_jax.errors import UserError
from oneflow_jax.runtime import sharding, workdir
from oneflow_jax.training import checkpoint
from tests import runs


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
