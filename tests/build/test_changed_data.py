"""Tests of changed source data: derived data is updated, or the run reports the difference."""

import json
import logging
import shutil

import numpy as np
import pytest
from etils import epath

from configs import common, own
from oneflow_jax.build import custom_data, data, stale_data
from oneflow_jax.codecs.autoencoder.autoencoder import Autoencoder
from oneflow_jax.data.custom import manifest, prepare
from oneflow_jax.data.document import EncodedImage
from oneflow_jax.errors import UserError
from oneflow_jax.runtime import workdir
from tests.build.test_data import save_codec
from tests.data.custom.changing_source import ChangingSource, prepare_here

PIXELS = 4


@pytest.fixture(autouse=True)
def encoded(monkeypatch):
    """Prepare in this process; replace the encoder by subsampling, and record its inputs."""
    images = []

    def encode(self, pixels):
        images.extend(pixels)
        return pixels[:, ::2, ::2].astype(np.float32)

    monkeypatch.setattr(Autoencoder, "encode", encode)
    monkeypatch.setattr(prepare, "_run_workers", prepare_here)
    return images


def make_config(tmp_path, source, codec="vae"):
    config = own.get_config().copy_and_resolve_references().unlock()
    config.source.path, config.source.pixels = str(source), PIXELS
    config.source.heldout_fraction = 0.4
    config.data.dir, config.data.vocab_size = str(tmp_path / "data"), 300
    if codec == "vae":
        where = tmp_path / "codec"
        path = str(where) if where.exists() else save_codec(where)
        config.codec = common.latent_codec(path, pixels=PIXELS, patch=2).to_dict()
    else:
        config.codec.pixels, config.codec.patch_size = PIXELS, 2
    return config.lock()


def start(config, folder, mode="train", **options):
    """Build the layout as a run does at its start, and save its configuration."""
    folder = epath.Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    workdir.check_config(folder, config)
    layout = data.make_layout(config, folder, mode, **options)
    if mode == "train":
        workdir.save_config(folder, config)
    return layout


def read_trained_on(config, layout):
    """Return all documents of the pipeline in the form of `ChangingSource.expected`."""
    found = []
    for split in data.ENCODED_SPLITS:
        for document in data.open_pipeline_split(config, layout, split):
            images = [part.latents for part in document.parts if isinstance(part, EncodedImage)]
            values = [*images, *document.images(), np.full((1, 1, 3), -1)][0]
            found.append((tuple(map(int, values[0, 0])), document.text()))
    return sorted(found)


def pretend_training(folder):
    """Make the folder look like a run that has a checkpoint."""
    (folder / workdir.CHECKPOINTS / "1").mkdir(parents=True)


def test_random_edits_reach_training(tmp_path):
    source = ChangingSource(tmp_path / "source", seed=3)
    config = make_config(tmp_path, source.folder)
    for _ in range(4):
        for _ in range(10):
            source.edit()
        layout = start(config, tmp_path / "run")
        assert read_trained_on(config, layout) == source.expected()


def test_only_latents_of_edited_images_are_encoded(tmp_path, encoded):
    source = ChangingSource(tmp_path / "source", seed=0)
    config = make_config(tmp_path, source.folder)
    start(config, tmp_path / "one")
    assert len(encoded) == len(source.colors)
    encoded.clear()
    for _ in range(3):
        source.change_image()
    layout = start(config, tmp_path / "two")
    assert 1 <= len(encoded) <= 3
    assert {tuple(image[0, 0]) for image in encoded} <= set(source.colors.values())
    assert read_trained_on(config, layout) == source.expected()


def test_two_projects_with_one_relative_path_share_nothing(tmp_path, monkeypatch):
    for number in (1, 2):
        source = ChangingSource(tmp_path / f"project{number}" / "images", seed=number)
        monkeypatch.chdir(source.folder.parent)
        config = make_config(tmp_path, "images")
        layout = start(config, tmp_path / f"run{number}")
        assert read_trained_on(config, layout) == source.expected()


@pytest.mark.parametrize(("before", "after"), [(40, 100), (100, 40)])
def test_grown_or_shrunk_folder_is_used_completely(tmp_path, before, after):
    folder, config = tmp_path / "source", make_config(tmp_path, tmp_path / "source", "patches")
    folder.mkdir()
    for count in (before, after):
        for path in folder.iterdir():
            path.unlink()
        for number in range(count):
            (folder / f"{number:03d}.jsonl").write_text(json.dumps({"text": f"number {number}"}))
        layout = start(config, tmp_path / "run", "prepare")
        data.prepare_data(config, layout)
        sources = [data.open_pipeline_split(config, layout, x) for x in data.ENCODED_SPLITS]
        texts = sorted(document.text() for source in sources for document in source)
        assert texts == sorted(f"number {number}" for number in range(count))


def test_before_training_the_tokenizer_follows_the_data(tmp_path):
    folder, config = tmp_path / "source", make_config(tmp_path, tmp_path / "source", "patches")
    folder.mkdir()
    for number in range(20):
        (folder / f"{number}.txt").write_text(f"cabbage and cabbages {number}")
    with config.unlocked():
        config.source.format = "pairs"
    first = start(config, tmp_path / "run").vocab
    assert start(config, tmp_path / "run").vocab == first
    for number in range(20):
        (folder / f"{number}.txt").write_text(f"zeppelin over zeppelin {number}")
    second = start(config, tmp_path / "run").vocab
    assert second != first
    # Once the model is trained, it keeps its tokenizer.
    pretend_training(tmp_path / "run")
    (folder / "0.txt").write_text("a new document")
    kept = start(config, tmp_path / "run", accept_changed_data=True).vocab
    assert kept == second


def test_trained_run_refuses_changed_data_until_it_is_accepted(tmp_path, caplog):
    source = ChangingSource(tmp_path / "source", seed=0)
    config, run = make_config(tmp_path, source.folder, "patches"), tmp_path / "run"
    start(config, run)
    pretend_training(run)
    layouts = run / workdir.LAYOUTS
    layouts.write_text("")
    start(config, run)
    (source.folder / f"{min(source.colors)}.txt").touch()
    start(config, run)  # Only times differ; the content is the same.
    for number in range(60):
        (source.folder / f"new{number}.txt").write_text(f"new {number}")
    (source.folder / f"{max(source.colors)}.txt").write_text("changed")
    message = rf"{run}: the run was trained on other data.*60 new, 1 changed, 0 gone.*--accept_"
    for mode in ("train", "evaluate"):
        with pytest.raises(UserError, match=message):
            start(config, run, mode)
    start(config, run, "sample")  # Sampling reads no data.
    start(config, run, "prepare")
    assert layouts.exists()
    assert "60 new, 1 changed, 0 gone" in caplog.messages[-1]
    with pytest.raises(UserError, match=message):
        start(config, run)
    layout = start(config, run, accept_changed_data=True)
    assert not layouts.exists()  # They are counted again, in the accepted data.
    assert len(read_trained_on(config, layout)) == len(source.texts) + 60
    start(config, run)  # The accepted data is now the data of the run.


@pytest.mark.parametrize("change", ["none", "an image"])
def test_moved_source_with_equal_files_is_accepted(tmp_path, change):
    source = ChangingSource(tmp_path / "source", seed=0)
    run = tmp_path / "run"
    start(make_config(tmp_path, source.folder, "patches"), run)
    pretend_training(run)
    shutil.copytree(source.folder, tmp_path / "moved")  # The copies have other modification times.
    shutil.rmtree(source.folder)
    config = make_config(tmp_path, tmp_path / "moved", "patches")
    if change == "none":
        assert read_trained_on(config, start(config, run)) == source.expected()
        return
    (tmp_path / "moved" / f"{min(source.colors)}.txt").write_text("changed")
    with pytest.raises(UserError, match="0 new, 1 changed, 0 gone"):
        start(config, run)


def test_a_link_that_leads_to_other_data_is_noticed(tmp_path):
    first = ChangingSource(tmp_path / "v1", seed=5)
    second = ChangingSource(tmp_path / "v2", seed=6)
    link = tmp_path / "latest"
    link.symlink_to(first.folder)
    config = make_config(tmp_path, link)
    assert read_trained_on(config, start(config, tmp_path / "run")) == first.expected()
    link.unlink()
    link.symlink_to(second.folder)
    assert read_trained_on(config, start(config, tmp_path / "run")) == second.expected()
    pretend_training(tmp_path / "run")
    link.unlink()
    link.symlink_to(first.folder)
    with pytest.raises(UserError, match=r"was trained on other data.*--accept_changed_data"):
        start(config, tmp_path / "run")


def test_a_run_of_an_earlier_version_says_that_the_files_are_the_same(tmp_path, monkeypatch):
    source = ChangingSource(tmp_path / "source", seed=8)
    config = make_config(tmp_path, source.folder)
    monkeypatch.setattr(manifest, "VERSION", manifest.VERSION - 1)
    start(config, tmp_path / "run")
    monkeypatch.undo()
    monkeypatch.setattr(prepare, "_run_workers", prepare_here)
    pretend_training(tmp_path / "run")
    with pytest.raises(UserError, match=r"the same files, but read by another.*Give --accept"):
        start(config, tmp_path / "run")


def test_run_without_recorded_data_logs_a_warning(tmp_path, caplog):
    source = ChangingSource(tmp_path / "source", seed=0)
    config, run = make_config(tmp_path, source.folder, "patches"), tmp_path / "run"
    start(config, run)
    pretend_training(run)
    (run / workdir.SOURCE).unlink()
    with caplog.at_level(logging.WARNING):
        start(config, run)
    assert "does not record which data the run was trained on" in caplog.text
    (run / workdir.SOURCE).unlink()
    shutil.move(source.folder, tmp_path / "moved")
    with pytest.raises(UserError, match=r"did not record its data, and its source\.path was"):
        start(make_config(tmp_path, tmp_path / "moved", "patches"), run)


def test_only_stale_data_is_listed_and_deleted(tmp_path, monkeypatch):
    source = ChangingSource(tmp_path / "source", seed=0)
    config, store_dir = make_config(tmp_path, source.folder), tmp_path / "data"
    start(config, tmp_path / "one")
    data.prepare_data(config, start(config, tmp_path / "one"))
    assert stale_data.list_stale(str(store_dir)) == []
    old = {path for path in store_dir.glob("*/*") if path.suffix not in (".json", ".lock")}
    assert len(old) == 4  # These are documents, latents, and the chunk counts of two splits.
    source.change_image()
    layout = start(config, tmp_path / "two")
    # Data that a training process reads is not deleted.
    assert stale_data.list_stale(str(store_dir)) == []
    for lock in custom_data._LOCKS:
        lock.close()
    found = stale_data.list_stale(str(store_dir))
    assert {item.path for item in found} == old
    assert all("changed since" in str(item) for item in found)
    assert stale_data.delete(found) == 4
    assert not any(path.exists() for path in old)
    assert stale_data.list_stale(str(store_dir)) == []
    assert read_trained_on(config, layout) == source.expected()


def test_data_of_a_missing_source_is_kept(tmp_path):
    source = ChangingSource(tmp_path / "source", seed=0)
    config = make_config(tmp_path, source.folder, "patches")
    start(config, tmp_path / "run")
    for lock in custom_data._LOCKS:
        lock.close()
    shutil.rmtree(source.folder)
    (tmp_path / "data" / "latents" / "own_1234abcd_0123").mkdir(
        parents=True
    )  # Latents of documents that have changed since.
    (item,) = stale_data.list_stale(config.data.dir)
    assert item.path.name == "own_1234abcd_0123"


def test_clean_mode_lists_and_deletes(tmp_path, cli, capsys):
    source = ChangingSource(tmp_path / "source", seed=0)
    config = make_config(tmp_path, source.folder, "patches")
    start(config, tmp_path / "run")
    for lock in custom_data._LOCKS:
        lock.close()
    stale = tmp_path / "data" / "fitted" / "own_1234abcd_0123.npy"
    stale.parent.mkdir()
    stale.write_bytes(b"1")
    command = ["--config=configs/own.py", "--mode=clean", f"--config.data.dir={tmp_path / 'data'}"]
    cli(*command)
    output = capsys.readouterr().out
    assert str(stale) in output
    assert "Stale: 1" in output
    assert stale.exists()
    cli(*command, "--delete")
    assert "Deleted: 1 of 1" in capsys.readouterr().out
    assert not stale.exists()
    with pytest.raises(UserError, match=r"--delete is valid with --mode=clean only"):
        cli("--config=configs/own.py", "--delete")
