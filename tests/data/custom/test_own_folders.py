"""Tests that folders of this program inside a source folder are not read as documents."""

import os
import pathlib

import pytest
import tensorflow_datasets
from etils import epath

from oneflow_jax.build import custom_data
from oneflow_jax.data.custom import formats, prepare, sandbox, store, tfds
from oneflow_jax.errors import UserError
from oneflow_jax.runtime import run_lock, storage
from tests.build.test_changed_data import make_config
from tests.data.custom import examples
from tests.data.custom.changing_source import prepare_here
from tests.data.custom.test_record_layouts import RED

PAIRS = {f"{n}.png": RED for n in range(20)} | {f"{n}.txt": f"cat {n}" for n in range(20)}


@pytest.fixture(autouse=True)
def _in_this_process(monkeypatch):
    monkeypatch.setattr(prepare, "_run_workers", prepare_here)


def list_documents(folder):
    settings = examples.settings(folder)
    return sorted(raw.location for raw in examples.read_all(formats.get_reader("pairs"), settings))


def test_a_run_and_prepared_data_inside_the_source_are_not_documents(tmp_path):
    examples.write_files(tmp_path, PAIRS)
    before = list_documents(tmp_path)
    with run_lock.lock(epath.Path(tmp_path / "runs/own")):
        examples.write_files(tmp_path / "runs/own", {"data_report.png": RED, "config.json": "{}"})
    settings = examples.settings(tmp_path)
    folder = prepare.prepare(settings, str(tmp_path / "runs/data"), 1)
    assert list_documents(tmp_path) == before
    assert prepare.prepare(settings, str(tmp_path / "runs/data"), 1) == folder
    unused = store.open_prepared(folder).stats.unused_files
    assert unused == {sandbox.OWN_FOLDER: 2}


def test_an_export_and_samples_inside_the_source_are_not_documents(tmp_path):
    examples.write_files(tmp_path, PAIRS)
    (tmp_path / "samples").mkdir()
    storage.mark_folder(tmp_path / "samples")
    examples.write_files(tmp_path / "samples", {"samples.png": RED})
    files = ("config.json", "tokenizer.model", "weights.safetensors", "preview.png")
    examples.write_files(tmp_path / "export", dict.fromkeys(files, RED))
    assert len(list_documents(tmp_path)) == 20


def test_a_run_of_an_earlier_version_inside_the_source_is_not_read(tmp_path):
    examples.write_files(tmp_path, PAIRS)
    files = {".lock": "", "config.json": "{}", "tokenizer.model": "x", "samples.png": RED}
    examples.write_files(tmp_path / "run", files)
    examples.write_files(tmp_path / "hers", {"a.png": RED, "a.txt": "a"})
    assert len(list_documents(tmp_path)) == 21


def test_folders_of_the_user_are_not_marked(tmp_path):
    examples.write_files(tmp_path / "hers", {"a.png": RED, "a.txt": "a"})
    storage.mark_folder(tmp_path / "hers")
    with run_lock.lock(epath.Path(tmp_path / "hers")):
        pass
    examples.write_files(tmp_path, PAIRS)
    assert len(list_documents(tmp_path)) == 21


def test_a_marked_folder_that_is_the_source_itself_is_read(tmp_path):
    own = tmp_path / "own"
    own.mkdir()
    storage.mark_folder(own)
    examples.write_files(own, PAIRS)
    assert len(list_documents(own)) == 20


def test_the_source_itself_is_refused_for_a_run_and_for_prepared_data(tmp_path):
    examples.write_files(tmp_path / "own", PAIRS)
    config = make_config(tmp_path, tmp_path / "own", codec="patches")
    with pytest.raises(UserError, match=r"--workdir=.*own: this is also source\.path.*another"):
        custom_data.update(config, epath.Path(tmp_path / "own"), "train")
    with pytest.raises(UserError, match=r"data\.dir=.*own: this is also source\.path.*another"):
        prepare.prepare(examples.settings(tmp_path / "own"), str(tmp_path / "own"), 1)


@pytest.mark.parametrize("path", ["/gs/data/set", "/s3/set"])
def test_a_data_set_in_a_folder_with_the_name_of_a_scheme_is_local(path, monkeypatch):
    opened = []
    monkeypatch.setattr(pathlib.Path, "exists", lambda self: True)
    monkeypatch.setattr(tensorflow_datasets, "builder_from_directory", opened.append)
    tfds._open_builder(examples.settings(path, format="tfds"))
    assert "://" not in os.fspath(epath.Path(opened[0]))
    assert os.path.realpath(opened[0]) == path
