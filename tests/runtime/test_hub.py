"""Tests of loading an export from the Hugging Face Hub, with the Hub's own cache and no network."""

import pathlib
import shutil
import sys

import pytest

import oneflow_jax as of
from oneflow_jax.errors import UserError
from oneflow_jax.runtime import hub

COMMIT = "0123456789abcdef0123456789abcdef01234567"


@pytest.fixture(autouse=True)
def offline(monkeypatch, tmp_path):
    """Let the Hub's package read only a cache in `tmp_path`, which the fixture returns."""
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    return tmp_path


def test_an_export_in_the_cache_is_loaded(offline):
    repository = offline / "models--someone--emoji"
    (repository / "refs").mkdir(parents=True)
    (repository / "refs" / "main").write_text(COMMIT)
    snapshot = repository / "snapshots" / COMMIT
    shutil.copytree(of.PRETRAINED, snapshot, ignore=shutil.ignore_patterns("*.py", "__pycache__"))
    assert pathlib.Path(hub.download("hf://someone/emoji")) == snapshot
    assert pathlib.Path(hub.download(f"hf://someone/emoji@{COMMIT}")) == snapshot
    model = of.load("hf://someone/emoji")
    assert model.info().words == of.load(of.PRETRAINED).info().words


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("hf://someone", "must have the form hf://owner/name"),
        ("hf://a/b/c", "must have the form hf://owner/name"),
        ("hf:///name", "must have the form hf://owner/name"),
        ("hf://someone/missing", "cannot be downloaded"),
        ("hf://some one/emoji", "cannot be downloaded"),
    ],
)
def test_wrong_paths_are_explained(path, message):
    with pytest.raises(UserError, match=message):
        of.load(path)


def test_a_missing_package_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    with pytest.raises(UserError, match="pip install huggingface_hub"):
        of.load("hf://someone/emoji")
