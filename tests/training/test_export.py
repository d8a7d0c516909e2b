"""What is given away of a run samples as the run does; and the model that is shipped."""

import fnmatch
import json
import pathlib
import re
import shutil

import jax
import numpy as np
import pytest
import safetensors.numpy
from etils import epath

import oneflow_jax as of
from configs import shipped as configuration
from oneflow_jax.build import init_from
from oneflow_jax.data import emoji as emoji_data
from oneflow_jax.data import emoji_concepts
from oneflow_jax.runtime import workdir
from oneflow_jax.training import export, train_state
from tests import runs

CATEGORIES = emoji_data.Settings.categories

LARGEST = 20e6
"""Bytes that the shipped model may have, all files together."""


@pytest.fixture
def folder(tmp_path):
    return runs.copy_run(runs.trained_run()[1], tmp_path)


@pytest.fixture(scope="module")
def released(tmp_path_factory):
    """A release of the tiny run, closed to writing as installed packages are."""
    system, run = runs.trained_run()
    into = epath.Path(tmp_path_factory.mktemp("release") / "given")
    export.export(system.config, run, into, train_state.abstract_state(system).ema)
    return into


def test_it_samples_as_its_run_does(released, monkeypatch, tmp_path):
    prompt = "a picture of red: <image> and <text>"
    expected = of.load(runs.trained_run()[1]).generate(prompt, steps=2, seed=3)
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
    system, run = runs.trained_run()
    like = train_state.abstract_state(system).ema
    ours, theirs = export.load_ema_params(released, like), export.load_ema_params(run, like)
    for got, kept in zip(jax.tree.leaves(ours), jax.tree.leaves(theirs), strict=True):
        assert got.dtype == kept.dtype
        assert got.sharding == kept.sharding
        np.testing.assert_array_equal(got, np.asarray(kept).astype(np.float16))


def test_nothing_is_written_where_it_lies(released, monkeypatch):
    def refused(*_):
        raise AssertionError("the folder was claimed")

    monkeypatch.setattr(workdir, "lock", refused)
    of.load(released)


def test_a_training_begins_from_it(released, tmp_path):
    system = runs.prepare_system(tmp_path, runs.make_config(start=str(released)))
    begun = init_from.init_from_checkpoint(system, train_state.init_sharded(system))
    expected = export.load_ema_params(released, train_state.abstract_state(system).ema)
    runs.assert_identical(jax.device_get(begun.params), jax.device_get(expected))
    assert (tmp_path / workdir.TOKENIZER).read_bytes() == (
        released / workdir.TOKENIZER
    ).read_bytes()


def test_by_the_command_line(folder, tmp_path, cli):
    cli("--mode=release", f"--workdir={folder}", f"--into={tmp_path / 'given'}")
    assert workdir.is_export(epath.Path(tmp_path / "given"))
    cli("--mode=sample", f"--workdir={tmp_path / 'given'}", "--prompt=red <image>")
    assert (tmp_path / "given" / workdir.SAMPLES_PAGE).exists()


REFUSED = [
    (["--mode=release", "--workdir={run}"], "--into"),
    (["--mode=sample", "--workdir={run}", "--into=x"], "--into"),
    (["--mode=release", "--workdir={run}", "--into={run}"], "folder of a run"),
    (["--workdir={given}"], "nobody trains there"),
]


@pytest.mark.parametrize(("arguments", "told"), REFUSED)
def test_mistakes_are_told(arguments, told, folder, released, tmp_path, cli):
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
    system, run = runs.trained_run()
    monkeypatch.setattr(export, "load_ema_params", lambda *_: {"a": {"b": np.float32([1e6])}})
    with pytest.raises(of.UserError, match="a/b"):
        export.export(system.config, run, epath.Path(tmp_path), None)
    assert list(tmp_path.iterdir()) == []


@pytest.fixture(scope="module")
def shipped():
    return of.load(of.PRETRAINED)


def test_the_shipped_model_is_small_and_says_whose_pictures_it_saw():
    assert sum(path.stat().st_size for path in of.PRETRAINED.iterdir() if path.is_file()) < LARGEST
    readme = (of.PRETRAINED / "README.md").read_text()
    assert emoji_concepts.ATTRIBUTION in readme
    assert emoji_concepts.LICENSE in readme


def test_it_is_installed_with_the_package():
    """Every file of its folder is named by a pattern of setup.py."""
    setup = (runs.REPOSITORY / "setup.py").read_text()
    patterns = re.search(r'"oneflow_jax.shipped": (\[[^]]+\])', setup)[1]
    files = {path.name for path in of.PRETRAINED.iterdir() if path.suffix not in ("", ".py")}
    unnamed = [f for f in files if not any(fnmatch.fnmatch(f, p) for p in json.loads(patterns))]
    assert files >= {workdir.CONFIG, workdir.TOKENIZER, workdir.WEIGHTS, "README.md"}
    assert unnamed == []


def test_the_shipped_configuration_is_that_of_its_file(shipped):
    """But for what may differ between runs; so the command that is told trains it."""
    kept, ours = shipped.config, configuration.get_config()
    for section in ("source", "data", "codec", "model", "paradigm", "optimizer"):
        for key, value in ours[section].items():
            assert kept[section][key] == value, (section, key)
    assert (kept.batch, kept.seed) == (ours.batch, ours.seed)


def test_the_shipped_model_draws_what_it_is_told_and_names_it(shipped):
    names = ["tiger", "fox", "watermelon", "cactus", "zebra", "pizza", "whale", "rose"]
    drawn = {one.name: one.pixels for one in emoji_concepts.load(24, 64, CATEGORIES)}
    pictures = shipped.generate_batch([f"a picture of a {name}: <image>" for name in names])
    for name, document in zip(names, pictures, strict=True):
        (picture,) = (np.asarray(image, float) for image in document.images)
        nearest = min(drawn, key=lambda other: np.square(picture - drawn[other]).mean())
        assert nearest == name
    said = shipped.generate_batch([[drawn[name], of.TEXT] for name in names])
    named = [name in document.text for name, document in zip(names, said, strict=True)]
    assert sum(named) >= 6, [document.text for document in said]
