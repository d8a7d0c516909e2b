"""Tests of documents and trajectories that are saved to files."""

import re

import numpy as np
import pytest
from PIL import Image, ImageColor

import oneflow_jax as of
from oneflow_jax.data import toy
from oneflow_jax.viewer import fonts
from tests import runs

RED = np.full((4, 4, 3), toy.COLORS["red"], np.uint8)


@pytest.fixture(scope="module")
def model():
    return of.load(str(runs.trained_run()[1]), {"sampling.steps": 2})


def test_documents_are_saved_as_one_image(tmp_path):
    image = Image.open(of.Document(["red", RED, of.IMAGE]).save(tmp_path / "new" / "red.png"))
    drawn = np.asarray(image.convert("RGB"))
    assert (drawn == RED[0, 0]).all(-1).sum() == 256**2
    muted = ImageColor.getrgb(fonts.MUTED_COLOR)
    assert (drawn == muted).all(-1).any()
    more = Image.open(of.Document(["red", RED, of.IMAGE, RED]).save(tmp_path / "more.png"))
    assert more.height >= image.height + 256
    wide = of.Document([Image.new("RGB", (2_000, 100), "red")]).save(tmp_path / "wide.png")
    assert Image.open(wide).width == image.width


def test_documents_are_saved_as_markdown_with_image_files(tmp_path):
    path = of.Document(["*red*", RED, "blue", RED]).save(tmp_path / "my red.md")
    text = path.read_text("utf-8")
    assert text == (
        "\\*red\\*\n\n![1.png](<my red_images/1.png>)\n\nblue\n\n![2.png](<my red_images/2.png>)\n"
    )
    for name in re.findall(r"<(.*?)>", text):
        np.testing.assert_array_equal(np.asarray(Image.open(tmp_path / name)), RED)


@pytest.mark.parametrize("ending", [".gif", ".webp"])
def test_trajectories_are_saved_as_animations(model, tmp_path, ending):
    states = list(model.stream("red <image> <text>", seed=7))
    image = Image.open(of.TrajectoryViewer(states).save(tmp_path / "new" / f"film{ending}"))
    assert image.n_frames == len(states) == 3
    shown = []
    for index in range(3):
        image.seek(index)
        image.load()
        shown.append((image.info["duration"], np.asarray(image.convert("RGB")).tobytes()))
    assert [duration for duration, _ in shown] == [250, 250, 2_000]
    assert len({drawn for _, drawn in shown}) == 3
    assert image.info["loop"] == 0


def test_trajectories_are_saved_as_pages_and_film_strips(model, tmp_path):
    viewer = of.TrajectoryViewer(list(model.stream("red <image> <text>", seed=7)))
    page = viewer.save(tmp_path / "film.html").read_text("utf-8")
    assert viewer.html() in page
    assert page.startswith("<!DOCTYPE html>")
    strip = Image.open(viewer.save(tmp_path / "film.png"))
    one = Image.open(of.TrajectoryViewer(viewer.steps[:1]).save(tmp_path / "one.png"))
    assert strip.height > 2 * one.height
    with pytest.raises(of.UserError, match=r"path='film.mp4': .*\.gif"):
        viewer.save("film.mp4")
