"""Tests of lists of captions: text files and tables without a header that name images."""

import json

import pytest

from oneflow_jax.data.custom import caption_list, formats
from oneflow_jax.errors import UserError
from tests.data.custom import examples
from tests.data.custom.test_record_layouts import BLUE, RED, read_folder

TWO = [["<red>", "a cat"], ["<blue>", "a dog, asleep"]]
IMAGES = {"red.png": RED, "blue.png": BLUE}

LISTS = {
    "Flickr8k of Kaggle": (
        "captions.txt",
        'image,caption\nred.png,a cat\nblue.png,"a dog, asleep"\n',
    ),
    "Flickr8k.token.txt": ("Flickr8k.token.txt", "red.png#0\ta cat\nblue.png#4\ta dog, asleep\n"),
    "tabs": ("captions.txt", "red.png\ta cat\nblue.png\ta dog, asleep\n"),
    "spaces": ("list.txt", "red.png a cat\nblue.png a dog, asleep\n"),
    "a byte order mark and Windows line ends": (
        "captions.txt",
        "\ufeffred.png a cat\r\nblue.png a dog, asleep\r\n",
    ),
    "UTF-16": ("captions.csv", "red.png;a cat\nblue.png;a dog, asleep\n".encode("utf-16")),
    "a TSV file without a header": ("train.tsv", "red.png\ta cat\nblue.png\ta dog, asleep\n"),
    "a CSV file without a header": ("train.csv", 'red.png,a cat\nblue.png,"a dog, asleep"\n'),
    "quoted names": ("train.csv", '"red.png","a cat"\n"blue.png","a dog, asleep"\n'),
    "empty lines": ("captions.txt", "red.png a cat\n\nblue.png a dog, asleep\n\n"),
}


@pytest.mark.parametrize("name", LISTS)
@pytest.mark.parametrize("folder", ["", "Images/", "Flicker8k_Dataset/"])
def test_a_list_of_captions_is_its_documents(tmp_path, name, folder):
    file, content = LISTS[name]
    files = {file: content} | {folder + image: data for image, data in IMAGES.items()}
    documents, stats = read_folder(tmp_path, files)
    assert documents == TWO
    assert not stats.lost + stats.dropped
    assert stats.used == {"image": 2, "caption": 2}


def test_more_columns_are_counted(tmp_path):
    files = {"a.tsv": "red.png\ta cat\t0.3\n", "red.png": RED}
    documents, stats = read_folder(tmp_path, files)
    assert documents == [["<red>", "a cat"]]
    assert stats.unused == {"column 3": 1}


def test_a_single_file_may_be_a_list(tmp_path):
    read_folder(tmp_path, {"captions.txt": "red.png a cat\n", "red.png": RED})
    settings = examples.settings(tmp_path / "captions.txt")
    assert formats.detect_format(settings) == "csv"


@pytest.mark.parametrize(
    "line",
    [
        "a cat sleeps on red.png",
        "red.png",
        "red.png blue.png",
        "1000.jpg\t1001.jpg",
        "see red.png and blue.png",
        "image",
        "an image, and a caption",
    ],
)
def test_other_texts_are_not_lists(tmp_path, line):
    assert not caption_list.find_delimiter(line + "\n")
    examples.write_files(tmp_path, {"a.txt": line + "\n", "b.png": RED})
    assert formats.detect_format(examples.settings(tmp_path)) == "pairs"


def test_the_text_of_an_image_is_not_a_list(tmp_path):
    documents, _ = read_folder(tmp_path, {"red.png": RED, "red.txt": "blue.png is another image"})
    assert documents == [["<red>", "blue.png is another image"]]


def test_many_texts_are_documents(tmp_path, monkeypatch):
    monkeypatch.setattr(caption_list, "MAX_TEXT_FILES", 2)
    files = {f"{n}.txt": "red.png a cat" for n in range(3)}
    examples.write_files(tmp_path, files | {"red.png": RED})
    assert formats.detect_format(examples.settings(tmp_path)) == "pairs"


def test_a_folder_without_tables_is_reported(tmp_path):
    examples.write_files(tmp_path, {"a.txt": "words"})
    with pytest.raises(UserError, match=r"no \.csv or \.tsv file and no list of captions found"):
        formats.get_reader("csv").list_units(examples.settings(tmp_path, format="csv"))


def test_all_fields_of_captions_by_file_name_are_read_or_counted(tmp_path):
    records = {"red.png": {"caption": "a cat", "tags": "fur"}, "blue.png": {"p": "a dog"}}
    files = {"meta.json": json.dumps(records)} | IMAGES
    documents, stats = read_folder(tmp_path, files)
    assert documents == [["<red>", "a cat"], ["<blue>"]]
    assert stats.unused == {"tags": 1, "p": 1}
    assert not stats.lost
