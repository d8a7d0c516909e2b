"""Tests of data that other systems wrote: names of files, and files that these systems add."""

import bz2
import gzip
import io
import lzma
import zipfile

import pytest

from oneflow_jax.data.custom import formats, notices
from oneflow_jax.data.custom.errors import DataError
from oneflow_jax.errors import UserError
from tests.data.custom import examples
from tests.data.custom.test_record_layouts import BLUE, PAIR, RED, lines, make_tar, read_folder

COMPOSED, DECOMPOSED = "caf\u00e9", "cafe\u0301"
"""The same name in the Unicode forms of Linux and Windows (first) and of macOS."""

FORMS = [(COMPOSED, DECOMPOSED), (DECOMPOSED, COMPOSED)]


@pytest.mark.parametrize(("image", "text"), FORMS)
def test_pairs_in_both_unicode_forms_are_documents(tmp_path, image, text):
    files = {f"{image}.png": RED, f"{text}.txt": "a cat"}
    assert read_folder(tmp_path, files)[0] == PAIR


def test_images_in_both_unicode_forms_stay_apart(tmp_path):
    files = {f"{COMPOSED}.png": RED, f"{DECOMPOSED}.png": BLUE, f"{DECOMPOSED}.txt": "a dog"}
    assert read_folder(tmp_path, files)[0] == [["<blue>", "a dog"], ["<red>"]]


@pytest.mark.parametrize(("file", "stated"), FORMS)
@pytest.mark.parametrize("root", ["", "x/"])
def test_records_and_pages_name_images_in_both_unicode_forms(tmp_path, file, stated, root):
    files = {
        "a.jsonl": lines({"image": f"{stated}.png", "text": "a cat"}),
        f"{root}{file}.png": RED,
    }
    assert read_folder(tmp_path / "lines", files, image_root=root)[0] == PAIR
    page = {"a.md": f"![]({stated}.png) a cat", f"{file}.png": RED}
    assert read_folder(tmp_path / "page", page)[0] == PAIR


@pytest.mark.parametrize("path", ["x\\red.png", ".\\x\\red.png", "x\\y\\..\\red.png"])
def test_paths_of_windows_are_found(tmp_path, path):
    images = {"x/red.png": RED, "x/y/blue.png": BLUE}
    record = {"image": path, "text": "a cat"}
    for name, content in (("a.jsonl", lines(record)), ("a.csv", f"image,text\n{path},a cat\n")):
        documents, stats = read_folder(tmp_path / name[2:], {name: content} | images)
        assert documents == PAIR
        assert not stats.lost


def test_a_name_with_a_backslash_is_that_file(tmp_path):
    files = {"a.jsonl": lines({"image": "x\\a.png", "text": "a cat"}), "x\\a.png": RED}
    assert read_folder(tmp_path, files | {"x/a.png": BLUE})[0] == PAIR


@pytest.mark.parametrize("path", ["..\\s.png", "x\\..\\..\\s.png", "\\\\host\\s.png", "C:\\s.png"])
def test_paths_of_windows_stay_in_the_folder(tmp_path, path):
    (tmp_path / "s.png").write_bytes(RED)
    files = {"a.jsonl": lines({"image": path, "text": "a cat"}), "x/b.png": BLUE}
    documents, stats = read_folder(tmp_path / "own", files)
    assert documents == []
    assert stats.dropped == {"no picture left": 1}


APPLE_DOUBLE = b"\0\5\x16\7\0\2\0\0Mac OS X        "
"""Start of the file `._NAME`, which macOS adds for the attributes of the file NAME."""


def test_hidden_members_of_a_tar_file_are_not_data(tmp_path):
    members = {
        "./._0.png": APPLE_DOUBLE,
        "./0.png": RED,
        "./._0.txt": APPLE_DOUBLE,
        "./0.txt": "a cat",
        "./.DS_Store": b"x",
        "./__MACOSX/1.txt": APPLE_DOUBLE,
        "./1.png": BLUE,
        "./.git/2.txt": "not data",
        "./1.txt": "a dog",
    }
    documents, stats = read_folder(tmp_path, {"a.tar": make_tar(members)})
    assert documents == [*PAIR, ["<blue>", "a dog"]]
    assert stats.unused == {"hidden": 2}
    assert not stats.lost + stats.dropped


SEPARATED = {
    "unsorted": {"0.png": RED, "1.png": BLUE, "0.txt": "a cat", "1.txt": "a dog"},
    "the texts first": {"0.txt": "a cat", "1.txt": "a dog", "0.png": RED, "1.png": BLUE},
    "in folders": {
        "images/0.png": RED, "images/1.png": BLUE,
        "captions/0.json": '{"text": "a cat"}', "captions/1.json": '{"text": "a dog"}',
    },
}  # fmt: skip


@pytest.mark.parametrize("name", SEPARATED)
def test_separated_members_of_a_tar_file_are_named(tmp_path, name):
    members = {"9.png": RED, "9.txt": "together"} | SEPARATED[name]
    documents, stats = read_folder(tmp_path, {"a.tar": make_tar(members)})
    assert len(documents) == 5
    (notice,) = [each for each in notices.list_notices(stats, {}) if "tar file" in each]
    assert notice == (
        "In 2 of 5 documents: the image and the text of one name are not adjacent in the tar file, "
        "so they are separate documents. Write the files of a document one after another, for "
        "example with tar --sort=name, or unpack the tar file."
    )


def test_equal_names_of_whole_documents_are_not_separated(tmp_path):
    members = {"0.png": RED, "0.txt": "a cat", "x/0.png": BLUE, "1.txt": "a text", "2.png": RED}
    documents, stats = read_folder(tmp_path, {"a.tar": make_tar(members)})
    assert documents == [*PAIR, ["<blue>"], ["a text"], ["<red>"]]
    assert not stats.notes


def make_zip(content):
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("a.txt", content)
    return file.getvalue()


COMPRESSED = {
    "gz": gzip.compress,
    "bz2": bz2.compress,
    "xz": lzma.compress,
    "zst": lambda content: b"\x28\xb5\x2f\xfd" + content,
    "zip": make_zip,
}


@pytest.mark.parametrize("kind", COMPRESSED)
def test_compressed_files_are_named(tmp_path, kind):
    data = COMPRESSED[kind](make_tar({"0.png": RED, "0.txt": "a cat"}))
    with pytest.raises(DataError, match=r"a\.tar: .* compressed.*unpack"):
        read_folder(tmp_path / "tar", {"a.tar": data})
    files = {f"b.tar.{kind}": data, f"a.jsonl.{kind}": data, "README.md": "x"}
    examples.write_files(tmp_path / "named", files)
    message = rf"2 of its files are compressed, such as 'a\.jsonl\.{kind}'\. Unpack them"
    with pytest.raises(UserError, match=message):
        formats.detect_format(examples.settings(tmp_path / "named"))


@pytest.mark.parametrize("encoding", ["latin-1", "cp1252", "gbk", "shift-jis"])
def test_texts_in_another_encoding_are_named(tmp_path, encoding):
    text = {"gbk": "北京的猫", "shift-jis": "猫です"}.get(encoding, "ein größerer Bär")
    files = {"a.png": RED, "a.txt": text.encode(encoding), "b.png": BLUE, "b.txt": text.encode()}
    documents, stats = read_folder(tmp_path, files)
    assert documents[1] == ["<blue>", text]
    (notice,) = [each for each in notices.list_notices(stats, {}) if "UTF-8" in each]
    assert notice == (
        "Texts that are not UTF-8: 1, such as that of a. Bytes that are not UTF-8 were replaced "
        "with U+FFFD, and texts without a readable character were dropped. Save the texts as "
        "UTF-8, for example with iconv -f WINDOWS-1252 -t UTF-8."
    )
