import gc
import json
import pickle
import sys
import threading

import numpy as np
import pytest
from etils import epath

from oneflow_jax.data import latents
from oneflow_jax.data.document import Document, EncodedImage, Gap, Image, Text
from oneflow_jax.errors import UserError

FINGERPRINT = "0123456789abcdef"


@pytest.fixture
def folder(tmp_path):
    return epath.Path(tmp_path) / "latents"


@pytest.fixture
def small_shards(monkeypatch):
    """Set the shard size to 4 documents."""
    monkeypatch.setattr(latents, "SHARD_SIZE", 4)


def encoded_image(rng):
    scale, shift = np.array([1.0, 2.0, 0.1]), np.array([0.0, 5.0, -3.0])
    return EncodedImage((rng.standard_normal((2, 3, 3)) * scale + shift).astype(np.float32))


def documents(count, seed=0):
    """Return documents of text only, images only, and both interleaved."""
    draws = np.random.default_rng(seed)
    forms = (
        lambda n: (Text(f"größer {n} <3"),),
        lambda n: (encoded_image(draws), encoded_image(draws)),
        lambda n: (
            Text(f"a {n}"),
            encoded_image(draws),
            Text(""),
            encoded_image(draws),
            encoded_image(draws),
        ),
    )
    return [Document(forms[n % 3](n)) for n in range(count)]


def write_shards(folder, split, items):
    for shard in latents.list_shards(folder, split, len(items)):
        first = shard.number * latents.SHARD_SIZE
        shard.write(items[first : first + latents.SHARD_SIZE])


def assert_same(actual, expected):
    assert [type(part) for part in actual.parts] == [type(part) for part in expected.parts]
    for actual_part, expected_part in zip(actual.parts, expected.parts, strict=True):
        if isinstance(expected_part, EncodedImage):
            assert actual_part.latents.dtype == np.float32
            assert actual_part.latents.shape == expected_part.latents.shape
            assert actual_part.latents.tobytes() == expected_part.latents.tobytes()
        else:
            assert actual_part == expected_part


@pytest.mark.usefixtures("small_shards")
def test_documents_round_trip_bit_by_bit_in_order(folder):
    expected = documents(11)
    write_shards(folder, "train", expected)
    stored = latents.open_split(folder, "train", 11)
    assert len(stored) == 11
    for actual, document in zip(stored, expected, strict=True):
        assert_same(actual, document)
    assert_same(stored[7], expected[7])
    assert_same(pickle.loads(pickle.dumps(stored))[9], expected[9])
    for beyond in (-1, 11):
        with pytest.raises(IndexError):
            stored[beyond]


@pytest.mark.usefixtures("small_shards")
def test_shards_are_named_by_number_and_count(folder):
    write_shards(folder, "train", documents(9))
    names = [f"train-0000{n}-of-00003" for n in range(3)]
    actual = sorted(path.name for path in folder.iterdir())
    assert actual == sorted(f"{name}.{end}" for name in names for end in ("array_record", "json"))
    manifests = [json.loads((folder / f"{name}.json").read_text()) for name in names]
    assert [each["documents"] for each in manifests] == [4, 4, 1]


@pytest.mark.usefixtures("small_shards")
def test_mean_and_std_equal_numpy(folder):
    train, heldout = documents(11), documents(5, seed=1)
    write_shards(folder, "train", train)
    write_shards(folder, "heldout", heldout)
    counts = {"train": 11, "heldout": 5}
    index = latents.write_index(folder, FINGERPRINT, counts)
    all_latents = np.concatenate(
        [
            part.latents.reshape(-1, 3).astype(np.float64)
            for document in train
            for part in document.parts
            if isinstance(part, EncodedImage)
        ]
    )
    np.testing.assert_allclose(index.mean, all_latents.mean(axis=0), rtol=1e-12)
    np.testing.assert_allclose(index.deviation, all_latents.std(axis=0), rtol=1e-10)
    assert index.documents == counts
    assert latents.all_complete(folder, index)
    # Reading the JSON file gives an equal index.
    assert latents.read_index(folder / latents.INDEX_FILE, FINGERPRINT) == index
    copy = folder / "copy.json"
    copy.write_text(index.to_json())
    assert latents.read_index(copy, FINGERPRINT) == index


def test_a_split_without_images_has_no_statistics(folder):
    write_shards(folder, "train", [Document((Text("a"),))])
    index = latents.write_index(folder, FINGERPRINT, {"train": 1})
    assert (index.mean, index.deviation, index.documents) == ((), (), {"train": 1})
    assert latents.read_index(folder / latents.INDEX_FILE, FINGERPRINT) == index


def test_constant_channel_does_not_divide_by_zero(folder):
    write_shards(
        folder, "train", [Document((EncodedImage(np.full((2, 2, 1), 0.1, np.float32)),))] * 3
    )
    index = latents.write_index(folder, FINGERPRINT, {"train": 3})
    assert 0 < index.deviation[0] < 1e-3


def truncate(shard):
    shard.path.write_bytes(shard.path.read_bytes()[:-1])


CORRUPTIONS = {
    "cut short": truncate,
    "missing": lambda shard: shard.path.unlink(),
    "not told": lambda shard: shard.manifest.unlink(),
    "told in part": lambda shard: shard.manifest.write_text(shard.manifest.read_text()[:20]),
    "told in nothing": lambda shard: shard.manifest.write_text(""),
}


@pytest.mark.parametrize("how", CORRUPTIONS)
@pytest.mark.usefixtures("small_shards")
def test_incomplete_shard_is_reported_and_rewritten(folder, how):
    expected = documents(9)
    write_shards(folder, "train", expected)
    index = latents.write_index(folder, FINGERPRINT, {"train": 9})
    shards = latents.list_shards(folder, "train", 9)
    before = shards[1].path.read_bytes()
    CORRUPTIONS[how](shards[1])
    assert [shard.is_complete for shard in shards] == [True, False, True]
    assert not latents.all_complete(folder, index)
    with pytest.raises(UserError, match=r"train-00001-of-00003\.array_record is missing or trunc"):
        latents.open_split(folder, "train", 9)
    shards[1].write(expected[4:8])
    assert shards[1].path.read_bytes() == before
    assert latents.all_complete(folder, index)


def test_interrupted_shard_is_incomplete(folder):
    (shard,) = latents.list_shards(folder, "train", 3)
    shard.write(documents(3))
    expected = shard.path.read_bytes()

    def yield_then_interrupt():
        yield from documents(2)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        shard.write(yield_then_interrupt())
    assert not shard.is_complete
    # A temporary file that is longer than the new shard is overwritten completely.
    shard.path.with_suffix(".draft").write_bytes(b"half a shard" * 100_000)
    shard.write(documents(3))
    assert shard.is_complete
    assert shard.path.read_bytes() == expected
    assert {path.suffix for path in folder.iterdir()} == {".array_record", ".json"}


def test_latents_of_another_codec_are_refused(folder):
    write_shards(folder, "train", documents(3))
    latents.write_index(folder, FINGERPRINT, {"train": 3})
    with pytest.raises(UserError) as error:
        latents.read_index(folder / latents.INDEX_FILE, "fedcba9876543210")
    for message in (
        str(folder / latents.INDEX_FILE),
        FINGERPRINT,
        "fedcba9876543210",
        "codec.path",
    ):
        assert message in str(error.value)


@pytest.mark.parametrize(
    "text", ["", "{", "[]", "3", "null", '{"fingerprint": "0123456789abcdef"}', "\xff"]
)
def test_invalid_index_is_reported(folder, text):
    folder.mkdir()
    path = folder / latents.INDEX_FILE
    path.write_bytes(text.encode("latin-1"))
    with pytest.raises(UserError, match=r"latents\.json is not an index of latents"):
        latents.read_index(path, FINGERPRINT)


@pytest.mark.parametrize("part", [Gap("image"), Image(np.zeros((2, 2, 3), np.uint8))])
def test_only_encoded_images_are_stored(folder, part):
    (shard,) = latents.list_shards(folder, "train", 1)
    with pytest.raises(TypeError, match=f"encoded images can be stored, not {type(part).__name__}"):
        shard.write([Document((part,))])
    assert not shard.is_complete


@pytest.mark.usefixtures("small_shards")
@pytest.mark.parametrize("where", ["documents", "list"])
def test_damaged_shard_is_named(folder, where):
    """Overwrite bytes without changing the file size, so that only reading shows the damage."""
    write_shards(folder, "train", documents(12))
    shard = latents.list_shards(folder, "train", 12)[1]
    content = bytearray(shard.path.read_bytes())
    # An array_record file has the documents first. In a file this small, the list of their
    # positions starts at the middle.
    first = {"documents": 200, "list": len(content) // 2}[where]
    content[first : first + 200] = bytes(200)
    shard.path.write_bytes(bytes(content))
    with pytest.raises(UserError, match=rf"{shard.path.name} is damaged\. Delete the file"):
        list(latents.open_split(folder, "train", 12))


def test_threads_read_documents_at_the_same_time(monkeypatch):
    """Check the lock: without it, CPython 3.11 raises SystemError in most runs of this test."""
    record = latents._to_record(Document((EncodedImage(np.zeros((2, 2, 4), np.float32)),)))
    errors = []

    def read():
        for _ in range(200):
            try:
                latents._to_document(record)
            except SystemError as error:
                errors.append(error)

    thresholds, interval = gc.get_threshold(), sys.getswitchinterval()
    gc.set_threshold(1)  # Garbage collection inside the parser lets other threads run there.
    sys.setswitchinterval(1e-6)
    try:
        threads = [threading.Thread(target=read) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    finally:
        gc.set_threshold(*thresholds)
        sys.setswitchinterval(interval)
    assert not errors
