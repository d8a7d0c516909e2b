import json
import subprocess
import sys

import pytest

from oneflow_jax.data.custom import prepare, store
from oneflow_jax.errors import UserError
from tests import runs
from tests.data.custom import examples

COMMAND = (sys.executable, "-m", "tests.data.custom.crashing")


@pytest.fixture(autouse=True)
def repository_environment(monkeypatch, tmp_path):
    monkeypatch.setenv("PYTHONPATH", str(runs.REPOSITORY))
    monkeypatch.setenv("ONCE", str(tmp_path / "once"))


def prepare_texts(tmp_path, *texts, **changes):
    own = tmp_path / "own"
    own.mkdir()
    lines = [*texts, *(f"fine {n}" for n in range(20))]
    (own / "a.jsonl").write_text("".join(json.dumps({"text": line}) + "\n" for line in lines))
    config = examples.settings(own, **changes)
    return store.open_prepared(prepare.prepare(config, str(tmp_path / "data"), 2, COMMAND)).stats


def test_document_that_crashes_twice_is_dropped_by_name(tmp_path):
    tally = prepare_texts(tmp_path, "good", "deadly", "once", "better")
    assert tally.dropped == {"the reader died": 1}
    assert tally.places["the reader died"] == ["a.jsonl, byte 17"]
    assert tally.documents.total() == 23


def test_hanging_document_is_stopped(tmp_path):
    tally = prepare_texts(tmp_path, "good", "endless", read_timeout=1.0)
    assert tally.dropped == {"the reader hung": 1}
    assert tally.documents.total() == 21


def test_internal_errors_and_a_full_disk_do_not_drop_documents(tmp_path):
    with pytest.raises(RuntimeError, match="an internal error"):
        prepare_texts(tmp_path, "faulty")
    (tmp_path / "own" / "a.jsonl").unlink()
    (tmp_path / "own").rmdir()
    with pytest.raises(UserError, match=r"No space left on device.*Free some space"):
        prepare_texts(tmp_path, "full")
    left = subprocess.run(["pgrep", "-f", str(tmp_path)], capture_output=True, check=False)
    assert left.stdout == b""
