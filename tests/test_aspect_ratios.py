"""Tests of whole runs on a user's own images of several aspect ratios."""

import json
import re

import jax
import pytest
from etils import epath
from PIL import Image

import oneflow_jax as of
from configs import common, own
from oneflow_jax import evaluate, sample
from oneflow_jax.aot import compile
from oneflow_jax.build import data, image_codec
from oneflow_jax.build import system as system_lib
from oneflow_jax.canvas import Modality
from oneflow_jax.data.custom import prepare
from oneflow_jax.errors import UserError
from oneflow_jax.training import loop
from tests import runs
from tests.build.test_data import save_codec
from tests.data.custom.changing_source import prepare_here

SIZES = {"wide": (60, 40), "tall": (40, 60), "even": (50, 50)}
"""Width and height of the user's images, by the word in their caption."""

SHAPES = {"wide": (12, 20), "tall": (20, 12), "even": (16, 16)}
"""Height and width of the model's images."""


@pytest.fixture(autouse=True)
def no_workers(monkeypatch):
    monkeypatch.setattr(prepare, "_run_workers", prepare_here)


def make_config(tmp_path, paradigm="oneflow", codec="patches", **changes):
    """Return a configuration of squares of 4 x 4 slots, for a folder of captioned images."""
    folder = tmp_path / "photos"
    folder.mkdir(exist_ok=True)
    for number in range(24):
        word = list(SIZES)[number % 3]
        color = (10 * number, 255 - 10 * number, 7)
        image = Image.new("RGB", SIZES[word], color)
        image.paste((0, 0, 0), (0, 0, number + 1, 5))
        image.save(folder / f"{number}.png")
        (folder / f"{number}.txt").write_text(f"a {word} image")
    config = own.get_config(paradigm)
    config.codec.pixels, config.codec.patch_size = 16, 4
    if codec == "vae":
        config.codec = common.latent_codec(save_codec(tmp_path / "codec"), pixels=16, patch=2)
        config.source.pixels = 16
    config = common.shrink_for_debugging(config)
    config.source.path, config.data.dir = str(folder), str(tmp_path / "data")
    config.source.heldout_fraction = 0.3
    config.data.vocab_size, config.data.sequence_length = 300, 64
    config.data.aspect_ratios = ("1:1", "3:2", "2:3")
    config.evaluation.num_samples = 3
    config.update_from_flattened_dict({k.replace("__", "."): v for k, v in changes.items()})
    return config.lock()


@pytest.mark.parametrize(("paradigm", "codec"), [("oneflow", "patches"), ("mask_flow", "vae")])
def test_a_run_trains_and_samples_images_of_all_shapes(paradigm, codec, tmp_path):
    config = make_config(tmp_path, paradigm, codec)
    system = runs.prepare_system(tmp_path / "run", config)
    shapes = {"1:1": (4, 4), "3:2": (3, 5), "2:3": (5, 3)}
    assert system.layout.shapes.grids == shapes
    batch = next(iter(system.train_batches()))
    highest = batch.position[batch.modality == Modality.IMAGE].max(axis=0)
    assert highest[1:].tolist() == [4, 4]  # rows of "2:3", and columns of "3:2"
    assert {run for runs in system.known_layouts.layouts for run in runs} == {8, *shapes}

    folder = epath.Path(tmp_path / "run")
    loop.run(system, folder)
    metrics = evaluate.run(system, folder)
    assert any(name.startswith("nn_distance_heldout") for name in metrics)
    prompts = ("<image 3:2> <text>", "<image 2:3> <text>", "<image> <text>", "<document>")
    page = sample.run(system_lib.system(config, folder, "sample"), folder, prompts).read_text()
    found = json.loads(
        re.search(r'<script type="application/json" id="data">(.*?)</script>', page)[1]
    )
    sheets = {(sheet["height"], sheet["width"]) for sheet in found["sheets"]}
    assert sheets == set(SHAPES.values())

    model = of.load(folder)
    assert model.info().aspect_ratios == ("1:1", "3:2", "2:3")
    assert "16 x 16 pixels, and <image 3:2>, <image 2:3>" in str(model.info())
    documents = model.generate_batch([*prompts[:3], [of.image("3:2"), "a wide image"]])
    sizes = [document.images[0].size for document in documents]
    assert sizes == [(20, 12), (12, 20), (16, 16), (20, 12)]
    given = Image.open(tmp_path / "photos" / "0.png")
    (captioned,) = model.generate([given, of.TEXT])
    assert captioned.images[0].size == (20, 12)
    with pytest.raises(UserError, match=r"<image 16:9>.*data\.aspect_ratios"):
        model.generate("<image 16:9>")


def test_prepared_images_have_the_shapes_and_keep_their_content(tmp_path):
    config = make_config(tmp_path)
    source = data.open_split(config, "train")
    for document in (source[index] for index in range(len(source))):
        (image,) = document.images()
        assert image.shape[:2] == SHAPES[document.text().split()[1]]
        assert image[-1, -1].tolist() != [255, 255, 255]  # no margin
    squares = data.open_split(make_config(tmp_path, data__aspect_ratios=("1:1",)), "train")
    assert {squares[index].images()[0].shape for index in range(len(squares))} == {(16, 16, 3)}


@pytest.mark.parametrize("paradigm", ["edit_flow", "transfusion"])
def test_other_paradigms_are_refused_before_the_data_is_read(paradigm, tmp_path):
    config = make_config(tmp_path, paradigm)
    message = (
        rf"data\.aspect_ratios=.*{paradigm} generates square images only.*oneflow or mask_flow"
    )
    with pytest.raises(UserError, match=message):
        runs.prepare_system(tmp_path / "run", config)
    assert not (tmp_path / "data").exists()


def test_ratios_that_the_grid_cannot_tell_apart_are_refused_before_the_data_is_read(tmp_path):
    config = make_config(tmp_path, data__aspect_ratios=("1:1", "3:2", "16:9"))
    with pytest.raises(UserError, match=r"'3:2' and '16:9' have the same shape"):
        runs.prepare_system(tmp_path / "run", config)
    assert not (tmp_path / "data").exists()


def test_data_sets_of_squares_refuse_other_shapes(tmp_path):
    config = runs.make_config(data__aspect_ratios=("1:1", "3:2"))
    with pytest.raises(UserError, match=r"source\.name='toy' are square"):
        runs.prepare_system(tmp_path / "run", config)


def test_the_compiled_training_step_does_not_depend_on_the_ratios(tmp_path):
    """So memory, FLOPs and collectives of `--mode=aot` are the same with and without shapes."""
    programs = []
    for ratios in (("1:1",), ("1:1", "3:2", "2:3")):
        config = make_config(tmp_path, data__aspect_ratios=ratios)
        system = system_lib.abstract_system(config, jax.devices())
        programs.append(compile.compile_train_step(system))
    # The metadata of an instruction is the place in the sources, which may differ.
    without, with_shapes = (
        [
            re.sub(r", metadata=\{.*?\}", "", line)
            for line in program.text.splitlines()
            if " = " in line
        ]
        for program in programs
    )
    assert len(without) > 100
    assert without == with_shapes
    assert programs[0].memory == programs[1].memory


def test_a_shape_has_multiples_of_the_pixels_of_a_slot(tmp_path):
    """A slot has 4 x 4 pixels: two latents of two pixels each."""
    config = make_config(tmp_path, codec="vae")
    assert image_codec.compute_crop_sizes(config) == ((16, 16), (12, 20), (20, 12))
    square = make_config(tmp_path, data__aspect_ratios=("1:1",))
    assert image_codec.compute_crop_sizes(square) == ()
