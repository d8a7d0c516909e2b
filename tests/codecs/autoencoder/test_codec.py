import dataclasses
import pickle

import jax
import numpy as np
import pytest
from etils import epath

from oneflow_jax.canvas import Modality
from oneflow_jax.codecs import patches
from oneflow_jax.codecs.autoencoder.autoencoder import Autoencoder
from oneflow_jax.codecs.autoencoder.codec import LatentCodec
from oneflow_jax.data import latents, pipeline
from oneflow_jax.data.document import Document, EncodedImage, Text
from oneflow_jax.errors import UserError
from tests import tiny
from tests.codecs.autoencoder import small_models

PLAIN = {"mean": (0.0, 0.0, 0.0), "std": (1.0, 1.0, 1.0), "divisor": 1.0}


def codec(architecture=small_models.KL, **changes):
    """Return a codec of 8 x 8 pixels, 4 x 4 latents and 2 x 2 slots."""
    settings = {"pixels": 8, "patch_size": 2, **PLAIN} | changes
    return LatentCodec(small_models.random_autoencoder(architecture), **settings)


def to_documents(encoded_images):
    return [
        Document((Text(f"a {n}"), EncodedImage(values))) for n, values in enumerate(encoded_images)
    ]


@pytest.mark.parametrize("kind", ["kl", "vq"])
def test_codec_reconstructs_like_the_autoencoder(kind):
    architecture = {"kl": small_models.KL, "vq": small_models.VQ}[kind]
    channels = architecture.channels
    pictures, autoencoder = (
        small_models.random_images(5),
        small_models.random_autoencoder(architecture),
    )
    expected = np.concatenate([autoencoder.decode(autoencoder.encode(x[None])) for x in pictures])
    plain = codec(architecture, mean=(0.0,) * channels, std=(1.0,) * channels)
    scaled = codec(
        architecture, mean=(0.3, -2.0, 0.1)[:channels], std=(0.7, 3.0, 0.2)[:channels],
        divisor=2.5,
    )  # fmt: skip
    slots = np.stack([plain.encode(picture) for picture in pictures])
    assert slots.shape == (5, 4, 4 * channels)
    assert slots.dtype == np.float32
    decoded = np.stack([plain.decode(one) for one in slots])
    np.testing.assert_array_equal(decoded, expected)
    scaled_slots = np.stack([scaled.encode(picture) for picture in pictures])
    assert np.abs(scaled_slots - slots).max() > 0.2
    rounded = np.abs(scaled.decode(scaled_slots).astype(int) - expected)
    assert rounded.max() <= 1
    assert np.mean(rounded) < 0.01


def test_batch_decoding_equals_single_decoding():
    learned = codec()
    slots = np.random.default_rng(0).standard_normal((2, 3, 4, 12)).astype(np.float32)
    many = learned.decode(slots)
    assert many.shape == (2, 3, 8, 8, 3)
    for at in np.ndindex(2, 3):
        assert np.abs(many[at].astype(int) - learned.decode(slots[at])).max() <= 1
    assert np.abs(many[0, 0].astype(int) - many[1, 2]).max() > 20


@pytest.mark.parametrize("deviation", [1.0, 2.0])
def test_latents_of_the_train_split_have_unit_std(tmp_path, deviation):
    folder = epath.Path(tmp_path)
    encoded = small_models.random_autoencoder(small_models.KL).encode(
        small_models.random_images(40)
    )
    for split, group in (("train", encoded[:32]), ("heldout", encoded[32:])):
        latents.Shard(folder, split, 0, 1).write(to_documents(group))
    index = latents.write_index(folder, "f", {"train": 32, "heldout": 8})
    learned = codec(mean=index.mean, std=index.deviation, divisor=deviation)
    stored = latents.open_split(folder, "train", 32)
    slots = np.stack([learned.from_stored(stored[n].parts[1].latents) for n in range(32)])
    by_channel = slots.reshape(-1, 3).astype(np.float64)
    np.testing.assert_allclose(by_channel.mean(axis=0), 0, atol=1e-5)
    np.testing.assert_allclose(by_channel.std(axis=0), 1 / deviation, rtol=1e-5)


def test_slots_come_in_the_order_of_patches():
    settings = {"pixels": 12, "patch_size": 2}
    learned = codec(**settings | {"pixels": 24})
    plain = patches.PatchCodec(**settings, image_channels=3, mean=0.0, std=1.0)
    values = np.random.default_rng(0).standard_normal((12, 12, 3)).astype(np.float32)
    assert learned.grid == plain.grid == (6, 6)
    assert learned.channels == plain.channels == 12
    np.testing.assert_array_equal(learned.from_stored(values), plain.from_stored(values))


def test_sizes_that_do_not_fit_are_reported():
    with pytest.raises(
        UserError, match=r"codec\.pixels=10 .* 4, .* 2 pixels per latent.*codec\.patch_size=2"
    ):
        codec(pixels=10)
    with pytest.raises(UserError, match=r"codec\.patch_size=0"):
        codec(patch_size=0)
    with pytest.raises(UserError, match=r"\(8, 6, 3\).*multiples of 4 pixels.*codec\.pixels"):
        codec().encode(np.zeros((8, 6, 3), np.uint8))
    for odd in ({"in_channels": 1}, {"out_channels": 4}):
        shape = dataclasses.replace(small_models.KL, **odd)
        name, value = next(iter(odd.items()))
        with pytest.raises(UserError, match=f"{name}={value}.*3 channels"):
            LatentCodec(
                Autoencoder(shape, small_models.random_params(shape)),
                pixels=8,
                patch_size=2,
                **PLAIN,
            )


def test_codec_pickles():
    learned, picture = codec(divisor=2.0), small_models.random_images(1)[0]
    expected = learned.encode(picture)
    again = pickle.loads(pickle.dumps(learned))
    np.testing.assert_array_equal(again.encode(picture), expected)
    assert again.autoencoder.fingerprint == learned.autoencoder.fingerprint


def test_a_worker_process_reads_latents(tmp_path):
    folder, learned = epath.Path(tmp_path), codec(divisor=2.0)
    encoded = small_models.random_autoencoder(small_models.KL).encode(small_models.random_images(8))
    latents.Shard(folder, "train", 0, 1).write(to_documents(encoded))
    batches = pipeline.canvas_batches(
        latents.open_split(folder, "train", 8),
        dataclasses.replace(tiny.make_layout(16), codec=learned),
        batch_size=2,
        seed=0,
        num_workers=1,
        sharding=jax.sharding.SingleDeviceSharding(jax.devices()[0]),
    )
    iterator = iter(batches)
    canvas = jax.tree.map(np.asarray, next(iterator))
    iterator.close()
    known = {learned.from_stored(values).tobytes() for values in encoded}
    for row in range(2):
        slots = canvas.latents[row][canvas.modality[row] == Modality.IMAGE]
        assert slots.tobytes() in known
