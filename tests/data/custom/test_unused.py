"""Tests that fields, files and links that are not used are counted and named."""

import json
import os

import pytest

from oneflow_jax.data.custom import formats, notices, prepare, store
from oneflow_jax.data.custom.errors import DataError
from oneflow_jax.data.custom.stats import MAX_NAMES, OTHER_NAMES, DatasetStats
from oneflow_jax.errors import UserError
from tests.data.custom import examples
from tests.data.custom.test_record_layouts import (
    BLUE,
    PAIR,
    RED,
    lines,
    make_tar,
    read_folder,
    write_parquet,
)

NUM_DOCUMENTS = 20


def prepare_folder(folder, files, **changes):
    """Write files, prepare them, and return the statistics."""
    examples.write_files(folder, files)
    config = examples.settings(folder, **changes)
    return store.open_prepared(prepare.prepare(config, str(folder.parent / "data"), 1)).stats


def many(**fields):
    return lines(*({"caption": f"cat {n}"} | fields for n in range(NUM_DOCUMENTS)))


@pytest.mark.parametrize(
    ("files", "used", "unused"),
    [
        (
            {"a.jsonl": many(image="red.png", id=1, score=0.5), "red.png": RED},
            {"image", "caption"},
            {"id": NUM_DOCUMENTS, "score": NUM_DOCUMENTS},
        ),
        (
            {"a.jsonl": lines(*({"document": [{"text": str(n), "lang": "en"}]}
                                for n in range(NUM_DOCUMENTS)))},
            {"document"},
            {"document[].lang": NUM_DOCUMENTS},
        ),
        (
            {"a.csv": "image,caption,url\n" + "".join(f"red.png,cat {n},u\n"
                                                     for n in range(NUM_DOCUMENTS)),
             "red.png": RED},
            {"image", "caption"},
            {"url": NUM_DOCUMENTS},
        ),
        (
            {"a.tar": make_tar({f"{n}{ending}": content for n in range(NUM_DOCUMENTS)
                                for ending, content in (
                                    (".png", RED), (".json", f'{{"text": "cat {n}", "sha": 1}}'),
                                    (".cls", "3"))})},
            {".png", "json: text"},
            {"json: sha": NUM_DOCUMENTS, ".cls": NUM_DOCUMENTS},
        ),
        (
            {f"{n}{ending}": content for n in range(NUM_DOCUMENTS) for ending, content in (
                (".png", RED), (".txt", f"cat {n}"), (".json", '{"seed": 1}'))},
            {".png", ".txt"},
            {"json: seed": NUM_DOCUMENTS},
        ),
        (
            {"a.json": json.dumps({"info": 1, "records": [
                {"file_name": "red.png", "text": f"cat {n}", "height": 3}
                for n in range(NUM_DOCUMENTS)]}), "red.png": RED},
            {"file_name", "text"},
            {"height": NUM_DOCUMENTS, "info": 1},
        ),
        (
            {"a.jsonl": lines(*(
                {"text_list": [f"cat {n}"], "url": "u",
                 "image_info": [{"image_name": "red.png", "matched_sim": 1}]}
                for n in range(NUM_DOCUMENTS))), "red.png": RED},
            {"text_list", "image_info"},
            {"url": NUM_DOCUMENTS, "image_info[].matched_sim": NUM_DOCUMENTS},
        ),
    ],
)  # fmt: skip
def test_fields_are_counted(tmp_path, files, used, unused):
    stats = prepare_folder(tmp_path / "own", files)
    assert stats.used.keys() == used
    assert stats.unused == unused
    assert stats.unused_files == {}
    sentences = notices.list_notices(stats, {})
    assert len(sentences) == 1 if stats.pictures else 2
    assert all(name in sentences[-1] for name in unused)


def test_columns_of_a_table_are_counted(tmp_path):
    pyarrow = pytest.importorskip("pyarrow")
    (tmp_path / "own").mkdir()
    numbers = list(range(NUM_DOCUMENTS))
    columns = {
        "TEXT": pyarrow.array([f"cat {n}" for n in numbers]),
        "URL": pyarrow.array(["http://h/x.png"] * NUM_DOCUMENTS),
        "similarity": pyarrow.array(numbers),
    }
    write_parquet(tmp_path / "own" / "a.parquet", columns)
    stats = prepare_folder(tmp_path / "own", {})
    assert stats.used == {"TEXT": NUM_DOCUMENTS}
    assert stats.unused == {"URL": NUM_DOCUMENTS, "similarity": NUM_DOCUMENTS}
    first = notices.list_notices(stats, {})[0]
    assert first.startswith(
        "None of the 20 documents has both text and an image: 20 have only text"
    )
    assert "nothing is downloaded" in first


def test_the_number_of_names_is_limited():
    stats = DatasetStats()
    for n in range(MAX_NAMES + 7):
        part = DatasetStats()
        (raw,) = [formats.jsonl.record_document.make_document("x", {"text": "a", f"k{n}": 1}, str)]
        part.add_read(raw)
        stats.merge(part)
    assert len(stats.unused) == MAX_NAMES + 1
    assert stats.unused[OTHER_NAMES] == 7


@pytest.mark.parametrize(
    ("record", "text", "note"),
    [
        ({"text": "a", "caption": "b"}, "a", "the text is 'text', not 'caption'"),
        ({"title": "a", "caption": "b"}, "b", "the text is 'caption', not 'title'"),
        ({"prompt": "a", "title": "b", "alt": "c"}, "a",
         "the text is 'prompt', not 'title', 'alt'"),
        ({"caption": None, "prompt": "b"}, "b", ""),
        ({"caption": " \n", "prompt": "b"}, "b", ""),
        ({"text": [], "caption": [None, ""], "prompt": "b"}, "b", ""),
        ({"caption": "a", "prompt": ""}, "a", ""),
        ({"caption_llava": "a", "caption_blip": "b"}, "a",
         "the text is 'caption_llava', not 'caption_blip'"),
    ],
)  # fmt: skip
def test_a_choice_between_texts_is_named(tmp_path, record, text, note):
    documents, stats = read_folder(
        tmp_path, {"red.png": RED, "a.jsonl": lines({"image": "red.png"} | record)}
    )
    assert documents == [["<red>", text]]
    assert list(stats.notes) == ([note] if note else [])
    if note:
        expected = f"In 1 of 1 documents: {note}. To use other fields, set source.columns."
        assert expected in notices.list_notices(stats, {})


@pytest.mark.parametrize("empty", [None, "", " ", []])
def test_the_first_image_field_with_a_value_is_used(tmp_path, empty):
    values = {"image": empty, "img": empty, "file_name": "red.png", "caption": "a cat"}
    documents, stats = read_folder(tmp_path, {"red.png": RED, "a.jsonl": lines(values)})
    assert documents == PAIR
    assert not stats.lost
    records = {"image": empty, "text": "a"}
    documents, _ = read_folder(tmp_path / "text", {"a.jsonl": lines(records)})
    assert documents == [["a"]]
    records |= {"conditioning_image": "red.png"}
    documents, stats = read_folder(tmp_path / "more", {"a.jsonl": lines(records), "red.png": RED})
    assert documents == [["a"]]
    assert stats.unused == {"conditioning_image": 1}


def test_columns_override_the_choice(tmp_path):
    record = {"text": "a", "alt": "b", "image": "red.png", "thumb": "blue.png"}
    files = {"red.png": RED, "blue.png": BLUE, "a.jsonl": lines(record)}
    documents, stats = read_folder(tmp_path, files, columns=("ALT", "thumb"))
    assert documents == [["b", "<blue>"]]
    assert stats.unused == {"text": 1, "image": 1}
    documents, stats = read_folder(tmp_path, files, columns=("alt", "imgae"))
    assert documents == [["b"]]
    assert stats.notes == {"source.columns: 'imgae' is missing": 1}
    documents, stats = read_folder(tmp_path, files, columns=("nothing",))
    assert documents == []
    assert "none of source.columns" in stats.places["unknown layout"][0]


def test_text_columns_of_unknown_names_are_all_used(tmp_path):
    pyarrow = pytest.importorskip("pyarrow")
    columns = {name: pyarrow.array([name]) for name in ("en", "de", "url", "image_id")}
    write_parquet(tmp_path / "a.parquet", columns)
    documents, stats = read_folder(tmp_path, {})
    assert documents == [["en", "de"]]
    assert list(stats.notes) == ["no text field has a known name; the text is 'en', 'de'"]
    assert stats.unused == {"url": 1, "image_id": 1}


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ({"a.csv": "x,a cat\ny,a dog\n"}, "no column of images or text"),
        ({"a.csv": "http://h/1.png,a cat\nhttp://h/2.png,a dog\n"}, "address, not a file"),
        ({"a.csv": "image,caption\nred.png,a,b\n", "red.png": RED},
         "3 cells, but the header has 2"),
        ({"a.json": json.dumps({"a": [{"x": 1}], "b": [{"x": 1}]})},
         "several keys have lists of records: a, b"),
        ({"a.json": '{"x": '}, "a.json"),
    ],
)  # fmt: skip
def test_unknown_layouts_are_refused_by_name(tmp_path, files, message):
    assert prepare_folder(tmp_path / "own", files).documents.total() == 0
    assert message in "".join(
        marker.read_text() for marker in (tmp_path / "data").rglob("unit-*.json")
    )


def test_files_that_are_not_read_are_counted(tmp_path):
    own = tmp_path / "own"
    stats = prepare_folder(
        own,
        {
            "a.jsonl": many(image="images/red.png"),
            "images/red.png": RED,
            "images/blue.png": BLUE,
            "phone.HEIC": b"x",
            "README.md": "# data",
            ".git/config": "x",
            "notes": "x",
        },
    )
    assert stats.unused_files == {
        ".png": 1,
        ".heic": 1,
        ".md": 1,
        "hidden": 1,
        "without extension": 1,
    }
    assert stats.places[".png"] == ["images/blue.png"]
    assert stats.places["hidden"] == [".git"]
    assert not stats.opened
    (sentence,) = notices.list_notices(stats, {})
    assert sentence == (
        "Files that were not used: .heic (1), .md (1), .png (1), hidden (1), without extension (1)."
    )
    stats = prepare_folder(own, {"b.jsonl": "{}"}, glob="a*")
    assert stats.unused_files["excluded by source.glob"] == 5


def test_links_are_counted_and_named(tmp_path):
    own, away = tmp_path / "own", tmp_path / "away"
    away.mkdir()
    (away / "x.png").write_bytes(RED)
    own.mkdir()
    (own / "x.png").symlink_to(away / "x.png")
    (own / "more").symlink_to(away)
    (own / "gone.png").symlink_to(away / "gone.png")
    with pytest.raises(UserError, match=r"3 of its entries are links .*'\w+.*cp -RL"):
        formats.detect_format(examples.settings(own))
    stats = prepare_folder(own, {f"{n}.txt": f"cat {n}" for n in range(20)} | {"0.png": RED})
    assert stats.unused_files == {"link that leads out of the folder": 3}
    assert set(stats.places["link that leads out of the folder"]) == {"x.png", "more", "gone.png"}


@pytest.fixture
def snapshot(tmp_path):
    """Return a snapshot of a Hugging Face cache, whose files are links to blobs."""
    repository = tmp_path / "hub" / "datasets--me--cats"
    folder = repository / "snapshots" / "0123abcd"
    (repository / "blobs").mkdir(parents=True)
    (folder / "data").mkdir(parents=True)
    files = {"data/a.jsonl": lines({"image": "red.png", "text": "a cat"}), "data/red.png": RED}
    for number, (name, content) in enumerate(files.items()):
        blob = repository / "blobs" / f"{number}beef"
        blob.write_bytes(content if isinstance(content, bytes) else content.encode())
        (folder / name).symlink_to(os.path.relpath(blob, (folder / name).parent))
    return folder


def test_hugging_face_cache_is_read(snapshot):
    assert read_folder(snapshot, {})[0] == PAIR
    assert read_folder(snapshot / "data", {})[0] == PAIR
    assert read_folder(snapshot.parent.parent, {})[0] == PAIR
    assert read_folder(snapshot / "data" / "a.jsonl", {})[0] == PAIR
    (snapshot.parent / "4567").mkdir()
    with pytest.raises(UserError, match=r"has 2 revisions of one data set\. Give one of them"):
        read_folder(snapshot.parent.parent, {})


@pytest.mark.parametrize(
    "target", ["secret.png", "blobs_of_another", "hub/datasets--me--cats/refs"]
)
def test_cache_links_lead_only_to_blobs(snapshot, tmp_path, target):
    secret = tmp_path / target
    if not secret.suffix:
        secret.mkdir()
        secret /= "s.png"
    secret.write_bytes(BLUE)
    (snapshot / "data" / "b.png").symlink_to(secret)
    # A link among the blobs is not followed, either.
    (snapshot.parent.parent / "blobs" / "c").symlink_to(secret)
    (snapshot / "data" / "c.png").symlink_to(snapshot.parent.parent / "blobs" / "c")
    paths = ["b.png", "c.png", "../../../blobs/0beef", f"{tmp_path}/{target}"]
    (snapshot / "data" / "b.jsonl").write_text(lines(*({"image": path} for path in paths)))
    documents, stats = read_folder(snapshot, {})
    assert documents == PAIR
    assert stats.lost == {"outside the folder": 4}
    assert "b.png: a link that leads out of it" in stats.places["outside the folder"][0]


def test_blobs_that_are_a_link_are_not_followed(tmp_path):
    repository = tmp_path / "datasets--me--cats"
    (repository / "snapshots" / "1").mkdir(parents=True)
    (tmp_path / "secret").mkdir()
    (tmp_path / "secret" / "s").write_bytes(RED)
    (repository / "blobs").symlink_to(tmp_path / "secret")
    (repository / "snapshots" / "1" / "a.png").symlink_to(repository / "blobs" / "s")
    with pytest.raises(UserError, match="links that lead out of the folder"):
        read_folder(repository / "snapshots" / "1", {})


def test_link_given_as_the_path_is_read(tmp_path):
    (tmp_path / "away").mkdir()
    (tmp_path / "away" / "b.jsonl").write_text(lines({"text": "a cat"}))
    (tmp_path / "own").mkdir()
    (tmp_path / "own" / "a.jsonl").symlink_to(tmp_path / "away" / "b.jsonl")
    assert read_folder(tmp_path / "own" / "a.jsonl", {})[0] == [["a cat"]]
    with pytest.raises(UserError, match="links that lead out of the folder"):
        read_folder(tmp_path / "own", {})


def test_images_are_found_in_common_folders(tmp_path):
    files = {"json/a.jsonl": lines({"image": "red.png", "text": "a cat"})}
    places = ("images/red.png", "red.png", "json/images/red.png", "json/red.png")
    for number, place in enumerate(places):
        documents, _ = read_folder(tmp_path / str(number), files | {place: RED})
        assert documents == PAIR
    # An image of this name outside of the folder is not used.
    (tmp_path / "red.png").write_bytes(RED)
    documents, stats = read_folder(tmp_path / "none", files)
    assert stats.lost == {"missing file": 1}


@pytest.mark.parametrize(
    ("usage", "expected"),
    [
        ({"texts": {"measured": 9, "longer": 5, "median": 12, "data.text_slot_multiple": 8}},
         "5 of 9 texts are longer than data.text_slot_multiple=8"),
        ({"texts": {"measured": 10, "longer": 5, "median": 12, "data.text_slot_multiple": 8}}, ""),
        ({"texts": {"measured": 9, "longer": 9, "median": 12, "data.text_slot_multiple": 0}}, ""),
        ({"train": {"documents": 9, "cut": 3, "dropped": 2}, "data.overflow": "split",
          "data.sequence_length": 64},
         "5 of 9 training documents are longer than data.sequence_length=64 and are cut into"),
        ({"train": {"documents": 9, "cut": 4, "dropped": 0}, "data.overflow": "split",
          "data.sequence_length": 64}, ""),
    ],
)  # fmt: skip
def test_texts_that_do_not_fit_are_named(usage, expected):
    stats = DatasetStats()
    stats.contents["text and image"] = 3
    assert "".join(notices.list_notices(stats, usage)).startswith(expected)
    assert bool(notices.list_notices(stats, usage)) == bool(expected)


def test_incomplete_documents_are_named(tmp_path):
    files = {f"{n}.txt": f"cat {n}" for n in range(NUM_DOCUMENTS)}
    whole = files | {f"{n}.png": RED for n in range(NUM_DOCUMENTS)}
    stats = prepare_folder(tmp_path / "own", whole | {"alone.png": RED, "text.txt": "blue"})
    assert notices.list_notices(stats, {}) == [
        "Documents without text: 1 of 22, such as alone.",
        "Documents without an image: 1 of 22, such as text.",
    ]


def test_reasons_are_named_in_the_words_of_the_docs():
    stats = DatasetStats()
    for reason in ("not a picture", "damaged picture"):
        stats.add_dropped_part(DataError(reason), "a.png")
    assert notices.list_notices(stats, {}) == [
        "Images and texts dropped, by reason: damaged image (1), not an image (1)."
    ]
