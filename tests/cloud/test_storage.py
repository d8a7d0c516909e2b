"""Tests of folders in an object store: atomic writes and leases."""

import importlib.util
import time

import jax
import numpy as np
import pytest
from etils import epath

from oneflow_jax.build import data as data_lib
from oneflow_jax.codecs.autoencoder import diffusers_weights
from oneflow_jax.errors import UserError
from oneflow_jax.runtime import metric_writer, storage, workdir
from oneflow_jax.training import checkpoint
from oneflow_jax.viewer import contact_sheet, page, plots
from tests import runs
from tests.cloud import conftest
from tests.codecs.autoencoder import small_models


def list_files(folder):
    """Return the relative paths of all files in a folder."""
    paths = set()
    for path in folder.iterdir():
        inner = list_files(path) if path.is_dir() else {""}
        paths |= {f"{path.name}/{name}".rstrip("/") for name in inner}
    return paths


def test_valid_storage_paths(emulator, tmp_path):
    for path in (f"gs://{conftest.BUCKET}/a/run", str(tmp_path), "runs/a"):
        assert str(storage.resolve_path(path, "--workdir")) == path


def test_other_kinds_of_storage_are_refused():
    with pytest.raises(UserError, match=r"--workdir=s3://b/run: .*Give gs://BUCKET/FOLDER"):
        storage.resolve_path("s3://b/run", "--workdir")


def test_missing_bucket_is_reported(emulator):
    with pytest.raises(UserError, match=r"start=gs://none/run: the bucket 'none' cannot be used"):
        storage.resolve_path("gs://none/run", "start")


def test_missing_package_is_reported(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(UserError, match=r"needs gcsfs.*pip install -r requirements-cloud.txt"):
        storage.resolve_path("gs://b/run", "--workdir")


def test_prepared_data_must_be_local():
    with pytest.raises(UserError, match=r"data.dir=gs://b/data: this folder must be local"):
        storage.require_local("gs://b/data", "data.dir")
    storage.require_local("runs/data", "data.dir")


@pytest.mark.parametrize("data", ["words", b"\x00bytes"])
def test_file_writes_are_atomic(remote, data):
    workdir.write_atomically(remote / "file", "before")
    workdir.write_atomically(remote / "file", data)
    expected = data if isinstance(data, bytes) else data.encode()
    assert (remote / "file").read_bytes() == expected
    assert list_files(remote) == {"file"}  # No temporary file is left.


def test_logs_grow_and_resume(remote):
    for start, steps in ((0, (1, 2, 3)), (2, (3, 4))):
        writer = metric_writer.MetricWriter(remote, resume_step=start)
        for step in steps:
            writer.write_scalars(step, {"train/loss": step + start})
            writer.flush()
            # If the process were killed now, all rows would be there.
            assert metric_writer.read_metrics(remote)[-1] == {
                "step": step,
                "train/loss": step + start,
            }
        writer.close()
    rows = [(row["step"], row["train/loss"]) for row in metric_writer.read_metrics(remote)]
    assert rows == [(1, 1), (2, 2), (3, 5), (4, 6)]
    events = list(remote.glob("events.out.tfevents.*"))
    assert events
    assert all(b"train/loss" in path.read_bytes() for path in events)


def test_staged_files_are_uploaded_and_removed_locally(remote):
    staged = storage.StagedDirectory(remote)
    (staged.local / "a").mkdir()
    (staged.local / "a" / "b").write_text("one")
    staged.sync()
    assert (remote / "a" / "b").read_text() == "one"
    (staged.local / "a" / "b").write_text("one, two")
    staged.close()
    assert (remote / "a" / "b").read_text() == "one, two"
    assert not staged.local.exists()


def test_last_run_takes_over_the_lease(remote):
    first = storage.TrainingLease(remote)
    first.check()
    second = storage.TrainingLease(remote)
    second.check()
    with pytest.raises(UserError, match=r"another run has taken over --workdir, process \d+ on"):
        first.check()


def test_local_folders_have_no_lease(tmp_path):
    storage.TrainingLease(epath.Path(tmp_path)).check()
    assert not list(tmp_path.iterdir())


def test_reading_does_not_delete_an_unfinished_save(remote):
    saving = {
        name: remote / name / workdir.CHECKPOINTS / "4" / "half" for name in ("read", "train")
    }
    for path in saving.values():
        path.write_bytes(b"half")
    with (
        checkpoint.Checkpoints(remote / "read") as reading,
        checkpoint.Checkpoints(remote / "train", max_to_keep=2) as training,
    ):
        assert reading.latest_step is training.latest_step is None
        deadline = time.monotonic() + 30  # Orbax cleans up in the background.
        while saving["train"].exists() and time.monotonic() < deadline:
            time.sleep(0.05)
    assert not saving["train"].exists()
    assert saving["read"].exists()


def test_codec_round_trips(remote):
    params = small_models.random_params(small_models.KL)
    diffusers_weights.save(remote, small_models.KL, params)
    architecture, loaded = diffusers_weights.load(remote)
    assert architecture == small_models.KL
    for (path, actual), (_, expected) in zip(
        jax.tree.leaves_with_path(params), jax.tree.leaves_with_path(loaded), strict=True
    ):
        assert np.array_equal(actual, expected), path


def test_tokenizer_round_trips_and_is_copied(remote):
    config = runs.make_config()
    learned = data_lib.make_layout(config, remote / "first").vocab
    assert data_lib.make_layout(config, remote / "first").vocab == learned
    second_config = runs.make_config(init_from=str(remote / "first"), data__vocab_size=90)
    assert data_lib.make_layout(second_config, remote / "second").vocab == learned


def test_images_and_pages_are_written(remote):
    plots.plot_lines(remote / "plots" / "lines.png", {"a": [(1, 0.5), (2, 0.7)]}, "title")
    cell = (np.zeros((4, 4, 3), np.uint8), "caption", "")
    contact_sheet.write_contact_sheet(remote / "sheets" / "sheet.png", [cell], 1, "title")
    page.write(remote / "page.html", [], {}, {}, "words ∎")
    for path in ("plots/lines.png", "sheets/sheet.png"):
        assert (remote / path).read_bytes().startswith(b"\x89PNG")
    assert "words ∎" in (remote / "page.html").read_bytes().decode()
