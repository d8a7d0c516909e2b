import contextlib
import logging
import os
import signal
import socket
import subprocess
import sys
import threading
import time

import jax
import numpy as np
import pytest
from etils import epath

from oneflow_jax.data import encode_latents, latents
from oneflow_jax.data.document import Document, EncodedImage, Image, Text
from oneflow_jax.data.encode_latents import CachingEncoder, LatentDataset
from oneflow_jax.errors import UserError
from oneflow_jax.runtime import distributed
from tests import runs
from tests.codecs.autoencoder import small_models

PIXELS = 8
POOL = small_models.random_images(12, PIXELS, PIXELS)
"""Images from which `documents` draws, so that many of them occur several times."""

SHARD = 8
COUNTS = {"train": 44, "heldout": 10}
OF_TRAIN = 6
"""Number of shards of the first split; the other split has two."""


@pytest.fixture(autouse=True)
def small_shards(monkeypatch):
    monkeypatch.setattr(latents, "SHARD_SIZE", SHARD)
    monkeypatch.setattr(encode_latents, "BATCH", 3)


class Means:
    """A stub of an autoencoder that averages pixels and records its inputs.

    As with a real autoencoder, the last bits of latents depend on the batch size.
    """

    fingerprint = "00means00"

    def __init__(self, last_bits=True, seconds=0.0):
        self.calls, self._last_bits, self._seconds = [], last_bits, seconds

    def encode(self, images):
        self.calls.append([picture.tobytes() for picture in images])
        time.sleep(self._seconds)
        n, height, width, _ = images.shape
        blocks = images.astype(np.float32).reshape(n, height // 2, 2, width // 2, 2, 3)
        return blocks.mean((2, 4)) / 127.5 - 1 + (n * 1e-6 if self._last_bits else 0)

    def encoded_images(self):
        return [picture for call in self.calls for picture in call]


def documents(split):
    """Yield documents of 0 to 3 images of `POOL`, drawn with an RNG seed for each split."""
    draws = np.random.default_rng(list(split.encode()))
    for n in range(COUNTS[split]):
        images = [Image(POOL[draws.integers(len(POOL))]) for _ in range(n % 4)]
        yield Document((Text(f"{split} {n}"), *images))


def make_preparation(folder, autoencoder, pixels=PIXELS):
    splits = {split: lambda split=split: list(documents(split)) for split in COUNTS}
    return LatentDataset(epath.Path(folder), autoencoder, splits, pixels)


def files(folder):
    return {path.name: path.read_bytes() for path in epath.Path(folder).iterdir()}


def images_of_shard(split, shard):
    shard_documents = list(documents(split))[SHARD * shard : SHARD * (shard + 1)]
    return [picture.tobytes() for document in shard_documents for picture in document.images()]


@pytest.fixture
def uninterrupted_files(tmp_path):
    """Return the files of an uninterrupted preparation."""
    folder = tmp_path / "undisturbed"
    make_preparation(folder, Means()).build_index()
    return files(folder)


def shard(folder, split, number):
    return latents.list_shards(epath.Path(folder), split, COUNTS[split])[number]


def test_every_document_has_its_latents(tmp_path):
    autoencoder = Means(last_bits=False)
    prepared = make_preparation(tmp_path, autoencoder)
    assert prepared.build_index().documents == COUNTS
    for split in COUNTS:
        for actual, expected in zip(prepared.open_split(split), documents(split), strict=True):
            assert actual.text() == expected.text()
            assert [type(part) for part in actual.parts[1:]] == [EncodedImage] * len(
                expected.images()
            )
            for part, picture in zip(actual.parts[1:], expected.images(), strict=True):
                (latent,) = Means(last_bits=False).encode(picture[None])
                np.testing.assert_array_equal(part.latents, latent)


def test_second_preparation_encodes_nothing(tmp_path, caplog):
    first = make_preparation(tmp_path, Means()).build_index()
    before = {path: path.stat().mtime for path in epath.Path(tmp_path).iterdir()}
    again, autoencoder = caplog, Means()
    again.set_level(logging.INFO)
    again.clear()
    assert make_preparation(tmp_path, autoencoder).build_index() == first
    assert autoencoder.calls == []
    assert {path: path.stat().mtime for path in epath.Path(tmp_path).iterdir()} == before
    assert not again.messages


def test_interrupted_preparation_is_completed(tmp_path, uninterrupted_files):
    """Remove some files: one shard is a draft, one has no manifest, one is missing.

    The index is missing too. Only the images of these shards are encoded again.
    """
    folder = tmp_path / "killed"
    make_preparation(folder, Means()).build_index()
    (folder / latents.INDEX_FILE).unlink()
    half = shard(folder, "train", 2)
    half.path.rename(half.path.with_suffix(".draft"))
    half.manifest.unlink()
    half.path.with_suffix(".draft").write_bytes(uninterrupted_files[half.path.name][:700])
    shard(folder, "train", 4).manifest.unlink()
    shard(folder, "heldout", 1).path.unlink()
    autoencoder = Means()
    make_preparation(folder, autoencoder).build_index()
    missing = (("train", 2), ("train", 4), ("heldout", 1))
    assert set(autoencoder.encoded_images()) == {
        x for which in missing for x in images_of_shard(*which)
    }
    assert len(autoencoder.encoded_images()) == sum(
        len(set(images_of_shard(*which))) for which in missing
    )
    assert files(folder) == uninterrupted_files


SLOWLY = """
import sys
from oneflow_jax.data import encode_latents, latents
from tests.data import test_encode_latents as tests
latents.SHARD_SIZE, encode_latents.BATCH = tests.SHARD, 3
tests.make_preparation(sys.argv[1], tests.Means(seconds=0.05)).build_index()
"""


def test_killed_process_leaves_complete_shards(tmp_path, uninterrupted_files):
    folder = tmp_path / "killed"
    process = subprocess.Popen([sys.executable, "-c", SLOWLY, folder], cwd=runs.REPOSITORY)
    deadline = time.monotonic() + 60
    # Wait until the third shard is being written.
    while not (len(list(folder.glob("*.json"))) >= 2 and list(folder.glob("*.draft"))):
        assert process.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.005)
    os.kill(process.pid, signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    left = [n for n in range(OF_TRAIN) if not shard(folder, "train", n).is_complete]
    assert 0 < len(left) <= OF_TRAIN - 2
    assert not (folder / latents.INDEX_FILE).exists()
    autoencoder = Means()
    make_preparation(folder, autoencoder).build_index()
    expected = {picture for n in left for picture in images_of_shard("train", n)}
    expected |= {picture for n in (0, 1) for picture in images_of_shard("heldout", n)}
    assert set(autoencoder.encoded_images()) == expected
    assert files(folder) == uninterrupted_files


def test_truncated_shard_is_encoded_again_with_a_warning(tmp_path, uninterrupted_files, caplog):
    folder = tmp_path / "cut"
    make_preparation(folder, Means()).build_index()
    cut = shard(folder, "train", 3)
    cut.path.write_bytes(cut.path.read_bytes()[:-5])
    with pytest.raises(UserError, match=cut.path.name):
        latents.open_split(epath.Path(folder), "train", COUNTS["train"])
    autoencoder = Means()
    with caplog.at_level(logging.INFO):
        assert len(make_preparation(folder, autoencoder).open_split("train")) == COUNTS["train"]
    message = (
        f"Latents in {folder} are missing or truncated. The program encodes these latents again."
    )
    assert message in caplog.messages
    assert sorted(autoencoder.encoded_images()) == sorted(set(images_of_shard("train", 3)))
    assert files(folder) == uninterrupted_files


def test_latents_of_another_codec_are_refused(tmp_path):
    make_preparation(tmp_path, Means()).build_index()
    other_autoencoder = Means()
    other_autoencoder.fingerprint = "11other11"
    before = files(tmp_path)
    with pytest.raises(UserError, match=r"00means00.*11other11"):
        make_preparation(tmp_path, other_autoencoder).build_index()
    assert other_autoencoder.calls == []
    assert files(tmp_path) == before


class Pod:
    """Two simulated JAX processes, run as threads of this process."""

    def __init__(self, monkeypatch):
        self._where = threading.local()
        self._barrier = threading.Barrier(2, timeout=20)
        self.wrote = ([], [])
        self.indexed = []
        self._gathered = [{}, {}]
        write, write_index = latents.Shard.write, latents.write_index

        def write_slowly(one, documents):
            self.wrote[jax.process_index()].append(one.path.name)
            time.sleep(0.2 * jax.process_index())  # Process 1 is slower.
            write(one, documents)

        def write_index_slowly(*arguments):
            self.indexed.append(jax.process_index())
            time.sleep(0.3)  # Without a barrier, process 0 would not wait for process 1.
            return write_index(*arguments)

        monkeypatch.setattr(jax, "process_count", lambda: 2)
        monkeypatch.setattr(jax.distributed, "is_initialized", lambda: True)
        monkeypatch.setattr(jax, "process_index", lambda: getattr(self._where, "index", 0))
        monkeypatch.setattr(distributed, "barrier", lambda: self._barrier.wait())
        monkeypatch.setattr(distributed, "all_gather_json", self._gather)
        monkeypatch.setattr(latents.Shard, "write", write_slowly)
        monkeypatch.setattr(latents, "write_index", write_index_slowly)

    def _gather(self, values):
        self._gathered[jax.process_index()] = values
        self._barrier.wait()
        merged = self._gathered[0] | self._gathered[1]
        self._barrier.wait()  # Both processes have read the values before one writes new values.
        return merged

    def run(self, call):
        """Return the result of `call` in each process."""
        results = [None, None]

        def process(index):
            self._where.index = index
            # If one process fails, the other waits at the barrier until its timeout, which raises
            # this error.
            with contextlib.suppress(threading.BrokenBarrierError):
                results[index] = call(index)

        threads = [threading.Thread(target=process, args=(index,)) for index in (0, 1)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        return results


def test_two_processes_share_the_shards(tmp_path, uninterrupted_files, monkeypatch):
    pod, folder = Pod(monkeypatch), tmp_path / "pod"
    encoders = [Means(), Means()]
    indexes = pod.run(lambda index: make_preparation(folder, encoders[index]).build_index())
    monkeypatch.undo()
    assert indexes[0] == indexes[1] is not None
    wrote = [set(names) for names in pod.wrote]
    assert not wrote[0] & wrote[1]
    assert wrote[0] | wrote[1] == {
        name for name in uninterrupted_files if name.endswith(".array_record")
    }
    assert sorted(map(len, wrote)) == [4, 4]
    assert pod.indexed == [0]
    # The files depend neither on the number of processes nor on which process wrote a shard.
    assert files(folder) == uninterrupted_files


def test_all_processes_of_a_pod_see_the_same_missing_shards(
    tmp_path, uninterrupted_files, monkeypatch
):
    """Check that a late process does not see files that another one has just written.

    Otherwise the processes would disagree about which shards are missing.
    """
    folder = tmp_path / "pod"
    make_preparation(folder, Means()).build_index()
    shard(folder, "train", 0).manifest.unlink()
    pod, whole = Pod(monkeypatch), latents.all_complete

    def all_complete_late(*arguments):
        time.sleep(0.5 * jax.process_index())
        return whole(*arguments)

    monkeypatch.setattr(latents, "all_complete", all_complete_late)
    monkeypatch.setattr(pod, "_barrier", threading.Barrier(2, timeout=3))
    indexes = pod.run(lambda index: make_preparation(folder, Means()).build_index())
    assert indexes[0] == indexes[1] is not None
    assert pod.wrote == ([shard(folder, "train", 0).path.name], [])
    assert files(folder) == uninterrupted_files


def test_image_is_encoded_once_per_shard(tmp_path):
    autoencoder = Means()
    make_preparation(tmp_path, autoencoder).build_index()
    shards = [("train", n) for n in range(OF_TRAIN)] + [("heldout", n) for n in (0, 1)]
    assert len(autoencoder.encoded_images()) == sum(
        len(set(images_of_shard(*which))) for which in shards
    )
    num_images = sum(len(images_of_shard(*which)) for which in shards)
    assert len(autoencoder.encoded_images()) < 0.8 * num_images


@pytest.mark.parametrize("remembered", [1, 7])
def test_cache_is_bounded_and_does_not_change_results(monkeypatch, remembered):
    train_documents = list(documents("train"))
    groups = [train_documents[n : n + 3] for n in range(0, len(train_documents), 3)]

    def encode_in_groups(encoder):
        sizes, results = [], []
        for group in groups:
            results += encoder(group)
            sizes.append(len(encoder._cache))
        return results, max(sizes)

    unbounded = Means(last_bits=False)
    expected, most = encode_in_groups(CachingEncoder(unbounded, PIXELS))
    assert most == len(POOL) == len(unbounded.encoded_images())
    monkeypatch.setattr(encode_latents, "CACHE_SIZE", remembered)
    bounded = Means(last_bits=False)
    actual, most = encode_in_groups(CachingEncoder(bounded, PIXELS))
    # The cache holds at least the images of a group: three documents have at most six images.
    assert most <= max(remembered, 6)
    assert len(bounded.encoded_images()) > len(POOL)
    for actual_document, expected_document in zip(actual, expected, strict=True):
        assert actual_document.text() == expected_document.text()
        for part, same in zip(actual_document.parts[1:], expected_document.parts[1:], strict=True):
            np.testing.assert_array_equal(part.latents, same.latents)


def test_wrong_image_size_is_reported_and_leaves_no_complete_shard(tmp_path):
    preparation = make_preparation(tmp_path, Means(), pixels=16)
    with pytest.raises(UserError, match=r"codec\.pixels=16.*\(8, 8, 3\).*\(16, 16, 3\)"):
        preparation.build_index()
    assert not (tmp_path / latents.INDEX_FILE).exists()
    assert not shard(tmp_path, "train", 0).is_complete


def free_port():
    with socket.socket() as socket_:
        socket_.bind(("localhost", 0))
        return socket_.getsockname()[1]


def test_two_real_processes_write_the_files_of_one(tmp_path):
    """Run two processes with jax.distributed: they write the same files as a single process."""

    def run_processes(count, folder):
        port = free_port()
        command = [sys.executable, "-m", "tests.data.encode_latents_process"]
        options = {"cwd": runs.REPOSITORY, "text": True, "stdout": subprocess.PIPE}
        processes = [
            subprocess.Popen([*command, str(n), str(count), str(port), str(folder)], **options)
            for n in range(count)
        ]
        outputs = [process.communicate(timeout=240)[0].splitlines() for process in processes]
        assert [process.returncode for process in processes] == [0] * count
        # Messages of the collectives come before the last line.
        return [lines[-1].split() for lines in outputs]

    (alone,) = run_processes(1, tmp_path / "one")
    together = run_processes(2, tmp_path / "two")
    assert [words[:2] for words in together] == [["0", "2"], ["1", "2"]]
    assert all(words[2:] == alone[2:] for words in together)
    files = sorted(path.name for path in (tmp_path / "one").iterdir())
    assert files == sorted(path.name for path in (tmp_path / "two").iterdir())
    assert len([name for name in files if name.endswith(".array_record")]) == 5 + 2
    for name in files:
        assert (tmp_path / "one" / name).read_bytes() == (tmp_path / "two" / name).read_bytes()


def test_images_of_several_shapes_are_encoded_each_in_its_own_shape():
    """Images of one color and of different shapes may have the same bytes."""
    sizes = ((8, 8), (4, 12), (12, 4))
    images = [Image(np.full((*size, 3), 7, np.uint8)) for size in (*sizes, sizes[1])]
    encoder = CachingEncoder(Means(), PIXELS, crop_sizes=sizes)
    (document,) = encoder([Document(tuple(images))])
    shapes = [part.latents.shape for part in document.parts]
    assert shapes == [(4, 4, 3), (2, 6, 3), (6, 2, 3), (2, 6, 3)]
    assert len({part.image_hash for part in document.parts}) == 3
    wrong = Document((Image(np.zeros((8, 12, 3), np.uint8)),))
    with pytest.raises(
        UserError, match=r"shape \(8, 12, 3\) instead of \(8, 8, 3\) or \(4, 12, 3\)"
    ):
        next(encoder([wrong]))
