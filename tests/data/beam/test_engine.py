"""Tests that Apache Beam prepares the same documents as the local engine."""

import collections
import itertools
import json
import os
import pathlib
import signal
import subprocess
import sys
import time

import numpy as np
import pytest

from oneflow_jax.data import overflow, vocab
from oneflow_jax.data.beam import engine
from oneflow_jax.data.custom import jsonl, manifest, prepare, sample, shard, store, worker_pool
from oneflow_jax.errors import UserError
from tests import runs, tiny
from tests.data.beam import needs_beam
from tests.data.custom import changing_source, examples
from tests.data.custom.test_worker_pool import COMMAND, repository_environment  # noqa: F401 - used

pytestmark = needs_beam

SHARD_BYTES = 4_000  # so that a few hundred small documents have several shards


def make_engine(**changes):
    values = {"runner": "DirectRunner", "shard_bytes": SHARD_BYTES, "command": COMMAND} | changes
    return engine.BeamEngine(**values)


def write_faulty_lines(folder, count=60):
    """Write JSON lines of several layouts with all kinds of defects, and with duplicates."""
    examples.write_files(folder, {"red.png": examples.png(), "broken.png": examples.png()[:40]})
    values = [{"image": "red.png", "caption": f"a red image {n % 40}"} for n in range(count)]
    values += [{"text": f"only words {n}"} for n in range(count)]
    values += [{"document": [{"text": f"before {n}"}, {"image": "red.png"}]} for n in range(9)]
    values += [
        {"image": "red.png", "caption": "deadly"},
        {"image": "red.png", "caption": "endless"},
        {"image": "gone.png", "caption": "a missing image"},
        {"image": "broken.png", "caption": "a broken image"},
        {"image": "../red.png", "caption": "outside"},
        {"image": "https://example.com/red.png", "caption": "an address"},
        {"text": "bell \a and \ud800 half"},
        {"text": " "},
        {"text": " ".join(f"word{n}" for n in range(45_000))},
        {"weight": 3},
        [],
    ]
    lines = [json.dumps(value) for value in values]
    lines[5:5] = ["{", '{"image": "red.png", "caption": "a red image 3", "id": 7}']
    parts = {"a.jsonl": lines[:50], "b.jsonl": lines[50:]}
    examples.write_files(folder, {name: "\n".join(part) for name, part in parts.items()})
    return folder


def read_documents(folder):
    """Count the documents of each split by their bytes."""
    return {
        split: collections.Counter(prepare.open_folder(folder, split).files[:])
        for split in manifest.SPLITS
    }


def describe_stats(folder):
    """Return all statistics; the first duplicates that are named depend on the engine."""
    values = store.open_prepared(folder).stats.to_dict()
    values["places"].pop("duplicate", None)
    return values


def train_tokenizer(folder, count):
    source = prepare.open_folder(folder, "train")
    indices = sample.choose_documents(store.open_prepared(folder).plan, source.files, count)
    return vocab.train_sentencepiece((source.outline(n).text() for n in indices), 300, 1.0).model


def prepare_by_both(settings, root, **changes):
    local = prepare.prepare(settings, str(root / "local"), 2, COMMAND)
    return local, prepare.prepare(settings, str(root / "beam"), 1, engine=make_engine(**changes))


class PoolInThisProcess:
    """Replaces `worker_pool.WorkerPool`: prepares units here, which starts no process."""

    def __init__(self, plan, *values):
        self._plan = plan

    def __enter__(self):
        return self

    def __exit__(self, *raised):
        pass

    def run(self, numbers):
        for number in numbers:
            shard.write_shard(self._plan, number, {}, (-1, ""), lambda *values: None)
            yield number


@pytest.fixture
def in_this_process(monkeypatch):
    monkeypatch.setattr(worker_pool, "WorkerPool", PoolInThisProcess)


@pytest.fixture(scope="module")
def faulty(tmp_path_factory):
    """Return the folders of both engines for `write_faulty_lines`, without and with copies."""
    root = tmp_path_factory.mktemp("faulty")
    own = write_faulty_lines(root / "own")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", str(runs.REPOSITORY))
        patch.setenv("ONCE", str(root / "once"))
        patch.setattr(jsonl, "MAX_UNIT_BYTES", 1000)
        settings = examples.settings(own, read_timeout=4.0, deduplicate=True)
        return prepare_by_both(settings, root, num_workers=2)


def test_both_engines_give_the_same_documents_and_statistics(faulty):
    local, beam = faulty
    assert store.open_prepared(beam).plan.num_shards > 3
    assert read_documents(local) == read_documents(beam)
    assert describe_stats(local) == describe_stats(beam)
    stats = store.open_prepared(beam).stats
    assert stats.dropped["the reader died"] == stats.dropped["the reader hung"] == 1
    assert stats.dropped["malformed line"] == 1
    assert stats.dropped["no picture left"] == 3
    assert stats.documents["heldout"] > 0
    assert stats.repaired["cut into sections"] > 0


def test_both_engines_drop_the_same_duplicates(faulty):
    counts = sum(read_documents(faulty[1]).values(), collections.Counter())
    assert set(counts.values()) == {1}
    for folder in faulty:
        stats = store.open_prepared(folder).stats
        assert stats.dropped["duplicate"] == 21
        assert len(stats.places["duplicate"]) == 5
        added = 4  # One text is cut into five sections.
        assert stats.seen + added == stats.documents.total() + stats.dropped.total()


@pytest.mark.parametrize("count", [30, 1000])
def test_both_engines_give_the_same_tokenizer(faulty, count):
    local, beam = faulty
    assert train_tokenizer(local, count) == train_tokenizer(beam, count)


def test_documents_are_shuffled_over_all_shards(faulty):
    source = prepare.open_folder(faulty[1], "train")
    texts = [source.outline(n).text() for n in range(len(source))]
    numbers = [int(text.split()[-1]) for text in texts if text.startswith("only words")]
    steps = [abs(after - before) for before, after in itertools.pairwise(numbers)]
    assert sum(step == 1 for step in steps) < len(steps) / 4


@pytest.mark.usefixtures("in_this_process")
@pytest.mark.parametrize("layout", ["pairs", "parquet", "webdataset", "pages"])
def test_each_layout_gives_the_same_documents(layout, tmp_path):
    source = changing_source.ChangingSource(tmp_path / "own", 0, layout)
    settings = examples.settings(source.folder, format=source.format)
    local, beam = prepare_by_both(settings, tmp_path)
    assert read_documents(local) == read_documents(beam)
    assert describe_stats(local) == describe_stats(beam)


@pytest.mark.usefixtures("in_this_process")
def test_prepared_data_is_found_by_the_local_engine_and_repaired_by_it(tmp_path):
    settings = examples.settings(examples.write_jsonl(tmp_path / "own"))
    data = str(tmp_path / "data")
    folder = prepare.prepare(settings, data, 1, engine=make_engine())
    assert prepare.prepare(settings, data, 1) == folder  # Training starts with this call.
    assert prepare.prepare(settings, data, 1, engine=None) == folder
    next(folder.glob("*train*00000-of*")).write_bytes(b"damaged")
    repaired = prepare.prepare(settings, data, 1)
    assert repaired != folder  # The order of the documents is another one.
    assert store.open_prepared(repaired).plan.num_hash_shards == 0


@pytest.mark.usefixtures("in_this_process")
def test_chunks_are_counted_as_without_beam(tmp_path):
    lines = [json.dumps({"text": "a red square " * (n % 7 + 1)}) for n in range(40)]
    examples.write_files(tmp_path / "own", {"a.jsonl": "\n".join(lines)})
    direct, layout = make_engine(shard_bytes=300), tiny.make_layout(32, 0)
    settings = examples.settings(tmp_path / "own")
    source = prepare.open_folder(
        prepare.prepare(settings, str(tmp_path / "data"), 1, engine=direct), "train"
    )
    assert len(source.files.paths) > 3
    counts = direct.count_chunks(source, layout, "split")
    assert counts.max() > 1
    np.testing.assert_array_equal(counts, overflow.count_chunks(source, layout, "split"))
    with pytest.raises(UserError, match=r"Document \d+ needs \d+ slots"):
        direct.count_chunks(source, layout, "error")


def list_files(folder):
    skipped = (manifest.MANIFEST_FILE, manifest.FILES_FILE, "dataset_info.json")
    return {
        path.name: path.read_bytes()
        for path in sorted(folder.iterdir())
        if path.name not in skipped
    }


_KILLED = """
import sys, time
from oneflow_jax.data.beam import engine
from oneflow_jax.data.custom import prepare
from tests.data.custom import examples

engine._complete = lambda *values: time.sleep(999)
direct = engine.BeamEngine("DirectRunner", shard_bytes=4_000)
prepare.prepare(examples.settings(sys.argv[1]), sys.argv[2], 1, engine=direct)
"""


def test_killed_preparation_leaves_nothing_that_training_reads(tmp_path):
    settings = examples.settings(examples.write_jsonl(tmp_path / "own"))
    whole = prepare.prepare(settings, str(tmp_path / "whole"), 1, engine=make_engine())
    data = tmp_path / "data"
    command = [sys.executable, "-c", _KILLED, str(tmp_path / "own"), str(data)]
    process = subprocess.Popen(command, cwd=runs.REPOSITORY, start_new_session=True)
    entry = prepare.open_entry(settings, str(data))
    while not list(entry.staging.glob("*/own-train*")):
        assert process.poll() is None
        time.sleep(0.01)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    assert entry.load_last() is None
    assert not list(entry.iter_equal(settings))
    again = prepare.prepare(settings, str(data), 1, engine=make_engine())
    assert list_files(again) == list_files(whole)
    assert not entry.staging.exists()
    assert {path for path in entry.root.iterdir() if path.is_dir()} == {again}


def test_a_full_disk_of_a_worker_is_an_error_without_traceback(tmp_path):
    examples.write_files(tmp_path / "own", {"a.jsonl": '{"text": "full"}\n{"text": "b"}\n'})
    with pytest.raises(UserError, match=r"No space left on device.*Free some space"):
        prepare.prepare(
            examples.settings(tmp_path / "own"), str(tmp_path / "data"), 1, engine=make_engine()
        )


@pytest.mark.usefixtures("in_this_process")
def test_duplicates_come_back_if_the_first_document_is_deleted(tmp_path):
    own = tmp_path / "own"
    lines = [json.dumps({"text": f"text {n}"}) + "\n" for n in range(30)]
    examples.write_files(own, {"a.jsonl": "".join(lines[:20]), "b.jsonl": "".join(lines[10:])})
    settings = examples.settings(own, deduplicate=True)
    before = prepare.prepare(settings, str(tmp_path / "data"), 1)
    assert store.open_prepared(before).stats.dropped == {"duplicate": 10}
    assert store.open_prepared(before).stats.seen == 40
    assert store.open_prepared(before).stats.documents.total() == 30
    (own / "a.jsonl").write_text("".join(lines[:10]))
    after = prepare.prepare(settings, str(tmp_path / "data"), 1)
    assert store.open_prepared(after).stats.documents.total() == 30
    assert store.open_prepared(after).stats.dropped == {}
    kept = examples.settings(own)
    assert pathlib.Path(prepare.prepare(kept, str(tmp_path / "data"), 1)) != after
