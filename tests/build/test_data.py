"""From a configuration with a learned codec to layout and documents."""

import shutil

import numpy as np
import pytest
from etils import epath

from configs import common
from oneflow_jax.build import data
from oneflow_jax.codecs.autoencoder import diffusers_weights
from oneflow_jax.codecs.autoencoder.autoencoder import Autoencoder
from oneflow_jax.codecs.patches import PatchCodec
from oneflow_jax.data import latents
from oneflow_jax.data.document import EncodedImage, Image
from oneflow_jax.errors import UserError
from tests import runs
from tests.codecs.autoencoder import small_models

PIXELS = 4  # The toy data's.


@pytest.fixture(autouse=True)
def encoded(monkeypatch):
    """How many pictures went through a network, call by call; without the network."""
    calls = []

    def encode(self, pictures):
        calls.append(len(pictures))
        return pictures[:, ::2, ::2].astype(np.float32) / 127.5 - 1

    monkeypatch.setattr(Autoencoder, "encode", encode)
    return calls


def saved(folder, seed=0):
    diffusers_weights.save(
        epath.Path(folder), small_models.KL, small_models.random_params(small_models.KL, seed)
    )
    return str(folder)


def configured(tmp_path, where=None, **changes):
    """Toy documents and a learned codec, whose keys `changes` sets, or takes away by None."""
    config = runs.make_config().copy_and_resolve_references().unlock()
    config.source = {"name": "toy", "documents": 20}
    config.data.dir = str(tmp_path / "data")
    codec = common.latent_codec(where or saved(tmp_path / "codec"), pixels=PIXELS, patch=2)
    given = codec.to_dict() | changes
    config.codec = {name: value for name, value in given.items() if value is not None}
    return config.lock()


@pytest.fixture
def folder(tmp_path):
    """Of a run."""
    folder = epath.Path(tmp_path / "run")
    folder.mkdir()
    return folder


def made(tmp_path):
    """The folders of latents."""
    return sorted((tmp_path / "data" / "latents").glob("*"))


def test_the_first_call_makes_latents_and_tells_the_run_of_them(tmp_path, folder, encoded):
    layout = data.make_layout(configured(tmp_path, deviation=2.0), folder)
    mark = small_models.random_autoencoder(small_models.KL).fingerprint
    (there,) = made(tmp_path)
    assert there.name.startswith("toy_")
    assert there.name.endswith(f"_{mark}")
    index = latents.read_index(folder / latents.INDEX_FILE, mark)
    assert (folder / latents.INDEX_FILE).read_text() == (there / latents.INDEX_FILE).read_text()
    assert index.documents == {"train": 20, "heldout": 20}
    codec = layout.codec
    assert (codec.mean, codec.scale, codec.deviation) == (index.mean, index.deviation, 2.0)
    assert (codec.pixels, codec.patch, codec.grid) == (PIXELS, 2, (1, 1))
    assert sum(encoded) >= 6


def test_documents_come_with_latents(tmp_path, folder):
    config = configured(tmp_path)
    layout = data.make_layout(config, folder)
    codec = layout.codec
    for split in data.ENCODED_SPLITS:
        read, source = (
            data.open_pipeline_split(config, layout, split),
            data.open_split(config, split),
        )
        assert len(read) == len(source) == 20
        for one, other in zip(read, source, strict=True):
            assert one.words() == other.words()
            pictures = [part.latents for part in one.parts if isinstance(part, EncodedImage)]
            for values, picture in zip(pictures, other.pictures(), strict=True):
                wanted = codec.autoencoder.encode(picture[None])[0]
                np.testing.assert_array_equal(values, wanted)


def test_a_codec_that_did_not_learn_reads_pictures(tmp_path, folder):
    config = runs.make_config(data__dir=str(tmp_path / "data"))
    layout = data.make_layout(config, folder)
    assert layout.codec == PatchCodec(pixels=4, patch=2, colors=3, mean=0.0, deviation=1.0)
    parts = [
        part for item in data.open_pipeline_split(config, layout, "train") for part in item.parts
    ]
    assert any(isinstance(part, Image) for part in parts)
    assert not any(isinstance(part, EncodedImage) for part in parts)
    assert not (folder / latents.INDEX_FILE).exists()


def test_the_folder_of_a_run_is_enough_to_know_the_scale(tmp_path, folder, encoded):
    config = configured(tmp_path)
    first = data.make_layout(config, folder)
    shutil.rmtree(tmp_path / "data")
    encoded.clear()
    again = data.make_layout(config, folder)
    assert (again.codec.mean, again.codec.scale) == (first.codec.mean, first.codec.scale)
    assert not encoded
    assert not made(tmp_path)


def test_runs_share_latents_as_far_as_they_are_of_the_same(tmp_path, folder, encoded):
    config = configured(tmp_path)
    data.make_layout(config, folder)
    other = epath.Path(tmp_path / "other")
    other.mkdir()
    encoded.clear()
    data.make_layout(config, other)
    assert not encoded
    assert len(made(tmp_path)) == 1
    (other / latents.INDEX_FILE).unlink()
    with config.unlocked():
        config.source.documents = 30
    index = latents.INDEX_FILE
    data.make_layout(config, other)
    assert len(made(tmp_path)) == 2
    assert (other / index).read_text() != (folder / index).read_text()
    (other / latents.INDEX_FILE).unlink()
    data.make_layout(configured(tmp_path, saved(tmp_path / "codec2", seed=1)), other)
    assert len(made(tmp_path)) == 3


def test_a_run_refuses_another_codec_and_names_both(tmp_path, folder):
    data.make_layout(configured(tmp_path), folder)
    before = (folder / latents.INDEX_FILE).read_text()
    other = configured(tmp_path, saved(tmp_path / "codec2", seed=1))
    with pytest.raises(UserError) as error:
        data.make_layout(other, folder)
    for seed in (0, 1):
        assert small_models.random_autoencoder(small_models.KL, seed).fingerprint in str(
            error.value
        )
    assert str(folder / latents.INDEX_FILE) in str(error.value)
    assert (folder / latents.INDEX_FILE).read_text() == before
    assert len(made(tmp_path)) == 1


def test_a_codec_may_move(tmp_path, folder):
    data.make_layout(configured(tmp_path), folder)
    data.make_layout(configured(tmp_path, saved(tmp_path / "moved")), folder)


WRONG = {
    "an unknown name": ({"name": "jpeg"}, r"codec\.name='jpeg' is none of patches, learned"),
    "no name": ({"name": None}, r"codec\.name=None is none of patches, learned"),
    "no path": ({"path": None}, r"codec\.name='learned' .*path, pixels, patch.*missing: path;"),
    "no pixels": ({"pixels": None}, r"missing: pixels; unknown: none"),
    "keys of another": ({"colors": 3, "mean": 0.0}, r"missing: none; unknown: colors, mean\."),
    "another with its keys": (
        {"name": "patches"},
        r"codec\.name='patches' .*missing: colors, mean; unknown: path\.",
    ),
    "no autoencoder": (
        {"path": "/nowhere"},
        r"codec\.path=/nowhere: there is no such folder\. Train an",
    ),
    "no multiple": ({"pixels": 6}, r"codec\.pixels=6 is no multiple of 4"),
    "no patch": ({"patch": 0}, r"codec\.patch=0"),
}


@pytest.mark.parametrize("what", WRONG)
def test_mistakes_are_told_before_anything_is_encoded(tmp_path, folder, encoded, what):
    changes, said = WRONG[what]
    with pytest.raises(UserError, match=said):
        data.make_layout(configured(tmp_path, **changes), folder)
    assert not encoded
    assert not made(tmp_path)
    assert not (folder / latents.INDEX_FILE).exists()
    # What was wrong can be put right in the same folder.
    data.make_layout(configured(tmp_path), folder)


def test_pictures_of_another_size_are_told(tmp_path, folder):
    with pytest.raises(UserError, match=r"\(4, 4, 3\).*codec\.pixels=8.*\(8, 8, 3\)"):
        data.make_layout(configured(tmp_path, pixels=8), folder)
    assert not (folder / latents.INDEX_FILE).exists()


def test_preparing_again_looks_at_every_shard_and_says_what_there_is(tmp_path, folder, encoded):
    config = configured(tmp_path)
    layout = data.make_layout(config, folder)
    (there,) = made(tmp_path)
    said = f"Prepared: 20 documents of 'train', 20 documents of 'heldout', in {there}"
    before = len(encoded)
    assert data.prepare_data(config, layout) == said
    assert len(encoded) == before
    (shard,) = there.glob("train*.array_record")
    whole = shard.read_bytes()
    shard.write_bytes(whole[:100])
    assert data.prepare_data(config, layout) == said
    assert shard.read_bytes() == whole
    assert len(encoded) > before
