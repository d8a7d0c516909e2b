import json

import pytest

from oneflow_jax.data.custom import jsonl
from oneflow_jax.data.custom.errors import DataError
from oneflow_jax.errors import UserError
from tests.data.custom import examples

LAYOUTS = {
    "ours": (
        {"document": [{"text": "a"}, {"image": "x.png"}, "b"]},
        ["a", "<x.png>", "b"],
    ),
    "a list": ([{"image": "x.png"}, {"text": "a"}], ["<x.png>", "a"]),
    "a pair": ({"id": 3, "image": "x.png", "text": "a"}, ["<x.png>", "a"]),
    "the other way round": ({"text": "a", "image": "x.png"}, ["a", "<x.png>"]),
    "MMC4": (
        {
            "text_list": ["a", "b"],
            "image_info": [
                {"image_name": "x.png", "matched_text_index": 1},
                {"image_name": "y.png", "matched_text_index": 0},
                {"raw_url": "http://h/z.png", "matched_text_index": 1},
            ],
        },
        ["<y.png>", "a", "<x.png>", "[address, not a file]", "b"],
    ),
    "MMC4 without pictures": ({"text_list": ["a"]}, ["a"]),
    "OBELICS": (
        {"texts": [None, "a", None], "images": ["x.png", None, "http://h/z.png"]},
        ["<x.png>", "a", "[address, not a file]"],
    ),
    "of other lengths": ({"texts": ["a"], "images": []}, ["[unknown layout]"]),
    "of nothing we know": ({"url": "x"}, ["[unknown layout]"]),
    "a number": (7, ["[unknown layout]"]),
    "wrong inside": ({"document": [7]}, ["[unknown layout]"]),
    "MMC4 gone wrong": ({"text_list": ["a"], "image_info": [7]}, ["[unknown layout]"]),
    "text_list of no list": ({"text_list": 7}, ["[unknown layout]"]),
    "traversal": ({"image": "../x.png", "text": "a"}, ["[outside the folder]", "a"]),
}


@pytest.mark.parametrize("name", LAYOUTS)
def test_layouts(tmp_path, name):
    line, expected = LAYOUTS[name]
    (tmp_path / "a.jsonl").write_text(json.dumps(line))
    (raw,) = examples.read_all(jsonl.JsonlReader(), examples.settings(tmp_path))
    assert examples.describe_parts(raw) == expected
    assert raw.location == "a.jsonl, byte 0"


@pytest.mark.parametrize(
    "line", [b"{", b"\xff\xff", b"[" * 100_000, b'{"text": "a"} x', b"9" * 9999]
)
def test_bad_line_drops_only_its_document(tmp_path, line):
    (tmp_path / "a.jsonl").write_bytes(b'{"text": "one"}\n' + line + b'\n\n{"text": "two"}\n')
    documents = list(
        map(
            examples.describe_parts,
            examples.read_all(jsonl.JsonlReader(), examples.settings(tmp_path)),
        )
    )
    assert documents == [["one"], ["[malformed line]"], ["two"]]


@pytest.mark.parametrize("size", [1, 2, 7, 16, 100])
def test_each_line_is_in_one_unit(tmp_path, monkeypatch, size):
    monkeypatch.setattr(jsonl, "MAX_UNIT_BYTES", size)
    texts = ["a", "bb", "größer", "d" * 30, "", "e"]
    for end in ("", "\n"):
        body = "\n".join(json.dumps({"text": text}, ensure_ascii=False) for text in texts) + end
        (tmp_path / "a.jsonl").write_text("\ufeff" + body)
        documents = examples.read_all(jsonl.JsonlReader(), examples.settings(tmp_path))
        assert [raw.parts[0] for raw in documents] == texts


def test_too_long_line_is_skipped(tmp_path, monkeypatch):
    monkeypatch.setattr(jsonl, "MAX_LINE_BYTES", 50)
    lines = [json.dumps({"text": "x" * length}) for length in (5, 5000, 6)]
    (tmp_path / "a.jsonl").write_text("\n".join(lines))
    documents = list(
        map(
            examples.describe_parts,
            examples.read_all(jsonl.JsonlReader(), examples.settings(tmp_path)),
        )
    )
    assert documents == [["xxxxx"], ["[line too long]"], ["xxxxxx"]]


def test_images_are_relative_to_the_file_or_image_root(tmp_path):
    for folder in ("lines", "pictures"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "x.png").write_bytes(folder.encode())
    (tmp_path / "lines" / "a.jsonl").write_text(json.dumps({"image": "x.png"}))
    for images, expected in (("", b"lines"), ("pictures", b"pictures")):
        config = examples.settings(tmp_path, image_root=images)
        (raw,) = examples.read_all(jsonl.JsonlReader(), config)
        assert raw.parts[0].load() == expected


def test_single_file_is_accepted(tmp_path):
    for name in ("a.jsonl", "b.jsonl"):
        (tmp_path / name).write_text(json.dumps({"text": name}))
    documents = examples.read_all(jsonl.JsonlReader(), examples.settings(tmp_path / "b.jsonl"))
    assert list(map(examples.describe_parts, documents)) == [["b.jsonl"]]


def test_missing_lines_are_reported(tmp_path):
    (tmp_path / "a.jsonl").write_text("")
    with pytest.raises(UserError, match=r"no lines found\. Give a folder with \.jsonl"):
        jsonl.JsonlReader().list_units(examples.settings(tmp_path))


def test_utf_16_is_named(tmp_path):
    (tmp_path / "a.jsonl").write_bytes('{"text": "a cat"}\n'.encode("utf-16"))
    settings = examples.settings(tmp_path)
    (unit,) = jsonl.JsonlReader().list_units(settings)
    with pytest.raises(DataError, match="UTF-16") as error:
        list(jsonl.JsonlReader().read(settings, unit))
    assert error.value.reason == "unreadable file"
