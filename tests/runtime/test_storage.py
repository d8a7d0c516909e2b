import os

import pytest
from etils import epath

from oneflow_jax import shipped
from oneflow_jax.errors import UserError
from oneflow_jax.runtime import path_keys, storage
from oneflow_jax.training import checkpoint
from tests import runs


@pytest.mark.parametrize("name", ["plain", "a[1]b", "x*?"])
def test_wildcards_are_read_in_the_pattern_only(tmp_path, name):
    folder = tmp_path / name
    for path in ("metadata/process_0", "metadata/process_1", "metadata/other", "process_2"):
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).touch()
    literal = storage.LiteralPath(folder)
    assert {path.name for path in literal.glob("process_*")} == {"process_2"}
    # Orbax globs a pattern with a slash for the files that say which arrays are random keys.
    nested = sorted(literal.glob("metadata/process_*"))
    assert [path.relative_to(folder).as_posix() for path in nested] == [
        "metadata/process_0",
        "metadata/process_1",
    ]
    assert list(literal.glob("nowhere/*")) == []


LOCAL = ["/gs/runs/a", "/gs", "/s3/x", "/az/x", "/hf/x", "//gs/runs", "/./gs/x", "/a/../gs/x"]


@pytest.mark.parametrize("path", LOCAL)
def test_local_folders_with_the_name_of_a_scheme_are_not_buckets(path):
    folder = storage.resolve_path(path, "--workdir")
    again = epath.Path(os.fspath(folder / "checkpoints"))  # Orbax and TFDS do this too.
    for each in (folder, again, folder.parent, folder.resolve()):
        assert "://" not in os.fspath(each)
    assert (
        os.path.normpath(again).lstrip("/") == os.path.normpath(path).lstrip("/") + "/checkpoints"
    )
    key = path_keys.make_path_absolute(path, "data.dir")
    assert os.fspath(epath.Path(key)) == os.fspath(folder)


@pytest.mark.parametrize(
    "path", ["/gsx/a", "/home/gs/a", "gs/a", "/", "a", "/data", "gs://bucket/a"]
)
def test_other_paths_stay_as_they_are(path):
    assert storage.expand_user(path, "data.dir") == path


def test_relative_paths_in_such_a_folder_are_not_buckets(monkeypatch):
    monkeypatch.setattr(os, "getcwd", lambda: "/gs/folder")
    assert path_keys.make_path_absolute("runs/a", "data.dir") == "//gs/folder/runs/a"
    assert os.fspath(storage.resolve_path("runs/a", "--workdir")) == "//gs/folder/runs/a"


@pytest.mark.parametrize("path", ["/gs/runs/a", "/s3/x", "//gs/runs"])
def test_checkpoints_in_such_a_folder_are_refused(path):
    folder = storage.resolve_path(path, "--workdir")
    with pytest.raises(UserError, match=r"--workdir=/(gs/runs|s3/x).*another folder.*gs://BUCKET"):
        checkpoint.Checkpoints(folder)


@pytest.mark.parametrize("path", ["a.txt", "a.txt/data", "a.txt/x/y"])
def test_a_file_in_place_of_a_folder_is_named(tmp_path, path, cli):
    (tmp_path / "a.txt").write_text("a note")
    message = (
        rf"={tmp_path}/{path}: {tmp_path}/a\.txt is a file, not a folder\. Give another folder"
    )
    with pytest.raises(UserError, match=f"data.dir{message}"):
        cli(runs.CONFIG, f"--workdir={tmp_path}/run", f"--config.data.dir={tmp_path}/{path}")
    for mode in ("sample", "evaluate", "export"):
        with pytest.raises(UserError, match=f"--output{message}"):
            cli(f"--workdir={shipped.PRETRAINED}", f"--mode={mode}", f"--output={tmp_path}/{path}")
    assert (tmp_path / "a.txt").read_text() == "a note"
