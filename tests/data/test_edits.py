"""Tests that the listed edits turn the old document into the new one."""

import random

import numpy as np
import pytest

from oneflow_jax.data import edits
from oneflow_jax.data.document import Document, Image, Text

RED, BLUE, GREEN = (np.full((2, 2, 3), shade, np.uint8) for shade in (1, 2, 3))


def document(*parts):
    return Document(tuple(Text(p) if isinstance(p, str) else Image(p) for p in parts))


@pytest.mark.parametrize(
    ("before", "after", "lines"),
    [
        (("a cat", RED), ("a cat", RED), []),
        (("a cat", RED), ("a dog", RED), ["2: cat -> dog"]),
        (("a big cat",), ("a cat",), ["2: deleted big"]),
        (("cat",), ("the cat",), ["after 0: inserted the"]),
        (("a cat", RED), ("a cat", BLUE), ["3: replaced <image>"]),
        (("a cat", RED), ("a cat",), ["3: deleted <image>"]),
        (("a", RED, "b"), ("a", RED, BLUE, "b"), ["after 2: inserted <image>"]),
        (("one two",), ("one three four",), ["2: two -> three", "after 2: inserted four"]),
        (("a b", RED), ("c", BLUE), ["1: deleted a", "2: b -> c", "3: replaced <image>"]),
    ],
)
def test_each_kind_of_edit_has_its_line(before, after, lines):
    assert [str(one) for one in edits.diff_documents(document(*before), document(*after))] == lines


@pytest.mark.parametrize("seed", range(20))
def test_edits_turn_one_document_into_the_other(seed):
    rng = random.Random(seed)
    pieces = ["a", "b", "c", RED, BLUE, GREEN]
    before, after = (document(*rng.choices(pieces, k=rng.randint(1, 9))) for _ in range(2))
    names = [item if isinstance(item, str) else "<image>" for item in edits.diff_items(before)]
    gone, changed, added = set(), {}, {}
    for one in edits.diff_documents(before, after):
        if one.old is None:
            added.setdefault(one.index, []).append(one.new)
        elif one.new is None:
            assert names[one.index - 1] == one.old
            gone.add(one.index)
        else:
            assert names[one.index - 1] == one.old
            changed[one.index] = one.new
    rebuilt = [*added.get(0, [])]
    for place, name in enumerate(names, 1):
        rebuilt += [] if place in gone else [changed.get(place, name)]
        rebuilt += added.get(place, [])
    expected = [item if isinstance(item, str) else "<image>" for item in edits.diff_items(after)]
    assert rebuilt == expected
