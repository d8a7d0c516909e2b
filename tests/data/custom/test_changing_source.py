"""Tests that only changed units are prepared again, and that all edits of a source are noticed."""

import collections
import logging
import os
import shutil

import pytest

from oneflow_jax.data.custom import jsonl, manifest, pairs, prepare, sandbox, shard, web_pages
from oneflow_jax.errors import UserError
from tests.data.custom import examples
from tests.data.custom.changing_source import LAYOUTS, ChangingSource, prepare_here
from tests.data.custom.test_prepare import read_files

EDITS = int(os.environ.get("ONEFLOW_EDITS", "40"))
"""Number of random edits for each layout: ONEFLOW_EDITS=200 for a longer test."""

SEED = int(os.environ.get("ONEFLOW_EDITS_SEED", "2"))


@pytest.fixture(autouse=True)
def small_units_in_this_process(monkeypatch):
    monkeypatch.setattr(prepare, "_run_workers", prepare_here)
    monkeypatch.setattr(pairs, "DOCUMENTS_PER_UNIT", 4)
    monkeypatch.setattr(web_pages, "PAGES_PER_UNIT", 4)
    monkeypatch.setattr(jsonl, "MAX_UNIT_BYTES", 256)


@pytest.fixture
def written(monkeypatch):
    """Return a list to which each unit is added when it is prepared."""
    names, write = [], shard.write_shard

    def write_and_note(plan, number, *rest):
        names.append(plan.units[number])
        write(plan, number, *rest)

    monkeypatch.setattr(shard, "write_shard", write_and_note)
    return names


def read_documents(settings, data_dir):
    """Return the prepared documents in the form of `ChangingSource.expected`."""
    found, folder = [], prepare.prepare(settings, str(data_dir), 1)
    for split in manifest.SPLITS:
        for document in prepare.open_folder(folder, split):
            images = document.images()
            color = tuple(map(int, images[0][0, 0])) if images else (-1, -1, -1)
            found.append((color, document.text()))
    return sorted(found)


def read_data_files(folder):
    """Return the contents of prepared files but `unit-*.json`, which has times of source files."""
    return {name: data for name, data in read_files(folder).items() if name[:5] != "unit-"}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_any_edits_of_the_source_are_noticed(tmp_path, layout):
    source = ChangingSource(tmp_path / "source", SEED, layout)
    settings = examples.settings(source.folder, heldout_fraction=0.5, format=source.format)
    edits, checks = collections.Counter(), 0
    while edits.total() < EDITS:
        edits.update(source.edit() for _ in range(1 + checks % 3))
        assert read_documents(settings, tmp_path / "data") == source.expected(), edits
        checks += 1
        if checks % 7 == 0:  # A preparation from scratch gives the same files.
            folder = prepare.prepare(settings, str(tmp_path / "data"), 1)
            fresh = prepare.prepare(settings, str(tmp_path / "fresh"), 1)
            assert folder.name == fresh.name
            assert read_data_files(folder) == read_data_files(fresh)
            shutil.rmtree(tmp_path / "fresh")
    assert len(edits) == 10


def make_source(tmp_path, **options):
    source = ChangingSource(tmp_path / "source", 0, **options)
    return source, examples.settings(source.folder, heldout_fraction=0.5)


def test_only_units_of_changed_files_are_prepared(tmp_path, written):
    source, settings = make_source(tmp_path)
    data = str(tmp_path / "data")
    first = prepare.prepare(settings, data, 1)
    units = len(written)
    assert units == len(manifest.load(first).units) > 3
    written.clear()
    source.change_image()
    second = prepare.prepare(settings, data, 1)
    assert len(written) == 1
    assert second != first
    assert first.exists()  # Earlier prepared data stays, because another run may use it.
    written.clear()
    source.add()
    prepare.prepare(settings, data, 1)
    assert len(written) <= 2  # The new document may split a unit in two.


@pytest.mark.parametrize("how", ["touched", "copied", "moved", "reverted"])
def test_equal_content_is_not_prepared_again(tmp_path, written, how):
    source, settings = make_source(tmp_path)
    data = str(tmp_path / "data")
    folder = prepare.prepare(settings, data, 1)
    if how == "touched":
        for path in source.folder.iterdir():
            path.touch()
    elif how == "reverted":
        path = source.folder / f"{min(source.colors)}.txt"
        before = path.read_text()
        path.write_text("something else")
        assert prepare.prepare(settings, data, 1) != folder
        path.write_text(before)
    else:
        moved = tmp_path / "elsewhere"
        (shutil.copytree if how == "copied" else shutil.move)(source.folder, moved)
        settings = examples.settings(moved, heldout_fraction=0.5)
    written.clear()
    assert prepare.prepare(settings, data, 1) == folder
    assert not written


def test_touched_files_are_hashed_once(tmp_path, monkeypatch):
    source, settings = make_source(tmp_path)
    prepare.prepare(settings, str(tmp_path / "data"), 1)
    for path in source.folder.iterdir():
        path.touch()
    opened, open_file = [], sandbox.SandboxedFolder.open
    monkeypatch.setattr(
        sandbox.SandboxedFolder,
        "open",
        lambda folder, name: opened.append(name) or open_file(folder, name),
    )
    prepare.prepare(settings, str(tmp_path / "data"), 1)
    assert len(opened) == len(source.texts) + len(source.colors)
    opened.clear()
    prepare.prepare(settings, str(tmp_path / "data"), 1)
    assert not opened


def test_changes_are_reported_with_their_numbers(tmp_path, caplog):
    caplog.set_level(logging.INFO)
    source, settings = make_source(tmp_path)
    prepare.prepare(settings, str(tmp_path / "data"), 1)
    assert "files since the last preparation" not in caplog.text
    keys = sorted(source.texts)
    for number in range(3):
        (source.folder / f"new{number}.txt").write_text(f"new {number}")
    for key in keys[:2]:
        (source.folder / f"{key}.txt").write_text("changed")
    (source.folder / f"{keys[2]}.png").unlink()
    prepare.prepare(settings, str(tmp_path / "data"), 1)
    assert "files since the last preparation: 3 new, 2 changed, 1 gone." in caplog.text


@pytest.mark.parametrize("change", ["an image", "a missing image", "a link"])
def test_files_that_lines_name_belong_to_the_source(tmp_path, change):
    folder = examples.write_jsonl(tmp_path / "source")
    settings = examples.settings(folder, heldout_fraction=0.5)
    if change == "a missing image":
        (folder / "7.png").unlink()
    if change == "a link":
        (folder / "black.png").write_bytes(examples.png("black"))
        (folder / "7.png").unlink()
        (folder / "7.png").symlink_to("black.png")
    before = prepare.prepare(settings, str(tmp_path / "data"), 1)
    if change == "a link":
        (folder / "white.png").write_bytes(examples.png("white"))
        (folder / "7.png").unlink()
        (folder / "7.png").symlink_to("white.png")
    else:
        (folder / "7.png").write_bytes(examples.png("white"))
    after = prepare.prepare(settings, str(tmp_path / "data"), 1)
    assert after != before
    (image,) = (
        document.images()[0]
        for split in manifest.SPLITS
        for document in prepare.open_folder(after, split)
        if document.text() == "picture number 7"
    )
    assert (image == 255).all()


def test_files_that_change_while_they_are_read_are_read_again(tmp_path, monkeypatch):
    source, settings = make_source(tmp_path)
    edits = [source.change_image] * 2

    def prepare_and_edit(*values):
        prepare_here(*values)
        if edits:
            edits.pop()()

    monkeypatch.setattr(prepare, "_run_workers", prepare_and_edit)
    assert read_documents(settings, tmp_path / "data") == source.expected()
    edits += [source.change_image] * 100
    source.add()
    with pytest.raises(UserError, match=r"source\.path=.*files change while they are read"):
        prepare.prepare(settings, str(tmp_path / "data"), 1)


def test_data_of_an_earlier_version_is_not_used(tmp_path, caplog, written):
    source, settings = make_source(tmp_path)
    folder = prepare.prepare(settings, str(tmp_path / "data"), 1)
    plan = folder / manifest.MANIFEST_FILE
    plan.write_text(plan.read_text().replace(f'"version": {manifest.VERSION}', '"version": 1'))
    old = folder.rename(folder.with_name("source_12345678"))
    written.clear()
    assert read_documents(settings, tmp_path / "data") == source.expected()
    assert written
    assert f"{old} was prepared by an earlier version" in caplog.text


def test_missing_source_uses_its_newest_prepared_data(tmp_path, caplog):
    source, settings = make_source(tmp_path)
    prepare.prepare(settings, str(tmp_path / "data"), 1)
    source.change_image()
    folder = prepare.prepare(settings, str(tmp_path / "data"), 1)
    shutil.rmtree(source.folder)
    assert prepare.prepare(settings, str(tmp_path / "data"), 1) == folder
    assert "does not exist. The program uses the data that it last prepared" in caplog.text
    source.folder.mkdir()  # An empty folder is not treated as a missing folder.
    with pytest.raises(UserError, match="no file has a known extension"):
        prepare.prepare(settings, str(tmp_path / "data"), 1)


def test_settings_and_damaged_shards_are_noticed(tmp_path, written):
    source, settings = make_source(tmp_path)
    folder = prepare.prepare(settings, str(tmp_path / "data"), 1)
    other = examples.settings(source.folder, heldout_fraction=0.5, pixels=2)
    assert prepare.prepare(other, str(tmp_path / "data"), 1) != folder
    written.clear()
    damaged = sorted(folder.glob("own-train*"))[0]
    damaged.write_bytes(damaged.read_bytes()[:-1])
    assert prepare.prepare(settings, str(tmp_path / "data"), 1) == folder
    assert len(written) == 1
    assert read_documents(settings, tmp_path / "data") == source.expected()
