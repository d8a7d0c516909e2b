"""Tests of data that other systems wrote: names of files, and files that these systems add."""

import pytest

from tests.data.custom.test_record_layouts import BLUE, PAIR, RED, lines, read_folder

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
