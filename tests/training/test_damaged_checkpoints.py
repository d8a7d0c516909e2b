"""Tests of folders with special characters, and of damaged checkpoints, on a small state."""

import pathlib
import shutil

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from etils import epath

from oneflow_jax.errors import UserError
from oneflow_jax.runtime import workdir
from oneflow_jax.training import checkpoint
from oneflow_jax.training.train_state import TrainState

NAMES = [
    "run[1]", "[", "]", "[!a]*", "x*?", "sp ace #1 %20", "ünï☃", "new\nline", "-dash",
    "a|b:c", "{a,b}", "'q\"",
]  # fmt: skip


class Position:
    """A data iterator that only has a position."""

    state = None

    def __init__(self, number=0):
        self.state = {"0": {"n": number}}

    def set_state(self, state):
        self.state = state


def make_state(step):
    noise = np.random.default_rng(step).normal(size=(64, 32)).astype(np.float32)
    params = {"layer": {"kernel": jnp.asarray(noise), "bias": jnp.full((32,), step / 7)}}
    return TrainState(
        step=jnp.int32(step),
        key=jax.random.key(3),
        params=params,
        opt_state=({"mu": jax.tree.map(lambda x: x * 2, params)}, {}),
        ema=jax.tree.map(lambda x: x / 2, params),
    )


def abstract(state):
    def leaf(x):
        return jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=x.sharding)

    return jax.tree.map(leaf, state)


def save_steps(folder, steps=(2, 4, 6)):
    with checkpoint.Checkpoints(epath.Path(folder), 5) as checkpoints:
        for step in steps:
            checkpoints.save(make_state(step), step, Position(step))
    return epath.Path(folder)


def restore(folder, **options):
    position = Position()
    with checkpoint.Checkpoints(epath.Path(folder), 5) as checkpoints:
        state = checkpoints.restore(abstract(make_state(0)), position, **options)
    return state, position.state["0"]["n"]


def restore_ema(folder, **options):
    with checkpoint.Checkpoints(epath.Path(folder)) as checkpoints:
        return checkpoints.restore_ema(abstract(make_state(0)).ema, **options)


def assert_step(state, step):
    assert int(state.step) == step
    assert_ema(state.ema, step)


def assert_ema(ema, step):
    expected = make_state(step).ema
    for x, y in zip(jax.tree.leaves(ema), jax.tree.leaves(expected), strict=True):
        np.testing.assert_array_equal(x, y)


@pytest.mark.parametrize("name", NAMES)
def test_checkpoints_in_a_folder_with_special_characters_restore(name, tmp_path):
    folder = save_steps(tmp_path / name / "run", (2,))
    assert workdir.has_checkpoints(folder)
    assert (folder / workdir.CHECKPOINTS / "2" / "ema" / "manifest.ocdbt").exists()
    state, position = restore(folder)
    assert_step(state, 2)
    assert position == 2


def test_a_backslash_is_refused_before_anything_is_written(tmp_path):
    with pytest.raises(UserError, match="backslash"):
        save_steps(tmp_path / "a\\b")
    assert list(tmp_path.iterdir()) == []


def data_files(path):
    return sorted((p for p in path.rglob("*") if p.is_file()), key=lambda p: p.stat().st_size)


def largest(path, item):
    return data_files(path / item)[-1]


def cut(path):
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def flip(path):
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 0x10
    path.write_bytes(data)


def fill_zeros(path):
    path.write_bytes(bytes(path.stat().st_size))


DAMAGES = {
    "truncated arrays": lambda p: cut(largest(p, "ema")),
    "truncated training state": lambda p: cut(largest(p, "train")),
    "flipped byte of EMA": lambda p: flip(largest(p, "ema")),
    "flipped byte of parameters": lambda p: flip(largest(p, "train")),
    "zeros instead of EMA": lambda p: fill_zeros(largest(p, "ema")),
    "empty file": lambda p: largest(p, "ema").write_bytes(b""),
    "missing manifest": lambda p: (p / "ema" / "manifest.ocdbt").unlink(),
    "empty manifest": lambda p: (p / "train" / "manifest.ocdbt").write_bytes(b""),
    "damaged manifest": lambda p: flip(p / "ema" / "manifest.ocdbt"),
    "missing item": lambda p: shutil.rmtree(p / "train"),
    "missing EMA": lambda p: shutil.rmtree(p / "ema"),
    "missing position": lambda p: shutil.rmtree(p / "data"),
    "empty position": lambda p: (p / "data" / "data.json").write_bytes(b""),
    "broken position": lambda p: (p / "data" / "data.json").write_text('{"0": {"n":'),
    "empty metadata": lambda p: (p / "ema" / "_METADATA").write_bytes(b""),
    "empty checksums": lambda p: data_files(p / "checksums")[-1].write_bytes(b""),
    "missing metadata": lambda p: (p / "ema" / "_METADATA").unlink(),
    "no files": lambda p: [x.unlink() for x in p.rglob("*") if x.is_file()],
}


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    return save_steps(tmp_path_factory.mktemp("saved") / "run")


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_checkpoint_is_named_and_skipped_on_request(damage, saved, tmp_path):
    folder = pathlib.Path(shutil.copytree(saved, tmp_path / "run"))
    newest = folder / workdir.CHECKPOINTS / "6"
    DAMAGES[damage](newest)
    before = {p: p.read_bytes() for p in newest.rglob("*") if p.is_file()}
    with pytest.raises(
        UserError,
        match=r"checkpoints/6: the checkpoint is damaged.*step 4 with .*skip_damaged=True",
    ):
        restore(folder)
    assert {p: p.read_bytes() for p in newest.rglob("*") if p.is_file()} == before
    state, position = restore(folder, skip_damaged=True)
    assert_step(state, 4)
    assert position == 4
    aside = folder / workdir.DAMAGED_CHECKPOINTS / "6"
    assert {aside / p.relative_to(newest): data for p, data in before.items()} == {
        p: p.read_bytes() for p in aside.rglob("*") if p.is_file()
    }
    assert_step(restore(folder)[0], 4)  # The next start does not need `skip_damaged`.


@pytest.mark.parametrize("damage", ["truncated arrays", "flipped byte of EMA", "missing EMA"])
def test_reading_moves_nothing(damage, saved, tmp_path):
    folder = pathlib.Path(shutil.copytree(saved, tmp_path / "run"))
    DAMAGES[damage](folder / workdir.CHECKPOINTS / "6")
    before = sorted(folder.rglob("*"))
    with pytest.raises(UserError, match="checkpoints/6: the checkpoint is damaged"):
        restore_ema(folder)
    params = restore_ema(folder, skip_damaged=True)
    np.testing.assert_array_equal(params["layer"]["bias"], make_state(4).ema["layer"]["bias"])
    assert sorted(folder.rglob("*")) == before


def test_all_checkpoints_damaged(saved, tmp_path):
    folder = pathlib.Path(shutil.copytree(saved, tmp_path / "run"))
    for step in ("4", "6"):
        cut(largest(folder / workdir.CHECKPOINTS / step, "train"))
    assert_step(restore(folder, skip_damaged=True)[0], 2)
    cut(largest(folder / workdir.CHECKPOINTS / "2", "train"))
    with pytest.raises(UserError, match=r"checkpoints/2: .*damaged.*no older checkpoint"):
        restore(folder, skip_damaged=True)
    assert sorted(p.name for p in (folder / workdir.DAMAGED_CHECKPOINTS).iterdir()) == ["4", "6"]


def test_a_checkpoint_of_an_earlier_version_has_no_checksums(saved, tmp_path):
    folder = pathlib.Path(shutil.copytree(saved, tmp_path / "run"))
    shutil.rmtree(folder / workdir.CHECKPOINTS / "6" / "checksums")
    assert_step(restore(folder)[0], 6)


def test_training_resumes_after_a_damaged_checkpoint(saved, tmp_path):
    folder = epath.Path(shutil.copytree(saved, tmp_path / "run"))
    flip(largest(pathlib.Path(folder) / workdir.CHECKPOINTS / "6", "train"))
    with checkpoint.Checkpoints(folder, 5) as checkpoints:
        checkpoints.restore(abstract(make_state(0)), Position(), skip_damaged=True)
        assert checkpoints.latest_step == 4
        checkpoints.save(make_state(6), 6, Position(6))
    assert_step(restore(folder)[0], 6)


def test_checkpoint_of_another_model_is_not_reported_as_damaged(saved):
    other = {"layer": {"kernel": jax.ShapeDtypeStruct((3, 3), jnp.float32)}}
    with checkpoint.Checkpoints(saved) as checkpoints, pytest.raises((ValueError, KeyError)):
        checkpoints.restore_ema(other)


@pytest.mark.parametrize("part", ["params", "ema"])
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_non_finite_parameters_and_ema_are_not_saved(part, value, tmp_path):
    folder = save_steps(tmp_path / "run", (2,))
    state = make_state(4)
    broken = {"layer": {**state.ema["layer"], "bias": state.ema["layer"]["bias"].at[3].set(value)}}
    name = {"params": "parameters", "ema": "EMA"}[part]
    with (
        checkpoint.Checkpoints(folder, 5) as checkpoints,
        pytest.raises(UserError, match=rf"Step 4: {name}.*bias.*not finite"),
    ):
        checkpoints.save(state.replace(**{part: broken}), 4, Position(4))
    assert_step(restore(folder)[0], 2)
