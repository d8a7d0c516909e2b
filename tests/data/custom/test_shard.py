"""Tests of cleaning raw documents."""

import numpy as np
import pytest

from oneflow_jax.data.custom import errors, shard
from oneflow_jax.data.custom.errors import DataError
from oneflow_jax.data.custom.reader import RawDocument, RawImage
from oneflow_jax.data.custom.stats import MAX_EXAMPLES, DatasetStats
from oneflow_jax.data.document import Document, Image, Text
from tests.data.custom import examples


def clean(*parts, error=None):
    tally = DatasetStats()
    document = shard.clean_document(
        RawDocument("here", parts, error), examples.settings("x"), tally
    )
    return document, tally


def raw_image(data=None):
    return RawImage("a.png", lambda: examples.png() if data is None else data)


def test_text_and_images_are_kept_in_order():
    document, tally = clean("a", raw_image(), b"b")
    assert [type(part) for part in document.parts] == [Text, Image, Text]
    assert document.text() == "a b"
    assert document.images()[0].shape == (4, 4, 3)
    assert not tally.dropped + tally.lost + tally.repaired


def test_broken_parts_are_dropped_from_a_document():
    document, tally = clean("a", raw_image(b""), raw_image(), DataError("missing file"), 7)
    assert [type(part) for part in document.parts] == [Text, Image]
    assert tally.lost == {"empty picture": 1, "missing file": 1, "not words": 1}
    assert tally.places["missing file"] == ["here"]


@pytest.mark.parametrize(
    ("parts", "reason"),
    [
        ((), "empty document"),
        (("",), "empty document"),
        (("words", raw_image(b"x")), "no picture left"),
        (("words", DataError("address, not a file")), "no picture left"),
    ],
)
def test_document_without_usable_parts_is_dropped(parts, reason):
    document, tally = clean(*parts)
    assert document is None
    assert tally.dropped == {reason: 1}


def test_text_without_images_is_a_document():
    assert clean("words")[0] == Document((Text("words"),))


def test_duplicates_share_a_split_and_fractions_are_met():
    def document(n):
        plain = np.broadcast_to(np.array([n % 256, 0, 255], np.uint8), (2, 2, 3))
        return Document((Text(f"number {n}"), Image(plain)))

    sides = [shard.assign_split(document(n), 0.25) for n in range(2000)]
    assert sides == [shard.assign_split(document(n), 0.25) for n in range(2000)]
    assert 0.2 < sides.count("heldout") / 2000 < 0.3
    ours, theirs = document(1), Document((Text("number 1"), Image(np.zeros((2, 2, 3), np.uint8))))
    assert {shard.assign_split(ours, share) for share in (0.001, 0.999)} == {"train", "heldout"}
    thresholds = [
        next(
            share
            for share in np.linspace(0, 1, 1000)
            if shard.assign_split(each, share) == "heldout"
        )
        for each in (ours, theirs)
    ]
    assert thresholds[0] != thresholds[1]


def test_all_captions_of_an_image_are_in_one_split():
    rng = np.random.default_rng(0)
    pictures = [Image(rng.integers(0, 256, (2, 2, 3), np.uint8)) for _ in range(200)]
    sides = [
        {
            shard.assign_split(Document((Text(f"caption {n}"), picture)), 0.3),
            shard.assign_split(Document((picture, Text("another"), Text(f"{n}"))), 0.3),
        }
        for n, picture in enumerate(pictures)
    ]
    assert all(len(side) == 1 for side in sides)
    assert 0.2 < sides.count({"heldout"}) / len(sides) < 0.4


def test_only_first_locations_are_recorded_and_counts_add_up():
    whole = DatasetStats()
    for n in range(4):
        part = DatasetStats()
        part.add_dropped(DataError("malformed line", "why"), f"line {2 * n}")
        part.add_dropped(DataError("malformed line"), f"line {2 * n + 1}")
        part.add_kept(Document((Text("a b c"),)), "train", "a.txt")
        whole.merge(DatasetStats.from_dict(part.to_dict()))
    assert whole.dropped == {"malformed line": 8}
    first = ["line 0: why", "line 1", "line 2: why", "line 3", "line 4: why"]
    assert whole.places["malformed line"] == first
    assert len(first) == MAX_EXAMPLES
    assert (whole.documents["train"], whole.words, whole.lengths["2"]) == (4, 12, 4)


def test_every_reason_has_a_description():
    with pytest.raises(KeyError):
        DataError("some other reason")
    assert not errors.DROP_REASONS.keys() & errors.REPAIRS.keys()
