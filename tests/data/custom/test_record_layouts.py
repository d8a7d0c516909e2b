"""Tests of common layouts of data sets: which texts and images of a folder become documents."""

import base64
import io
import json
import tarfile

import numpy as np
import pytest
from PIL import Image

from oneflow_jax.data.custom import formats, shard
from oneflow_jax.data.custom.stats import DatasetStats
from oneflow_jax.data.document import Text
from tests.data.custom import examples

COLORS = {(255, 0, 0): "<red>", (0, 0, 255): "<blue>", (0, 128, 0): "<green>"}
RED, BLUE = examples.png("red", (8, 8)), examples.png("blue", (8, 8))
RED_BASE64 = base64.b64encode(RED).decode()


def read_folder(folder, files, **changes):
    """Write files, and return the documents as lists of texts and colors, and the statistics."""
    examples.write_files(folder, files)
    settings = examples.settings(folder, **changes)
    known = formats.detect_format(settings)
    stats = DatasetStats()
    documents = []
    reader = formats.get_reader(known)
    # A member of a tar file can be read only until the next document is read.
    for raw in (raw for unit in reader.list_units(settings) for raw in reader.read(settings, unit)):
        stats.add_read(raw)
        document = shard.clean_document(raw, settings, stats)
        if document is not None:
            documents.append([describe(part) for part in document.parts])
    return documents, stats


def describe(part):
    return part.text if isinstance(part, Text) else COLORS[tuple(int(v) for v in part.pixels[2, 2])]


def lines(*records):
    return "".join(json.dumps(record) + "\n" for record in records)


PAIR = [["<red>", "a cat"]]

RECORDS = {
    "image and caption": ({"id": 1, "image": "red.png", "caption": "a cat"}, PAIR[0]),
    "the names in capitals": ({"IMAGE": "red.png", "TEXT": "a cat"}, PAIR[0]),
    "a list of captions": ({"image": "red.png", "captions": ["a", "b"]}, ["<red>", "a", "b"]),
    "a prompt and its image": ({"prompt": "a cat", "image_path": "red.png"}, ["a cat", "<red>"]),
    "a list of images": (
        {"images": ["red.png", "blue.png"], "text": "a"},
        ["<red>", "<blue>", "a"],
    ),
    "an object with a path": ({"image": {"path": "red.png"}, "caption": "a cat"}, PAIR[0]),
    "base64": ({"image": RED_BASE64, "caption": "a cat"}, PAIR[0]),
    "a data URI": ({"image": f"data:image/png;base64,{RED_BASE64}", "caption": "a cat"}, PAIR[0]),
    "an object with base64": ({"image": {"bytes": RED_BASE64}, "caption": "a cat"}, PAIR[0]),
    "LLaVA": (
        {
            "id": "1",
            "image": "red.png",
            "conversations": [
                {"from": "human", "value": "<image>\nWhat is it?"},
                {"from": "gpt", "value": "a cat"},
            ],
        },
        ["<red>", "What is it?", "a cat"],
    ),
    "LLaVA, the image in the middle and two of them": (
        {
            "image": ["red.png", "blue.png"],
            "conversations": [
                {"from": "human", "value": "Is <image> like <image>?"},
                {"from": "gpt", "value": "no"},
            ],
        },
        ["Is", "<red>", "like", "<blue>", "?", "no"],
    ),
    "LLaVA without a place for the image": (
        {"image": "red.png", "conversations": [{"from": "gpt", "value": "a cat"}]},
        PAIR[0],
    ),
    "LLaVA without an image": (
        {"conversations": [{"from": "human", "value": "hi"}, {"from": "gpt", "value": "ho"}]},
        ["hi", "ho"],
    ),
    "messages with one part that is not in a list": (
        {"image": "red.png", "messages": [{"content": {"type": "text", "text": "a cat"}}]},
        PAIR[0],
    ),
    "messages with parts": (
        {
            "messages": [
                {
                    "role": "user",
                    "content": [
                        {"type": "text", "text": "What is"},
                        {"type": "image_url", "image_url": {"url": "red.png"}},
                    ],
                },
                {"role": "assistant", "content": "a cat"},
            ]
        },
        ["What is", "<red>", "a cat"],
    ),
    "messages whose images are in a list beside them": (
        {
            "images": ["red.png", "blue.png"],
            "messages": [
                {"role": "user", "content": [{"type": "image"}, {"type": "text", "text": "a"}]},
                {"role": "assistant", "content": "<image> b"},
            ],
        },
        ["<red>", "a", "<blue>", "b"],
    ),
    "a document of typed parts": (
        {"document": [{"type": "text", "text": "a"}, {"type": "image", "path": "red.png"}]},
        ["a", "<red>"],
    ),
    "a document whose texts are captions": (
        {"document": [{"image": "red.png"}, {"caption": "a cat"}]},
        PAIR[0],
    ),
    "OBELICS with other keys": (
        {"images": ["red.png", None], "texts": [None, "a cat"], "metadata": "m"},
        PAIR[0],
    ),
    "the Cauldron": (
        {"images": ["red.png"], "texts": [{"user": "What?", "assistant": "a cat", "source": "s"}]},
        ["<red>", "What?", "a cat"],
    ),
    "visual questions": (
        {"image": "red.png", "question": "What?", "answer": "a cat", "question_id": 3},
        ["<red>", "What?", "a cat"],
    ),
    "MMC4": (
        {"text_list": ["a"], "image_info": [{"image_name": "red.png", "matched_text_index": 0}]},
        ["<red>", "a"],
    ),
}


@pytest.mark.parametrize("name", RECORDS)
def test_a_record_is_a_document(tmp_path, name):
    record, expected = RECORDS[name]
    images = {"red.png": RED, "blue.png": BLUE}
    documents, stats = read_folder(tmp_path, {"a.jsonl": lines(record), **images})
    assert documents == [expected]
    assert not stats.lost


COCO = {
    "info": {"year": 2017},
    "images": [{"id": 7, "file_name": "red.png"}, {"id": 8, "file_name": "blue.png"}],
    "annotations": [
        {"id": 1, "image_id": 7, "caption": "a cat"},
        {"id": 2, "image_id": 8, "caption": "a dog"},
        {"id": 3, "image_id": 7, "caption": "a red cat"},
    ],
}
COCO_DOCUMENTS = [["<red>", "a cat", "a red cat"], ["<blue>", "a dog"]]
KARPATHY = {
    "dataset": "coco",
    "images": [
        {"filename": "red.png", "split": "train", "sentences": [{"raw": "a"}, {"raw": "b"}]},
    ],
}

FOLDERS = {
    "ImageFolder, JSON lines": (
        {"red.png": RED, "metadata.jsonl": lines({"file_name": "red.png", "text": "a cat"})},
        PAIR,
    ),
    "ImageFolder, CSV": ({"red.png": RED, "metadata.csv": "file_name,text\nred.png,a cat\n"}, PAIR),
    "ImageFolder, nested": (
        {
            "train/0/red.png": RED,
            "train/metadata.jsonl": lines({"file_name": "0/red.png", "caption": "a cat"}),
            "test/metadata.jsonl": lines({"file_name": "blue.png", "caption": "a dog"}),
            "test/blue.png": BLUE,
        },
        [["<blue>", "a dog"], ["<red>", "a cat"]],
    ),
    "ImageFolder, nested CSV": (
        {"train/0/red.png": RED, "train/metadata.csv": 'file_name,text\n0/red.png,"a\ncat"\n'},
        PAIR,
    ),
    "ImageFolder with two images a line": (
        {
            "metadata.jsonl": lines(
                {"before_file_name": "red.png", "after_file_name": "blue.png", "text": "a"}
            ),
            "red.png": RED,
            "blue.png": BLUE,
        },
        [["<red>", "<blue>", "a"]],
    ),
    "a README beside JSON lines": (
        {
            "README.md": "# A data set",
            "red.png": RED,
            "a.jsonl": lines({"image": "red.png", "text": "a cat"}),
        },
        PAIR,
    ),
    "a README beside pairs": (
        {"README.md": "# A data set", "LICENSE.txt": "x", "a.png": RED, "a.txt": "a cat"},
        PAIR,
    ),
    "CSV, a line end in the header": (
        {"a.csv": '"image",caption,"a\nnote"\nred.png,a cat,1\n', "red.png": RED},
        PAIR,
    ),
    "a colon in a name": (
        {"a.jsonl": lines({"image": "cat:1.png", "caption": "a cat"}), "cat:1.png": RED},
        PAIR,
    ),
    "a page with placeholders of images": (
        {
            "a.html": "<img src='data:image/gif;base64,R0lGODlhAQABAAAAACw=' data-src='red.png'>"
            "<p>a cat</p>",
            "red.png": RED,
        },
        PAIR,
    ),
    "a page with images of several sizes": (
        {"a.html": "<img srcset='red.png 1x, big.png 2x'><p>a cat</p>", "red.png": RED},
        PAIR,
    ),
    "Flickr30k": (
        {
            "results.csv": "image_name| comment_number| comment\nred.png| 0| a cat\n",
            "red.png": RED,
        },
        PAIR,
    ),
    "CSV": ({"a.csv": "id,caption,filepath\n1,a cat,i/red.png\n", "i/red.png": RED}, PAIR),
    "TSV": ({"a.tsv": "image\tcaption\nred.png\ta \"cat\"\n", "red.png": RED},
            [["<red>", 'a "cat"']]),
    "CSV of a spreadsheet": (
        {"a.csv": "\ufeffImage;Caption\r\nred.png;a cat\r\n", "red.png": RED},
        PAIR,
    ),
    "COCO": ({"captions.json": json.dumps(COCO), "red.png": RED, "blue.png": BLUE}, COCO_DOCUMENTS),
    "COCO, as it is unpacked": (
        {
            "annotations/captions_train2017.json": json.dumps(COCO),
            "train2017/red.png": RED,
            "train2017/blue.png": BLUE,
        },
        COCO_DOCUMENTS,
    ),
    "Karpathy's splits": ({"d.json": json.dumps(KARPATHY), "red.png": RED}, [["<red>", "a", "b"]]),
    "a list in a JSON file": (
        {"llava.json": json.dumps([RECORDS["LLaVA"][0]]), "images/red.png": RED},
        [RECORDS["LLaVA"][1]],
    ),
    "records under one key": (
        {"a.json": json.dumps({"version": 1, "data": [{"image": "red.png", "text": "a cat"}]}),
         "red.png": RED},
        PAIR,
    ),
    "captions by file name": (
        {"captions.json": json.dumps({"red.png": "a cat"}), "red.png": RED},
        PAIR,
    ),
    "JSON lines in a .json file": (
        {"a.json": lines(*[{"image": "red.png", "text": "a cat"}] * 2), "red.png": RED},
        PAIR * 2,
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", FOLDERS)
def test_a_folder_is_its_documents(tmp_path, name):
    files, expected = FOLDERS[name]
    documents, stats = read_folder(tmp_path, files)
    assert documents == expected
    assert not stats.lost
    assert not stats.dropped


PAIRS = {
    "dots in names": (
        {
            "Screenshot at 10.30.22.png": RED,
            "Screenshot at 10.30.22.txt": "a cat",
            "Screenshot at 10.31.05.png": BLUE,
            "Screenshot at 10.31.05.txt": "a dog",
        },
        [["<red>", "a cat"], ["<blue>", "a dog"]],
    ),
    "dots in names, without texts": (
        {"Screenshot at 10.30.22.png": RED, "Screenshot at 10.31.05.png": BLUE},
        [["<red>"], ["<blue>"]],
    ),
    "versions": (
        {"v1.2.png": RED, "v1.2.txt": "a cat", "v1.3.png": BLUE, "v1.3.caption": "a dog"},
        [["<red>", "a cat"], ["<blue>", "a dog"]],
    ),
    "dates": (
        {"2024.05.01.png": RED, "2024.05.01.json": '{"caption": "a cat"}', "2024.05.02.png": BLUE},
        [["<red>", "a cat"], ["<blue>"]],
    ),
    "the text is named after the file": (
        {"a.png": RED, "a.png.txt": "a cat", "b.png": BLUE, "b.png.json": '{"text": "a dog"}'},
        [["<red>", "a cat"], ["<blue>", "a dog"]],
    ),
    "several images, as documented": (
        {"a.0.png": RED, "a.1.png": BLUE, "a.txt": "a cat"},
        [["<red>", "<blue>", "a cat"]],
    ),
    "several texts": (
        {"a.png": RED, "a.de.txt": "eine Katze", "a.en.txt": "a cat"},
        [["<red>", "eine Katze", "a cat"]],
    ),
    "the caption under another key": (
        {"a.png": RED, "a.json": '{"prompt": "a cat", "seed": 3}'},
        PAIR,
    ),
    "JSON with a byte order mark": (
        {"a.png": RED, "a.json": '\ufeff{"caption": "a cat"}'},
        PAIR,
    ),
    "JSON in UTF-16": ({"a.png": RED, "a.json": '{"caption": "a cat"}'.encode("utf-16")}, PAIR),
    "folders of images and of captions": (
        {"images/a.png": RED, "images/b.png": BLUE, "captions/a.txt": "a cat",
         "captions/b.txt": "a dog"},
        [["<red>", "a cat"], ["<blue>", "a dog"]],
    ),
    "folders of images and of texts, nested": (
        {"img/x/a.png": RED, "img/y/a.png": BLUE, "text/y/a.txt": "a dog", "text/x/a.txt": "a cat"},
        [["<red>", "a cat"], ["<blue>", "a dog"]],
    ),
    "a folder of captions beside images": (
        {"a.png": RED, "captions/a.json": '{"caption": "a cat"}'}, PAIR
    ),
    "equal names in folders of classes": (
        {"cat/a.png": RED, "dog/a.png": BLUE, "dog/a.txt": "a dog"},
        [["<red>"], ["<blue>", "a dog"]],
    ),
    "names that differ in letter case": ({"Cat.PNG": RED, "cat.txt": "a cat"}, PAIR),
    "two images whose names differ in letter case": (
        {"A.png": RED, "a.png": BLUE, "a.txt": "a dog"},
        [["<red>"], ["<blue>", "a dog"]],
    ),
    "a folder of masks beside those of images and captions": (
        {"images/a.png": RED, "masks/a.png": BLUE, "captions/a.txt": "a cat"},
        [["<red>", "a cat"], ["<blue>"]],
    ),
    "captions in a list": ({"a.png": RED, "a.json": '{"captions": ["a", "b"]}'},
                           [["<red>", "a", "b"]]),
}  # fmt: skip


@pytest.mark.parametrize("name", PAIRS)
def test_pairs_are_documents(tmp_path, name):
    files, expected = PAIRS[name]
    documents, stats = read_folder(tmp_path, files)
    assert documents == expected
    assert not stats.dropped


def make_tar(members):
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w") as tar:
        for name, content in members.items():
            content = content if isinstance(content, bytes) else content.encode()
            info = tarfile.TarInfo(name)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    return file.getvalue()


TARS = {
    "img2dataset": (
        {"0.jpg": RED, "0.txt": "a cat", "0.json": '{"url": "http://h", "width": 3}'},
        PAIR,
    ),
    "the caption in the JSON": ({"0.jpg": RED, "0.json": '{"Caption": "a cat", "sha": "x"}'}, PAIR),
    "a prompt": ({"0.png": RED, "0.json": '{"prompt": "a cat"}'}, PAIR),
    "dots in names": (
        {"at 1.2.png": RED, "at 1.2.txt": "a cat", "at 1.3.png": BLUE, "at 1.3.txt": "a dog"},
        [["<red>", "a cat"], ["<blue>", "a dog"]],
    ),
    "a conversation": (
        {
            "0.png": RED,
            "0.json": json.dumps({"conversations": [{"from": "gpt", "value": "<image> a cat"}]}),
        },
        PAIR,
    ),
    "two images of one key": ({"0.seg.png": RED, "0.rgb.png": BLUE}, [["<red>", "<blue>"]]),
}


@pytest.mark.parametrize("name", TARS)
def test_tar_files_are_documents(tmp_path, name):
    members, expected = TARS[name]
    documents, _ = read_folder(tmp_path, {"a.tar": make_tar(members)})
    assert documents == expected


def write_parquet(path, columns):
    pyarrow = pytest.importorskip("pyarrow")
    tables = pytest.importorskip("pyarrow.parquet")
    path.parent.mkdir(parents=True, exist_ok=True)
    tables.write_table(pyarrow.table(columns), path)


def make_columns(name):
    """Return the columns of a table with one row, for the test case `name`."""
    pa = pytest.importorskip("pyarrow")
    image = pa.array([{"bytes": RED, "path": "red.png"}])
    text = pa.array(["a cat"])
    return {
        "categories": {"image": image, "caption": text.dictionary_encode()},
        "string views": {"image": image, "text": text.cast(pa.string_view())},
        "large strings": {"image": image, "text": text.cast(pa.large_string())},
        "capitals": {"TEXT": text, "IMAGE": image},
        "binary text": {"image": image, "caption": pa.array([b"a cat"])},
        "lists of categories": {
            "image": image,
            "captions": pa.ListArray.from_arrays([0, 1], text.dictionary_encode()),
        },
        "paths": {"image": pa.array(["red.png"]), "caption": text},
        "paths as categories": {"image": pa.array(["red.png"]).dictionary_encode(), "text": text},
        "paths under another name": {"file_name": pa.array(["red.png"]), "text": text},
        "fixed-size binary": {
            "image": pa.array([RED], pa.binary(len(RED))),
            "text": text,
        },
        "large binary": {"jpg": pa.array([RED], pa.large_binary()), "txt": text},
        "binary views": {"img": pa.array([RED], pa.binary_view()), "text": text},
        "base64": {"image": pa.array([RED_BASE64]), "text": text},
        "base64 as bytes": {"image": pa.array([RED_BASE64.encode()]), "text": text},
        "data URIs": {"image": pa.array([f"data:image/png;base64,{RED_BASE64}"]), "text": text},
        "a path in the struct": {"image": pa.array([{"bytes": None, "path": "red.png"}]),
                                 "text": text},
        "large binary in the struct": {
            "image": pa.array(
                [{"bytes": RED, "path": "x"}],
                pa.struct([("bytes", pa.large_binary()), ("path", pa.large_string())]),
            ),
            "text": text,
        },
        "lists of images": {"images": pa.array([[{"bytes": RED, "path": None}]]), "text": text},
        "fixed-size lists": {
            "image": image, "text": pa.FixedSizeListArray.from_arrays(text, 1),
        },
        "conversations": {
            "image": image,
            "conversations": pa.array([[{"from": "gpt", "value": "<image>a cat"}]]),
        },
        "messages": {
            "images": pa.array([[{"bytes": RED, "path": None}]]),
            "messages": pa.array(
                [[{"role": "user", "content": [{"type": "image", "text": None},
                                               {"type": "text", "text": "a cat"}]}]]
            ),
        },
        "the Cauldron": {
            "images": pa.array([[{"bytes": RED, "path": None}]]),
            "texts": pa.array([[{"user": "a cat", "assistant": None, "source": "s"}]]),
        },
        "a hash beside": {
            "image": image, "caption": text, "phash": pa.array([b"12345678"], pa.binary(8)),
            "URL": pa.array(["http://h"]),
        },
    }[name]  # fmt: skip


TABLES = (
    *("categories", "string views", "large strings", "capitals", "binary text"),
    *("lists of categories", "paths", "paths as categories", "paths under another name"),
    *("fixed-size binary", "large binary", "binary views", "base64", "base64 as bytes"),
    *("data URIs", "a path in the struct", "large binary in the struct", "lists of images"),
    *("fixed-size lists", "conversations", "messages", "the Cauldron", "a hash beside"),
)


@pytest.mark.parametrize("name", TABLES)
def test_rows_are_documents(tmp_path, name):
    write_parquet(tmp_path / "a.parquet", make_columns(name))
    documents, stats = read_folder(tmp_path, {"red.png": RED})
    assert documents == PAIR
    assert not stats.lost


def test_arrow_files_that_datasets_saves_are_read(tmp_path):
    pyarrow = pytest.importorskip("pyarrow")
    table = pyarrow.table(make_columns("categories"))
    with pyarrow.ipc.new_stream(str(tmp_path / "data-00000-of-00001.arrow"), table.schema) as file:
        file.write_table(table)
    with pyarrow.ipc.new_file(str(tmp_path / "other.arrow"), table.schema) as file:
        file.write_table(table)
    (tmp_path / "dataset_info.json").write_text("{}")
    (tmp_path / "state.json").write_text("{}")
    assert read_folder(tmp_path, {})[0] == PAIR * 2


def mpo(*colors, image_format="MPO"):
    first, *rest = (Image.new("RGB", (64, 64), color) for color in colors)
    file = io.BytesIO()
    first.save(file, image_format, save_all=True, append_images=rest)
    return file.getvalue()


@pytest.mark.parametrize(
    ("name", "data"),
    [
        ("a.jpg", mpo("red", "blue")),
        ("a.jpg", mpo("red", "blue", "green")),
        ("a.mpo", mpo("red", "blue")),
        ("a.jpg", mpo("red", "blue")[:-100]),
        ("a.tif", mpo("red", "blue", image_format="TIFF")),
    ],
)
def test_a_file_that_holds_a_second_image_gives_its_first(tmp_path, name, data):
    files = {name: data, "a.txt": "a cat"}
    for path, content in files.items():
        (tmp_path / path).write_bytes(content if isinstance(content, bytes) else content.encode())
    settings = examples.settings(tmp_path)
    stats = DatasetStats()
    (raw,) = examples.read_all(formats.get_reader("pairs"), settings)
    document = shard.clean_document(raw, settings, stats)
    assert document is not None, stats
    assert (np.abs(document.images()[0][2, 2].astype(int) - (254, 0, 0)) < 4).all()
    assert stats.repaired == {"first frame": 1}
