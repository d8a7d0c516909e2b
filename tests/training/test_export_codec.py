"""Tests that the export of a model of latents or image tokens contains its autoencoder."""

import shutil

import numpy as np
import pytest
from etils import epath

import oneflow_jax
from configs import common
from oneflow_jax.build import data
from oneflow_jax.codecs.autoencoder import diffusers_weights
from oneflow_jax.errors import UserError
from oneflow_jax.runtime import workdir
from oneflow_jax.training import export, train_state
from tests import runs
from tests.codecs.autoencoder import small_models

PIXELS = 4
ARCHITECTURES = {"vae": small_models.KL, "vq": small_models.VQ}


def make_config(kind, tmp_path):
    architecture = ARCHITECTURES[kind]
    path = epath.Path(tmp_path / "autoencoder")
    diffusers_weights.save(path, architecture, small_models.random_params(architecture, 0))
    config = runs.make_config().copy_and_resolve_references().unlock()
    config.source = {"name": "toy", "documents": 20}
    config.data.dir = str(tmp_path / "data")
    config.codec = (
        common.latent_codec(str(path), pixels=PIXELS, patch=2)
        if kind == "vae"
        else common.vq_codec(str(path), pixels=PIXELS)
    )
    if kind == "vq":
        common.set_paradigm(config, "chameleon")
    return config.lock()


@pytest.fixture(params=ARCHITECTURES)
def exported(request, tmp_path, monkeypatch):
    """Return the layout and the export of a run whose own folder and codec are then deleted."""
    config = make_config(request.param, tmp_path)
    folder = epath.Path(tmp_path / "run")
    folder.mkdir()
    layout = data.make_layout(config, folder)
    params = {"a": {"b": np.float32([1.0])}}
    monkeypatch.setattr(export, "load_ema_params", lambda *_, **__: params)
    output = epath.Path(tmp_path / "given [1]")
    export.export(config, folder, output, None, autoencoder=layout.codec.autoencoder)
    for name in ("run", "autoencoder", "data"):
        shutil.rmtree(tmp_path / name)
    return layout, output


def test_export_decodes_like_its_run_after_the_codec_is_deleted(exported, tmp_path, monkeypatch):
    layout, output = exported
    moved = epath.Path(tmp_path / "elsewhere")
    output.rename(moved)
    (tmp_path / "working").mkdir()
    monkeypatch.chdir(tmp_path / "working")
    config = workdir.load_config(moved)
    assert config.codec.path == str(moved / workdir.CODEC)
    again = data.make_layout(config, moved)
    codec, before = again.codec, layout.codec
    assert codec.autoencoder.fingerprint == before.autoencoder.fingerprint
    if hasattr(before, "mean"):
        assert (codec.mean, codec.std) == (before.mean, before.std)
    latents = np.random.default_rng(0).normal(size=(2, 2, 2, 3)).astype(np.float32)
    channels = before.autoencoder.architecture.channels
    latents = np.resize(latents, (2, 2, 2, channels))
    np.testing.assert_array_equal(
        codec.autoencoder.decode(latents), before.autoencoder.decode(latents)
    )
    assert list((tmp_path / "working").iterdir()) == []


def test_configuration_of_an_export_finds_its_codec(exported):
    _, output = exported
    assert sorted(path.name for path in output.iterdir()) == [
        "codec", "config.json", "latents.json", "tokenizer.model", "weights.safetensors",
    ]  # fmt: skip
    assert data.abstract_layout(workdir.load_config(output)).codec.pixels == PIXELS


def test_an_export_without_its_autoencoder_says_what_is_missing(exported):
    _, output = exported
    shutil.rmtree(output / workdir.CODEC)
    with pytest.raises(UserError, match=r"codec\.path=.*no such folder"):
        data.make_layout(workdir.load_config(output), output)


def test_a_later_export_replaces_all_files_of_an_earlier_one(exported, tmp_path):
    _, output = exported
    config = runs.make_config(source__name="toy", data__dir=str(tmp_path / "data"))
    run = epath.Path(tmp_path / "pixels")
    run.mkdir()
    (run / workdir.TOKENIZER).write_bytes(b"another")
    export.export(config, run, output, None)
    assert sorted(path.name for path in output.iterdir()) == [
        "config.json", "tokenizer.model", "weights.safetensors",
    ]  # fmt: skip
    assert "path" not in workdir.load_config(output).codec


def test_an_export_deletes_nothing_of_a_folder_that_is_not_an_export(exported, tmp_path):
    _, output = exported
    (output / workdir.WEIGHTS).unlink()
    (output / workdir.CODEC / "notes.txt").write_text("of the user")
    run = epath.Path(tmp_path / "pixels")
    run.mkdir()
    export.export(runs.make_config(), run, output, None)
    assert (output / workdir.CODEC / "notes.txt").exists()


@pytest.mark.slow
@pytest.mark.parametrize("kind", ARCHITECTURES)
def test_an_export_generates_a_document_with_an_image(kind, tmp_path, monkeypatch):
    config = make_config(kind, tmp_path).copy_and_resolve_references().unlock()
    config.sampling.update({"solver": "euler", "time_grid": "uniform", "steps": 2})
    system = runs.prepare_system(tmp_path / "run", config.lock())
    params = train_state.init_sharded(system).ema
    output = epath.Path(tmp_path / "export")
    with monkeypatch.context() as patch:
        patch.setattr(export, "load_ema_params", lambda *_, **__: params)
        autoencoder = system.layout.codec.autoencoder
        export.export(
            system.config, epath.Path(tmp_path / "run"), output, params, autoencoder=autoencoder
        )
    for name in ("run", "autoencoder", "data"):
        shutil.rmtree(tmp_path / name)
    model = oneflow_jax.load(output)
    prompt = "red <image> <text>"
    (document,) = model.generate(prompt, seed=1)
    (image,) = document.images
    assert image.size == (PIXELS, PIXELS)
    assert document.text.startswith("red")
    assert model.generate(prompt, seed=1) == [document]
    assert model.generate(prompt, seed=2) != [document]
    shutil.rmtree(output / workdir.CODEC)
    with pytest.raises(UserError, match=r"codec\.path=.*no such folder"):
        oneflow_jax.load(output)
