"""Tests of building the layout and the documents for an autoencoder codec."""

import dataclasses
import shutil

import numpy as np
import pytest
from etils import epath

from configs import common
from oneflow_jax import shipped
from oneflow_jax.build import data
from oneflow_jax.codecs.autoencoder import diffusers_weights
from oneflow_jax.codecs.autoencoder.autoencoder import Autoencoder
from oneflow_jax.codecs.patches import PatchCodec
from oneflow_jax.data import latents
from oneflow_jax.data.document import EncodedImage, Image
from oneflow_jax.errors import UserError
from tests import runs
from tests.codecs.autoencoder import small_models

PIXELS = 4  # Image size of the toy data.


@pytest.fixture(autouse=True)
def encode_counts(monkeypatch):
    """Replace the encoder by subsampling; return the number of images of each call."""
    calls = []

    def encode(self, pictures):
        calls.append(len(pictures))
        return pictures[:, ::2, ::2].astype(np.float32) / 127.5 - 1

    monkeypatch.setattr(Autoencoder, "encode", encode)
    return calls


def save_codec(folder, seed=0):
    diffusers_weights.save(
        epath.Path(folder), small_models.KL, small_models.random_params(small_models.KL, seed)
    )
    return str(folder)


def make_config(tmp_path, where=None, **changes):
    """Return a config of toy data and a codec; `changes` sets keys, and None removes a key."""
    config = runs.make_config().copy_and_resolve_references().unlock()
    config.source = {"name": "toy", "documents": 20}
    config.data.dir = str(tmp_path / "data")
    codec = common.latent_codec(where or save_codec(tmp_path / "codec"), pixels=PIXELS, patch=2)
    settings = codec.to_dict() | changes
    config.codec = {name: value for name, value in settings.items() if value is not None}
    return config.lock()


@pytest.fixture
def folder(tmp_path):
    """Return the empty folder of a run."""
    folder = epath.Path(tmp_path / "run")
    folder.mkdir()
    return folder


def list_latents(tmp_path):
    """Return the folders with encoded latents, one per data set and codec."""
    return sorted((tmp_path / "data" / "latents").glob("*"))


def test_first_call_encodes_latents_and_saves_their_statistics(tmp_path, folder, encode_counts):
    layout = data.make_layout(make_config(tmp_path, divisor=2.0), folder)
    mark = small_models.random_autoencoder(small_models.KL).fingerprint
    (there,) = list_latents(tmp_path)
    assert there.name.startswith("toy_")
    assert there.name.endswith(f"_{mark}")
    index = latents.read_index(folder / latents.INDEX_FILE, mark)
    assert (folder / latents.INDEX_FILE).read_text() == (there / latents.INDEX_FILE).read_text()
    assert index.documents == {"train": 20, "heldout": 20}
    codec = layout.codec
    assert (codec.mean, codec.std, codec.divisor) == (index.mean, index.deviation, 2.0)
    assert (codec.pixels, codec.patch_size, codec.grid) == (PIXELS, 2, (1, 1))
    assert sum(encode_counts) >= 6


def test_documents_come_with_latents(tmp_path, folder):
    config = make_config(tmp_path)
    layout = data.make_layout(config, folder)
    codec = layout.codec
    for split in data.ENCODED_SPLITS:
        read, source = (
            data.open_pipeline_split(config, layout, split),
            data.open_split(config, split),
        )
        assert len(read) == len(source) == 20
        for document, expected in zip(read, source, strict=True):
            assert document.text() == expected.text()
            pictures = [part.latents for part in document.parts if isinstance(part, EncodedImage)]
            for values, picture in zip(pictures, expected.images(), strict=True):
                expected_latents = codec.autoencoder.encode(picture[None])[0]
                np.testing.assert_array_equal(values, expected_latents)


def test_patch_codec_reads_images(tmp_path, folder):
    config = runs.make_config(data__dir=str(tmp_path / "data"))
    layout = data.make_layout(config, folder)
    assert layout.codec == PatchCodec(pixels=4, patch_size=2, image_channels=3, mean=0.0, std=1.0)
    parts = [
        part for item in data.open_pipeline_split(config, layout, "train") for part in item.parts
    ]
    assert any(isinstance(part, Image) for part in parts)
    assert not any(isinstance(part, EncodedImage) for part in parts)
    assert not (folder / latents.INDEX_FILE).exists()


def test_run_folder_has_the_latent_statistics(tmp_path, folder, encode_counts):
    config = make_config(tmp_path)
    first = data.make_layout(config, folder)
    shutil.rmtree(tmp_path / "data")
    encode_counts.clear()
    again = data.make_layout(config, folder)
    assert (again.codec.mean, again.codec.std) == (first.codec.mean, first.codec.std)
    assert not encode_counts
    assert not list_latents(tmp_path)


def test_runs_with_equal_data_and_codec_share_latents(tmp_path, folder, encode_counts):
    config = make_config(tmp_path)
    data.make_layout(config, folder)
    second_run = epath.Path(tmp_path / "other")
    second_run.mkdir()
    encode_counts.clear()
    data.make_layout(config, second_run)
    assert not encode_counts
    assert len(list_latents(tmp_path)) == 1
    (second_run / latents.INDEX_FILE).unlink()
    with config.unlocked():
        config.source.documents = 30
    index = latents.INDEX_FILE
    data.make_layout(config, second_run)
    assert len(list_latents(tmp_path)) == 2
    assert (second_run / index).read_text() != (folder / index).read_text()
    (second_run / latents.INDEX_FILE).unlink()
    data.make_layout(make_config(tmp_path, save_codec(tmp_path / "codec2", seed=1)), second_run)
    assert len(list_latents(tmp_path)) == 3


def test_another_codec_is_refused_with_both_fingerprints(tmp_path, folder):
    data.make_layout(make_config(tmp_path), folder)
    before = (folder / latents.INDEX_FILE).read_text()
    config = make_config(tmp_path, save_codec(tmp_path / "codec2", seed=1))
    with pytest.raises(UserError) as error:
        data.make_layout(config, folder)
    for seed in (0, 1):
        assert small_models.random_autoencoder(small_models.KL, seed).fingerprint in str(
            error.value
        )
    assert str(folder / latents.INDEX_FILE) in str(error.value)
    assert (folder / latents.INDEX_FILE).read_text() == before
    assert len(list_latents(tmp_path)) == 1


def test_codec_folder_may_move(tmp_path, folder):
    before = data.make_layout(make_config(tmp_path), folder).codec
    moved = save_codec(tmp_path / "moved")
    shutil.rmtree(tmp_path / "codec")
    after = data.make_layout(make_config(tmp_path, moved), folder).codec
    assert (after.mean, after.std) == (before.mean, before.std)
    image = np.arange(PIXELS * PIXELS * 3, dtype=np.uint8).reshape(PIXELS, PIXELS, 3)
    np.testing.assert_array_equal(after.encode(image), before.encode(image))


WRONG = {
    "an unknown name": ({"name": "jpeg"}, r"codec\.name='jpeg': .*one of patches, vae"),
    "no name": ({"name": None}, r"codec\.name=None: .*one of patches, vae"),
    "no path": ({"path": None}, r"codec\.name='vae' .*path, pixels, patch_size.*missing: path;"),
    "no pixels": ({"pixels": None}, r"missing: pixels; unknown: none"),
    "keys of another": (
        {"image_channels": 3, "mean": 0.0},
        r"missing: none; unknown: image_channels, mean\.",
    ),
    "another with its keys": (
        {"name": "patches"},
        r"codec\.name='patches' .*missing: image_channels, mean, std; unknown: divisor, path\.",
    ),
    "no autoencoder": (
        {"path": "/nowhere"},
        r"codec\.path=/nowhere: there is no such folder\. Train an",
    ),
    "no multiple": ({"pixels": 6}, r"codec\.pixels=6 is not a multiple of 4"),
    "no patch": ({"patch_size": 0}, r"codec\.patch_size=0"),
}


@pytest.mark.parametrize("what", WRONG)
def test_errors_are_reported_before_encoding(tmp_path, folder, encode_counts, what):
    changes, message = WRONG[what]
    with pytest.raises(UserError, match=message):
        data.make_layout(make_config(tmp_path, **changes), folder)
    assert not encode_counts
    assert not list_latents(tmp_path)
    assert not (folder / latents.INDEX_FILE).exists()
    # After the error, a correct configuration works in the same folder.
    data.make_layout(make_config(tmp_path), folder)


def test_wrong_image_size_is_reported(tmp_path, folder):
    with pytest.raises(UserError, match=r"codec\.pixels=8.*\(4, 4, 3\).*\(8, 8, 3\)"):
        data.make_layout(make_config(tmp_path, pixels=8), folder)
    assert not (folder / latents.INDEX_FILE).exists()


def test_repeated_preparation_checks_every_shard(tmp_path, folder, encode_counts):
    config = make_config(tmp_path)
    layout = data.make_layout(config, folder)
    (there,) = list_latents(tmp_path)
    message = f"Prepared: 20 documents of 'train', 20 documents of 'heldout', in {there}"
    before = len(encode_counts)
    assert data.prepare_data(config, layout) == message
    assert len(encode_counts) == before
    (shard,) = there.glob("train*.array_record")
    whole = shard.read_bytes()
    shard.write_bytes(whole[:100])
    assert data.prepare_data(config, layout) == message
    assert shard.read_bytes() == whole
    assert len(encode_counts) > before


def test_the_shipped_codec_is_chosen_by_name(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    config = make_config(tmp_path, path="shipped", pixels=64, patch_size=4)
    codec = data.abstract_layout(config).codec
    expected = Autoencoder.load(epath.Path(shipped.CODEC))
    assert codec.autoencoder.fingerprint == expected.fingerprint
    assert codec.grid == (4, 4)


def test_latents_are_normalized_like_those_of_the_start_model(tmp_path, folder):
    """Check that a run keeps the statistics that the parameters of its start model know."""
    start = epath.Path(tmp_path / "start")
    start.mkdir()
    config = make_config(tmp_path)
    data.make_layout(config, start)
    own = latents.read_index(
        start / latents.INDEX_FILE, small_models.random_autoencoder(small_models.KL).fingerprint
    )
    shifted = dataclasses.replace(own, mean=tuple(value + 1 for value in own.mean))
    (start / latents.INDEX_FILE).write_text(shifted.to_json())
    with config.unlocked():
        config.init_from = str(start)
    codec = data.make_layout(config, folder).codec
    assert (codec.mean, codec.std) == (shifted.mean, shifted.deviation)
    assert codec.mean != own.mean


def test_the_tokenizer_is_trained_on_documents_of_the_whole_split(tmp_path, folder, monkeypatch):
    """Check that documents of the end of the split are among those of the tokenizer."""
    monkeypatch.setattr(data, "TOKENIZER_TRAINING_DOCUMENTS", 4)
    config = make_config(tmp_path)
    documents = data.open_split(config, "train")
    used = list(data._iter_texts(config))
    assert used == [documents[index].text() for index in (0, 5, 10, 15)]
