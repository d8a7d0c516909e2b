"""The edits that are listed are those that were made."""

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
        (("a big cat",), ("a cat",), ["2: took out big"]),
        (("cat",), ("the cat",), ["after 0: put in the"]),
        (("a cat", RED), ("a cat", BLUE), ["3: made <image> anew"]),
        (("a cat", RED), ("a cat",), ["3: took out <image>"]),
        (("a", RED, "b"), ("a", RED, BLUE, "b"), ["after 2: put in <image>"]),
        (("one two",), ("one three four",), ["2: two -> three", "after 2: put in four"]),
        (("a b", RED), ("c", BLUE), ["1: took out a", "2: b -> c", "3: made <image> anew"]),
    ],
)
def test_each_kind_of_edit_has_its_line(before, after, lines):
    assert [str(one) for one in edits.diff_documents(document(*before), document(*after))] == lines


@pytest.mark.parametrize("seed", range(20))
def test_the_edits_lead_from_one_document_to_the_other(seed):
    rng = random.Random(seed)
    pieces = ["a", "b", "c", RED, BLUE, GREEN]
    before, after = (document(*rng.choices(pieces, k=rng.randint(1, 9))) for _ in range(2))
    names = [item if isinstance(item, str) else "<image>" for item in edits.diff_items(before)]
    gone, changed, added = set(), {}, {}
    for one in edits.diff_documents(before, after):
        if one.before is None:
            added.setdefault(one.place, []).append(one.after)
        elif one.after is None:
            assert names[one.place - 1] == one.before
            gone.add(one.place)
        else:
            assert names[one.place - 1] == one.before
            changed[one.place] = one.after
    rebuilt = [*added.get(0, [])]
    for place, name in enumerate(names, 1):
        rebuilt += [] if place in gone else [changed.get(place, name)]
        rebuilt += added.get(place, [])
    expected = [item if isinstance(item, str) else "<image>" for item in edits.diff_items(after)]
    assert rebuilt == expected
