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
"""All pictures there are: many come again."""

SHARD = 8
COUNTS = {"train": 44, "heldout": 10}
OF_TRAIN = 6
"""Shards of the first split; the other has two."""


@pytest.fixture(autouse=True)
def small_shards(monkeypatch):
    monkeypatch.setattr(latents, "SHARD_SIZE", SHARD)
    monkeypatch.setattr(encode_latents, "BATCH", 3)


class Means:
    """Stands in for an autoencoder, and knows what it was shown.

    As with a real one, the last bits of a picture's latents depend on what goes with it.
    """

    fingerprint = "00means00"

    def __init__(self, last_bits=True, seconds=0.0):
        self.calls, self._last_bits, self._seconds = [], last_bits, seconds

    def encode(self, pictures):
        self.calls.append([picture.tobytes() for picture in pictures])
        time.sleep(self._seconds)
        n, height, width, _ = pictures.shape
        blocks = pictures.astype(np.float32).reshape(n, height // 2, 2, width // 2, 2, 3)
        return blocks.mean((2, 4)) / 127.5 - 1 + (n * 1e-6 if self._last_bits else 0)

    def seen(self):
        return [picture for call in self.calls for picture in call]


def documents(split):
    """Of one picture, several, or none, in an order that is the split's own."""
    draws = np.random.default_rng(list(split.encode()))
    for n in range(COUNTS[split]):
        shown = [Image(POOL[draws.integers(len(POOL))]) for _ in range(n % 4)]
        yield Document((Text(f"{split} {n}"), *shown))


def made_of(folder, autoencoder, pixels=PIXELS):
    splits = {split: lambda split=split: list(documents(split)) for split in COUNTS}
    return LatentDataset(epath.Path(folder), autoencoder, splits, pixels)


def files(folder):
    return {path.name: path.read_bytes() for path in epath.Path(folder).iterdir()}


def pictures_of(split, shard):
    some = list(documents(split))[SHARD * shard : SHARD * (shard + 1)]
    return [picture.tobytes() for document in some for picture in document.pictures()]


@pytest.fixture
def undisturbed(tmp_path):
    """The files of a preparation that nothing happened to."""
    folder = tmp_path / "undisturbed"
    made_of(folder, Means()).index()
    return files(folder)


def shard(folder, split, number):
    return latents.list_shards(epath.Path(folder), split, COUNTS[split])[number]


def test_every_document_is_there_with_its_latents(tmp_path):
    autoencoder = Means(last_bits=False)
    made = made_of(tmp_path, autoencoder)
    assert made.index().documents == COUNTS
    for split in COUNTS:
        for found, wanted in zip(made.opened(split), documents(split), strict=True):
            assert found.words() == wanted.words()
            assert [type(part) for part in found.parts[1:]] == [EncodedImage] * len(
                wanted.pictures()
            )
            for part, picture in zip(found.parts[1:], wanted.pictures(), strict=True):
                (latent,) = Means(last_bits=False).encode(picture[None])
                np.testing.assert_array_equal(part.latents, latent)


def test_the_second_time_there_is_nothing_to_do(tmp_path, caplog):
    first = made_of(tmp_path, Means()).index()
    before = {path: path.stat().mtime for path in epath.Path(tmp_path).iterdir()}
    again, autoencoder = caplog, Means()
    again.set_level(logging.INFO)
    again.clear()
    assert made_of(tmp_path, autoencoder).index() == first
    assert autoencoder.calls == []
    assert {path: path.stat().mtime for path in epath.Path(tmp_path).iterdir()} == before
    assert not again.messages


def test_what_was_killed_is_gone_on_with(tmp_path, undisturbed):
    """Some shards are whole, one is half written, one is not told, and there is no index."""
    folder = tmp_path / "killed"
    made_of(folder, Means()).index()
    (folder / latents.INDEX_FILE).unlink()
    half = shard(folder, "train", 2)
    half.path.rename(half.path.with_suffix(".draft"))
    half.told.unlink()
    half.path.with_suffix(".draft").write_bytes(undisturbed[half.path.name][:700])
    shard(folder, "train", 4).told.unlink()
    shard(folder, "heldout", 1).path.unlink()
    autoencoder = Means()
    made_of(folder, autoencoder).index()
    missing = (("train", 2), ("train", 4), ("heldout", 1))
    assert set(autoencoder.seen()) == {x for which in missing for x in pictures_of(*which)}
    assert len(autoencoder.seen()) == sum(len(set(pictures_of(*which))) for which in missing)
    assert files(folder) == undisturbed


SLOWLY = """
import sys
from oneflow_jax.data import encode_latents, latents
from tests.data import test_encode_latents as tests
latents.SHARD_SIZE, encode_latents.BATCH = tests.SHARD, 3
tests.made_of(sys.argv[1], tests.Means(seconds=0.05)).index()
"""


def test_a_process_that_is_killed_leaves_what_is_whole(tmp_path, undisturbed):
    folder = tmp_path / "killed"
    process = subprocess.Popen([sys.executable, "-c", SLOWLY, folder], cwd=runs.REPOSITORY)
    deadline = time.monotonic() + 60
    # The third shard has been begun.
    while not (len(list(folder.glob("*.json"))) >= 2 and list(folder.glob("*.draft"))):
        assert process.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.005)
    os.kill(process.pid, signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    left = [n for n in range(OF_TRAIN) if not shard(folder, "train", n).whole]
    assert 0 < len(left) <= OF_TRAIN - 2
    assert not (folder / latents.INDEX_FILE).exists()
    autoencoder = Means()
    made_of(folder, autoencoder).index()
    wanted = {picture for n in left for picture in pictures_of("train", n)}
    wanted |= {picture for n in (0, 1) for picture in pictures_of("heldout", n)}
    assert set(autoencoder.seen()) == wanted
    assert files(folder) == undisturbed


def test_a_shard_that_was_cut_short_is_made_anew_with_a_word(tmp_path, undisturbed, caplog):
    folder = tmp_path / "cut"
    made_of(folder, Means()).index()
    cut = shard(folder, "train", 3)
    cut.path.write_bytes(cut.path.read_bytes()[:-5])
    with pytest.raises(UserError, match=cut.path.name):
        latents.open_split(epath.Path(folder), "train", COUNTS["train"])
    autoencoder = Means()
    with caplog.at_level(logging.INFO):
        assert len(made_of(folder, autoencoder).opened("train")) == COUNTS["train"]
    assert f"Latents in {folder} are missing or cut short: making them anew." in caplog.messages
    assert sorted(autoencoder.seen()) == sorted(set(pictures_of("train", 3)))
    assert files(folder) == undisturbed


def test_latents_of_another_codec_are_refused(tmp_path):
    made_of(tmp_path, Means()).index()
    other = Means()
    other.fingerprint = "11other11"
    before = files(tmp_path)
    with pytest.raises(UserError, match=r"00means00.*11other11"):
        made_of(tmp_path, other).index()
    assert other.calls == []
    assert files(tmp_path) == before


class Pod:
    """Two processes of JAX that are threads of this one."""

    def __init__(self, monkeypatch):
        self._where = threading.local()
        self._barrier = threading.Barrier(2, timeout=20)
        self.wrote = ([], [])
        self.indexed = []
        write, write_index = latents.Shard.write, latents.write_index

        def written(one, documents):
            self.wrote[jax.process_index()].append(one.path.name)
            time.sleep(0.2 * jax.process_index())  # The second is slower ...
            write(one, documents)

        def index_written(*arguments):
            self.indexed.append(jax.process_index())
            time.sleep(0.3)  # ... and does not wait for the first without being told to.
            return write_index(*arguments)

        monkeypatch.setattr(jax, "process_count", lambda: 2)
        monkeypatch.setattr(jax.distributed, "is_initialized", lambda: True)
        monkeypatch.setattr(jax, "process_index", lambda: getattr(self._where, "index", 0))
        monkeypatch.setattr(distributed, "barrier", lambda: self._barrier.wait())
        monkeypatch.setattr(latents.Shard, "write", written)
        monkeypatch.setattr(latents, "write_index", index_written)

    def run(self, call):
        """What each process's `call` returns."""
        results = [None, None]

        def process(index):
            self._where.index = index
            # A process that fails leaves the other waiting, as in a pod.
            with contextlib.suppress(threading.BrokenBarrierError):
                results[index] = call(index)

        threads = [threading.Thread(target=process, args=(index,)) for index in (0, 1)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        return results


def test_two_processes_share_the_shards(tmp_path, undisturbed, monkeypatch):
    pod, folder = Pod(monkeypatch), tmp_path / "pod"
    seen = [Means(), Means()]
    indexes = pod.run(lambda index: made_of(folder, seen[index]).index())
    monkeypatch.undo()
    assert indexes[0] == indexes[1] is not None
    wrote = [set(names) for names in pod.wrote]
    assert not wrote[0] & wrote[1]
    assert wrote[0] | wrote[1] == {name for name in undisturbed if name.endswith(".array_record")}
    assert sorted(map(len, wrote)) == [4, 4]
    assert pod.indexed == [0]
    # Neither the number of processes nor which one made a shard can be told from the files.
    assert files(folder) == undisturbed


def test_all_processes_of_a_pod_see_what_is_missing(tmp_path, undisturbed, monkeypatch):
    """One that looks late must not find that another has been at work, and go its own way."""
    folder = tmp_path / "pod"
    made_of(folder, Means()).index()
    shard(folder, "train", 0).told.unlink()
    pod, whole = Pod(monkeypatch), latents.all_complete

    def late(*arguments):
        time.sleep(0.5 * jax.process_index())
        return whole(*arguments)

    monkeypatch.setattr(latents, "all_complete", late)
    monkeypatch.setattr(pod, "_barrier", threading.Barrier(2, timeout=3))
    indexes = pod.run(lambda index: made_of(folder, Means()).index())
    assert indexes[0] == indexes[1] is not None
    assert pod.wrote == ([shard(folder, "train", 0).path.name], [])
    assert files(folder) == undisturbed


def test_a_picture_is_encoded_once_in_a_shard(tmp_path):
    autoencoder = Means()
    made_of(tmp_path, autoencoder).index()
    shards = [("train", n) for n in range(OF_TRAIN)] + [("heldout", n) for n in (0, 1)]
    assert len(autoencoder.seen()) == sum(len(set(pictures_of(*which))) for which in shards)
    shown = sum(len(pictures_of(*which)) for which in shards)
    assert len(autoencoder.seen()) < 0.8 * shown


@pytest.mark.parametrize("remembered", [1, 7])
def test_memory_is_bounded_and_changes_nothing(monkeypatch, remembered):
    some = list(documents("train"))
    groups = [some[n : n + 3] for n in range(0, len(some), 3)]

    def encoded(encoder):
        sizes, found = [], []
        for group in groups:
            found += encoder(group)
            sizes.append(len(encoder._known))
        return found, max(sizes)

    unbounded = Means(last_bits=False)
    wanted, most = encoded(CachingEncoder(unbounded, PIXELS))
    assert most == len(POOL) == len(unbounded.seen())
    monkeypatch.setattr(encode_latents, "CACHE_SIZE", remembered)
    bounded = Means(last_bits=False)
    found, most = encoded(CachingEncoder(bounded, PIXELS))
    assert most <= max(remembered, 6)  # Three documents have six pictures at most.
    assert len(bounded.seen()) > len(POOL)
    for one, other in zip(found, wanted, strict=True):
        assert one.words() == other.words()
        for part, same in zip(one.parts[1:], other.parts[1:], strict=True):
            np.testing.assert_array_equal(part.latents, same.latents)


def test_a_picture_of_another_size_is_told_and_leaves_nothing_that_looks_whole(tmp_path):
    made = made_of(tmp_path, Means(), pixels=16)
    with pytest.raises(UserError, match=r"\(8, 8, 3\).*codec\.pixels=16.*\(16, 16, 3\)"):
        made.index()
    assert not (tmp_path / latents.INDEX_FILE).exists()
    assert not shard(tmp_path, "train", 0).whole


def free_port():
    with socket.socket() as socket_:
        socket_.bind(("localhost", 0))
        return socket_.getsockname()[1]


def test_two_real_processes_make_what_one_makes(tmp_path):
    """jax.distributed on this machine: the same files, each written by one of them."""

    def encoded(count, folder):
        port = free_port()
        command = [sys.executable, "-m", "tests.data.encode_latents_process"]
        given = {"cwd": runs.REPOSITORY, "text": True, "stdout": subprocess.PIPE}
        processes = [
            subprocess.Popen([*command, str(n), str(count), str(port), str(folder)], **given)
            for n in range(count)
        ]
        said = [process.communicate(timeout=240)[0].splitlines() for process in processes]
        assert [process.returncode for process in processes] == [0] * count
        return [lines[-1].split() for lines in said]  # after what the collectives say

    (alone,) = encoded(1, tmp_path / "one")
    together = encoded(2, tmp_path / "two")
    assert [words[:2] for words in together] == [["0", "2"], ["1", "2"]]
    assert all(words[2:] == alone[2:] for words in together)
    files = sorted(path.name for path in (tmp_path / "one").iterdir())
    assert files == sorted(path.name for path in (tmp_path / "two").iterdir())
    assert len([name for name in files if name.endswith(".array_record")]) == 5 + 2
    for name in files:
        assert (tmp_path / "one" / name).read_bytes() == (tmp_path / "two" / name).read_bytes()
