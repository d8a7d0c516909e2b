"""What is given away of a run samples as the run does; and the model that is shipped."""

import pathlib
import shutil

import jax
import numpy as np
import pytest
import safetensors.numpy
from etils import epath

import oneflow_jax as of
from oneflow_jax import release, start, workdir
from oneflow_jax import state as states
from tests import runs
from tests.test_main import cli, folder, forget  # noqa: F401 - fixtures

LARGEST = 20e6
"""Bytes that the shipped model may have, all files together."""


@pytest.fixture(scope="module")
def released(tmp_path_factory):
    """A release of the tiny run, closed to writing as installed packages are."""
    system, run = runs.trained()
    into = epath.Path(tmp_path_factory.mktemp("release") / "given")
    release.write(system.config, run, into, states.abstract(system).ema)
    return into


def test_it_samples_as_its_run_does(released, monkeypatch, tmp_path):
    prompt = "a picture of red: <image> and <text>"
    expected = of.load(runs.trained()[1]).generate(prompt, steps=2, seed=3)
    monkeypatch.chdir(tmp_path)
    (made,) = of.load(released).generate(prompt, steps=2, seed=3)
    assert made.text == expected[0].text
    differences = np.abs(np.asarray(made.images[0], int) - np.asarray(expected[0].images[0], int))
    assert differences.max() <= 2  # Of 255: float16 rounds.
    assert sorted(path.name for path in released.iterdir()) == [
        "config.json", "tokenizer.model", "weights.safetensors",
    ]  # fmt: skip
    assert list(tmp_path.iterdir()) == []  # No data was prepared for it.


def test_parameters_come_back_rounded_and_laid_out(released):
    system, run = runs.trained()
    like = states.abstract(system).ema
    ours, theirs = release.averaged(released, like), release.averaged(run, like)
    for got, kept in zip(jax.tree.leaves(ours), jax.tree.leaves(theirs), strict=True):
        assert got.dtype == kept.dtype
        assert got.sharding == kept.sharding
        np.testing.assert_array_equal(got, np.asarray(kept).astype(np.float16))


def test_nothing_is_written_where_it_lies(released, monkeypatch):
    def refused(*_):
        raise AssertionError("the folder was claimed")

    monkeypatch.setattr(workdir, "claimed", refused)
    of.load(released)


def test_a_training_begins_from_it(released, tmp_path):
    system = runs.prepared(tmp_path, runs.config(start=str(released)))
    begun = start.begun(system, states.initial(system))
    expected = release.averaged(released, states.abstract(system).ema)
    runs.assert_same(jax.device_get(begun.params), jax.device_get(expected))
    assert (tmp_path / workdir.TOKENIZER).read_bytes() == (
        released / workdir.TOKENIZER
    ).read_bytes()


def test_by_the_command_line(folder, tmp_path, cli):  # noqa: F811 - fixtures
    cli("--mode=release", f"--workdir={folder}", f"--into={tmp_path / 'given'}")
    assert workdir.is_release(epath.Path(tmp_path / "given"))
    forget()
    cli("--mode=sample", f"--workdir={tmp_path / 'given'}", "--prompt=red <image>")
    assert (tmp_path / "given" / workdir.PAGE).exists()


REFUSED = [
    (["--mode=release", "--workdir={run}"], "--into"),
    (["--mode=sample", "--workdir={run}", "--into=x"], "--into"),
    (["--mode=release", "--workdir={run}", "--into={run}"], "folder of a run"),
    (["--workdir={given}"], "nobody trains there"),
]


@pytest.mark.parametrize(("arguments", "told"), REFUSED)
def test_mistakes_are_told(arguments, told, folder, released, tmp_path, cli):  # noqa: F811
    given = shutil.copytree(released, tmp_path / "given")
    with pytest.raises(of.UserError, match=told):
        cli(*[word.format(run=folder, given=given) for word in arguments])


def damaged(copy, **tensors):
    path = copy / workdir.WEIGHTS
    stored = safetensors.numpy.load_file(path)
    path.write_bytes(safetensors.numpy.save({**stored, **tensors}))


def test_damaged_weights_are_told(released, tmp_path):
    copy = pathlib.Path(shutil.copytree(released, tmp_path / "copy"))
    damaged(copy, stranger=np.zeros((2, 3), np.float16))
    with pytest.raises(of.UserError, match=r"stranger is \(2, 3\)"):
        of.load(copy)
    path = copy / workdir.WEIGHTS
    path.write_bytes(path.read_bytes()[:1000])
    with pytest.raises(of.UserError, match="get it anew"):
        of.load(copy)


def test_what_float16_cannot_hold_is_told(tmp_path, monkeypatch):
    system, run = runs.trained()
    monkeypatch.setattr(release, "averaged", lambda *_: {"a": {"b": np.float32([1e6])}})
    with pytest.raises(of.UserError, match="a/b"):
        release.write(system.config, run, epath.Path(tmp_path), None)
    assert list(tmp_path.iterdir()) == []
