import dataclasses
import json
import logging
import os
import shutil
import signal
import subprocess
import sys
import time

import pytest

from oneflow_jax.data.custom import jsonl, manifest, prepare, store
from oneflow_jax.errors import UserError
from tests import runs
from tests.data.custom import examples


@pytest.fixture(autouse=True)
def several_units(monkeypatch):
    monkeypatch.setattr(jsonl, "MAX_UNIT_BYTES", 1000)


def read_files(folder):
    """Return the contents of all prepared files, without the folder's name in them."""
    return {
        path.name: path.read_bytes().replace(str(folder).encode(), b"")
        for path in sorted(folder.iterdir())
        if path.name not in (manifest.MANIFEST_FILE, manifest.FILES_FILE)
    }


def test_documents_do_not_depend_on_the_number_of_workers(tmp_path):
    config = examples.settings(examples.write_jsonl(tmp_path / "own"))
    one, two = (prepare.prepare(config, str(tmp_path / str(n)), n) for n in (1, 2))
    assert len(manifest.load(one).units) == 3
    assert read_files(one) == read_files(two)

    split = {side: prepare.open_folder(one, side) for side in manifest.SPLITS}
    assert len(split["train"]) + len(split["heldout"]) == 40
    documents = [document for source in split.values() for document in source]
    numbers = sorted(int(document.text().split()[-1]) for document in documents)
    assert numbers == list(range(40))
    assert all(document.images()[0].shape == (4, 4, 3) for document in documents)

    # The prepared data can still be opened after the source was deleted.
    shutil.rmtree(tmp_path / "own")
    assert prepare.prepare(config, str(tmp_path / "1"), 1) == one
    assert len(prepare.open_folder(one, "train")) == len(split["train"])
    with pytest.raises(UserError, match=r"split='test': .* train, heldout"):
        prepare.open_folder(one, "test")


_KILLED = """
import sys, time
from oneflow_jax.data.custom import jsonl, prepare
from tests.data.custom import examples
jsonl.MAX_UNIT_BYTES = 1000
prepare._seal = lambda *values: time.sleep(999)
prepare.prepare(examples.settings(sys.argv[1]), sys.argv[2], 1)
"""


def test_killed_preparation_resumes(tmp_path, caplog):
    own = examples.write_jsonl(tmp_path / "own")
    config = examples.settings(own)
    whole = prepare.prepare(config, str(tmp_path / "whole"), 1)
    command = [sys.executable, "-c", _KILLED, str(own), str(tmp_path / "data")]
    folder = prepare.open_entry(config, str(tmp_path / "data")).staging
    process = subprocess.Popen(command, cwd=runs.REPOSITORY, start_new_session=True)
    while not (folder / "unit-00000.json").exists():
        assert process.poll() is None
        time.sleep(0.01)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    shard = folder / "own-train.array_record-00000-of-00003"
    modified_ns = shard.stat().st_mtime_ns
    for path in folder.glob("*-00002*"):
        path.unlink()
    (folder / "unit-00001.json").write_text("{")
    with caplog.at_level(logging.INFO):
        resumed = prepare.prepare(config, str(tmp_path / "data"), 1)
    assert "1 of 3 units are already prepared" in caplog.text
    assert (resumed / shard.name).stat().st_mtime_ns == modified_ns
    assert not folder.exists()
    assert read_files(resumed) == read_files(whole)


def test_empty_result_is_reported_with_reasons(tmp_path):
    (tmp_path / "a.jsonl").write_text("{\n" * 3 + '{"text": "a"}\n')
    folder = prepare.prepare(examples.settings(tmp_path), str(tmp_path / "data"), 1)
    with pytest.raises(UserError, match=r"1 document, none of which is in .*3 malformed line"):
        prepare.check_splits(store.open_prepared(folder))


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"path": ""}, "source.path is empty"),
        ({"path": "x", "heldout_fraction": 0.0}, "source.heldout_fraction=0.0"),
        ({"path": "x", "pixels": 0}, "source.pixels=0"),
        ({"path": "x", "size": 3}, "has no setting 'size'. It has: path, format"),
    ],
)
def test_errors_are_reported(config, message):
    with pytest.raises(UserError, match=message):
        prepare.parse_config({"name": "own"} | config)


def test_data_that_was_prepared_before_images_had_shapes_is_used(tmp_path):
    config = examples.settings(examples.write_jsonl(tmp_path / "own"))
    folder = prepare.prepare(config, str(tmp_path / "data"), 1)
    plan = json.loads((folder / manifest.MANIFEST_FILE).read_text())
    assert plan["settings"].pop("crop_sizes") == []
    (folder / manifest.MANIFEST_FILE).write_text(json.dumps(plan))
    assert prepare.prepare(config, str(tmp_path / "data"), 1) == folder
    cropped = dataclasses.replace(config, crop_sizes=((4, 4), (3, 5)))
    other = prepare.prepare(cropped, str(tmp_path / "data"), 1)
    assert other != folder
    assert manifest.load(other).settings.crop_sizes == ((4, 4), (3, 5))
    assert prepare.prepare(cropped, str(tmp_path / "data"), 1) == other
