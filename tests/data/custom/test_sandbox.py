import os

import pytest

from oneflow_jax.data.custom.errors import DataError
from oneflow_jax.data.custom.sandbox import SandboxedFolder


@pytest.fixture
def inside(tmp_path):
    """Return a folder with files and links, next to a folder outside of the sandbox."""
    (tmp_path / "secret").mkdir()
    (tmp_path / "secret" / "s.png").write_bytes(b"secret")
    folder = tmp_path / "inside"
    (folder / "deep").mkdir(parents=True)
    (folder / "a.png").write_bytes(b"a")
    (folder / "deep" / "b.png").write_bytes(b"b")
    (folder / "near.png").symlink_to("deep/b.png")
    (folder / "far.png").symlink_to(tmp_path / "secret" / "s.png")
    (folder / "away").symlink_to(tmp_path / "secret")
    (folder / "loop.png").symlink_to("loop.png")
    os.mkfifo(folder / "pipe.png")
    return folder


def test_files_of_the_folder_are_read(inside):
    folder = SandboxedFolder.from_path(inside)
    assert folder.read_bytes("a.png", 9) == b"a"
    assert folder.read_bytes("b.png", 9, referrer="deep/page.html") == b"b"
    assert folder.read_bytes("../a.png", 9, referrer="deep/page.html") == b"a"
    assert folder.read_bytes("near.png", 9) == b"b"


@pytest.mark.parametrize(
    ("path", "reason"),
    [
        ("../secret/s.png", "outside the folder"),
        ("deep/../../secret/s.png", "outside the folder"),
        ("far.png", "outside the folder"),
        ("away/s.png", "outside the folder"),
        ("/etc/passwd", "outside the folder"),
        ("~/.profile", "outside the folder"),
        ("http://example.com/a.png", "address, not a file"),
        ("file:///etc/passwd", "address, not a file"),
        ("data:image/png;base64,AAAA", "address, not a file"),
        ("//example.com/a.png", "address, not a file"),
        ("none.png", "missing file"),
        ("a.png/b.png", "missing file"),
        ("deep", "not a file"),
        (".", "not a file"),
        ("pipe.png", "not a file"),
        ("loop.png", "not a file"),
        ("a\0.png", "bad path"),
        ("", "bad path"),
        (None, "bad path"),
        (["a.png"], "bad path"),
        ("x" * 5000, "bad path"),
        ("\ud800.png", "bad path"),
    ],
)
def test_files_outside_of_the_folder_are_not_read(inside, path, reason):
    with pytest.raises(DataError) as fault:
        SandboxedFolder.from_path(inside).read_bytes(path, 9)
    assert fault.value.reason == reason


def test_a_file_above_the_limit_is_not_read_whole(inside):
    (inside / "large.png").write_bytes(bytes(100))
    with pytest.raises(DataError, match="too large"):
        SandboxedFolder.from_path(inside).read_bytes("large.png", 99)
    assert len(SandboxedFolder.from_path(inside).read_bytes("large.png", 100)) == 100


def test_only_plain_files_of_the_folder_are_listed(inside):
    (inside / ".hidden.png").write_bytes(b"")
    (inside / "C.PNG").write_bytes(b"c")
    assert SandboxedFolder.from_path(inside).list_files((".png",)) == [
        "C.PNG",
        "a.png",
        "deep/b.png",
        "near.png",
    ]


def test_the_folder_itself_may_be_a_link(inside, tmp_path):
    (tmp_path / "link").symlink_to(inside)
    assert SandboxedFolder.from_path(tmp_path / "link").read_bytes("a.png", 9) == b"a"
