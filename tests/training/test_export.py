"""Tests of exports, which sample like their run, and of the pretrained model in the package."""

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
from oneflow_jax.data import emoji_concepts
from oneflow_jax.runtime import run_lock, workdir
from oneflow_jax.training import export, train_state
from tests import runs

LARGEST = 20e6
"""The largest allowed size of the pretrained model, in bytes."""


@pytest.fixture
def folder(tmp_path):
    return runs.copy_run(runs.trained_run()[1], tmp_path)


@pytest.fixture(scope="module")
def export_folder(tmp_path_factory):
    """Return the folder of an export of the tiny run; tests share it and must not change it."""
    system, run = runs.trained_run()
    into = epath.Path(tmp_path_factory.mktemp("release") / "given")
    export.export(system.config, run, into, system.abstract_state.ema)
    return into


def test_export_samples_like_its_run(export_folder, monkeypatch, tmp_path):
    prompt = "a picture of red: <image> and <text>"
    expected = of.load(runs.trained_run()[1]).generate(prompt, steps=2, seed=3)
    monkeypatch.chdir(tmp_path)
    (document,) = of.load(export_folder).generate(prompt, steps=2, seed=3)
    assert document.text == expected[0].text
    differences = np.abs(
        np.asarray(document.images[0], int) - np.asarray(expected[0].images[0], int)
    )
    assert differences.max() <= 2  # Of 255 gray levels; weights are rounded to float16.
    assert sorted(path.name for path in export_folder.iterdir()) == [
        "config.json", "layouts.json", "tokenizer.model", "weights.safetensors",
    ]  # fmt: skip
    assert list(tmp_path.iterdir()) == []  # No data are prepared.


def test_exported_parameters_are_float16_and_sharded(export_folder):
    system, run = runs.trained_run()
    like = system.abstract_state.ema
    ours, theirs = export.load_ema_params(export_folder, like), export.load_ema_params(run, like)
    for actual, expected in zip(jax.tree.leaves(ours), jax.tree.leaves(theirs), strict=True):
        assert actual.dtype == expected.dtype
        assert actual.sharding == expected.sharding
        np.testing.assert_array_equal(actual, np.asarray(expected).astype(np.float16))


def test_sampling_writes_nothing_to_the_export(export_folder, monkeypatch):
    def fail(*_):
        raise AssertionError("the folder was locked")

    def read_files():
        return {path: path.read_bytes() for path in pathlib.Path(export_folder).iterdir()}

    before = read_files()
    assert before
    monkeypatch.setattr(run_lock, "lock", fail)
    (document,) = of.load(export_folder).generate("<text>", steps=2)
    assert document.parts
    assert read_files() == before


def test_init_from_accepts_an_export(export_folder, tmp_path):
    system = runs.prepare_system(tmp_path, runs.make_config(init_from=str(export_folder)))
    state = init_from.init_from_checkpoint(system, train_state.init_sharded(system))
    expected = export.load_ema_params(export_folder, system.abstract_state.ema)
    runs.assert_identical(jax.device_get(state.params), jax.device_get(expected))
    assert (tmp_path / workdir.TOKENIZER).read_bytes() == (
        export_folder / workdir.TOKENIZER
    ).read_bytes()


def test_command_line_exports_a_run(folder, tmp_path, cli):
    cli("--mode=export", f"--workdir={folder}", f"--output={tmp_path / 'given'}")
    assert workdir.is_export(epath.Path(tmp_path / "given"))
    cli("--mode=sample", f"--workdir={tmp_path / 'given'}", "--prompt=red <image>")
    assert (tmp_path / "given" / workdir.SAMPLES_PAGE).exists()


REFUSED = [
    (["--mode=export", "--workdir={run}"], "--output"),
    (["--workdir={run}", "--output=x"], "--output=x: --mode=train does not accept it"),
    (["--mode=prepare", "--workdir={run}", "--output=x"], "--output=x: --mode=prepare"),
    (["--mode=export", "--workdir={run}", "--output={run}"], "folder of a run"),
    (["--workdir={given}"], "cannot be trained"),
]


@pytest.mark.parametrize(("arguments", "message"), REFUSED)
def test_invalid_exports_are_reported(arguments, message, folder, export_folder, tmp_path, cli):
    export_dir = shutil.copytree(export_folder, tmp_path / "given")
    with pytest.raises(of.UserError, match=message):
        cli(*[word.format(run=folder, given=export_dir) for word in arguments])


def overwrite_tensors(copy, **tensors):
    path = copy / workdir.WEIGHTS
    stored = safetensors.numpy.load_file(path)
    path.write_bytes(safetensors.numpy.save({**stored, **tensors}))


def test_damaged_weights_are_reported(export_folder, tmp_path):
    copy = pathlib.Path(shutil.copytree(export_folder, tmp_path / "copy"))
    overwrite_tensors(copy, stranger=np.zeros((2, 3), np.float16))
    with pytest.raises(of.UserError, match=r"stranger is \(2, 3\), but"):
        of.load(copy)
    path = copy / workdir.WEIGHTS
    path.write_bytes(path.read_bytes()[:1000])
    with pytest.raises(of.UserError, match="Get a new copy"):
        of.load(copy)


def test_float16_overflow_is_reported(tmp_path, monkeypatch):
    system, run = runs.trained_run()
    monkeypatch.setattr(export, "load_ema_params", lambda *_, **__: {"a": {"b": np.float32([1e6])}})
    with pytest.raises(of.UserError, match="a/b"):
        export.export(system.config, run, epath.Path(tmp_path), None)
    assert list(tmp_path.iterdir()) == []


@pytest.fixture(scope="module")
def pretrained_model():
    return of.load(of.PRETRAINED)


def test_shipped_model_is_small_and_has_an_attribution():
    files = [path for path in of.PRETRAINED.rglob("*") if path.is_file()]
    assert sum(path.stat().st_size for path in files) < LARGEST
    readme = (of.PRETRAINED / "README.md").read_text()
    assert emoji_concepts.ATTRIBUTION in readme
    assert emoji_concepts.LICENSE in readme


def test_shipped_model_is_package_data():
    """Check that a pattern of setup.py matches every file of the model's folder."""
    setup = (runs.REPOSITORY / "setup.py").read_text()
    patterns = re.search(r'"oneflow_jax.shipped": (\[[^]]+\])', setup)[1]
    paths = (path for path in of.PRETRAINED.rglob("*.*") if path.suffix not in (".py", ".pyc"))
    files = {str(path.relative_to(of.PRETRAINED)) for path in paths}
    unnamed = [f for f in files if not any(fnmatch.fnmatch(f, p) for p in json.loads(patterns))]
    assert files >= {workdir.CONFIG, workdir.TOKENIZER, workdir.WEIGHTS, "README.md"}
    assert unnamed == []


def test_the_shipped_configuration_is_that_of_its_file(pretrained_model):
    """Check that the documented command trains this model; only run-specific keys may differ."""
    config, ours = pretrained_model.config, configuration.get_config("text")
    assert config.codec.path == str(of.PRETRAINED / workdir.CODEC)
    config.codec.path = ours.codec.path
    for section in ("source", "data", "codec", "model", "paradigm", "optimizer", "sampling"):
        found, expected = (workdir.flatten_config(one[section]) for one in (config, ours))
        assert expected.items() <= found.items(), section
    for key in ("batch_size", "seed", "steps", "init_from"):
        assert config[key] == ours[key]


def test_shipped_model_generates_requested_images_and_captions(pretrained_model):
    names = ["tiger", "fox", "watermelon", "cactus", "zebra", "pizza", "whale", "rose"]
    source = configuration.get_config().source
    known = emoji_concepts.load(source.pixels, None, source.categories, names=source.names)
    pixels_by_name = {one.name: one.pixels for one in known if one.in_training}
    pictures = pretrained_model.generate_batch(
        [f"a picture of a {name}: <image>" for name in names]
    )
    for name, document in zip(names, pictures, strict=True):
        (picture,) = (np.asarray(image, float) for image in document.images)
        nearest = min(
            pixels_by_name,
            key=lambda candidate: np.square(picture - pixels_by_name[candidate]).mean(),
        )
        assert nearest == name
    captions = pretrained_model.generate_batch([[pixels_by_name[name], of.TEXT] for name in names])
    named = [name in document.text for name, document in zip(names, captions, strict=True)]
    assert sum(named) >= 6, [document.text for document in captions]
