"""Tests of the user's folder of compiled programs; they compile nothing."""

import collections
import logging
import os
import stat

import jax
import pytest

from oneflow_jax.runtime import compilation_cache

Usage = collections.namedtuple("Usage", "free")


@pytest.fixture
def cache(monkeypatch, tmp_path):
    """Let the user's caches be in `tmp_path`; return the folder that JAX uses after a call."""
    before = jax.config.jax_compilation_cache_dir
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    jax.config.update("jax_compilation_cache_dir", None)

    def enable():
        compilation_cache.enable_user_cache()
        return jax.config.jax_compilation_cache_dir

    yield enable
    jax.config.update("jax_compilation_cache_dir", before)


def test_the_folder_is_private_and_names_version_and_processor(cache, tmp_path):
    folder = cache()
    assert folder.startswith(str(tmp_path / "oneflow_jax" / "programs" / f"jax-{jax.__version__}-"))
    assert stat.S_IMODE(os.stat(folder).st_mode) == 0o700
    assert cache() == folder


def test_another_processor_has_another_folder(cache, monkeypatch):
    folder = cache()
    jax.config.update("jax_compilation_cache_dir", None)
    monkeypatch.setattr(compilation_cache.platform, "machine", lambda: "another")
    assert cache() != folder


def test_choices_of_the_user_are_respected(cache, tmp_path):
    jax.config.update("jax_enable_compilation_cache", False)
    try:
        assert cache() is None
    finally:
        jax.config.update("jax_enable_compilation_cache", True)
    jax.config.update("jax_compilation_cache_dir", "/mine")
    assert cache() == "/mine"
    assert not any(tmp_path.iterdir())


def test_relative_folders_are_ignored(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", "caches")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert compilation_cache.user_folder() == tmp_path / ".cache" / "oneflow_jax" / "programs"


def test_an_unusable_folder_is_logged_and_not_used(cache, monkeypatch, tmp_path, caplog):
    folder = cache()
    jax.config.update("jax_compilation_cache_dir", None)
    os.chmod(folder, 0o777)
    assert cache() is None
    assert "other users may write" in caplog.text
    os.chmod(folder, 0o700)
    with monkeypatch.context() as patch:
        patch.setattr(compilation_cache.shutil, "disk_usage", lambda _: Usage(free=2**20))
        assert cache() is None
    assert "only 1 MiB of free space" in caplog.text

    def refuse(**_):
        raise OSError("Read-only file system")

    with monkeypatch.context() as patch:
        patch.setattr(compilation_cache.tempfile, "TemporaryFile", refuse)
        assert cache() is None
    assert "Read-only file system" in caplog.text
    (tmp_path / "file").touch()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    assert cache() is None
    assert [record.levelno for record in caplog.records] == [logging.WARNING] * 4


def test_the_programs_that_were_read_longest_ago_are_deleted(cache, monkeypatch, tmp_path):
    root = tmp_path / "oneflow_jax" / "programs"
    for name, read_at in (("jax-0/old", 1), ("jax-0/new", 3), ("jax-1/middle", 2)):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(bytes(10))
        os.utime(root / name, (read_at, 0))
    monkeypatch.setattr(compilation_cache, "MAX_BYTES", 20)
    cache()
    assert sorted(path.name for path in root.rglob("*") if path.is_file()) == ["middle", "new"]
