"""Tests of exchanging texts and images between documents."""

import numpy as np

from oneflow_jax.data import shuffle
from oneflow_jax.data.document import Document, Image, Text


def make_image(value):
    return Image(np.full((2, 2, 3), value, np.uint8))


def test_partners_have_other_texts():
    texts = ["b", "a", "c", "a", "d", "b"]
    partners = shuffle.pair_by_text(texts)
    assert all(texts[partner] != text for text, partner in zip(texts, partners, strict=True))
    assert sorted(partners) == list(range(6))
    assert shuffle.pair_by_text(["a", "a", "a", "b"]) == [3, 3, 3, 1]
    assert shuffle.pair_by_text(["a", "a"]) == [None, None]
    assert shuffle.pair_by_text([]) == []


def test_exchanged_documents_keep_their_order():
    first = Document((make_image(1), Text("one"), make_image(2)))
    second = Document((make_image(3), Text("two"), make_image(4)))
    exchanged = shuffle.exchange([first, second])
    assert [one.original for one in exchanged] == [first, second]
    one = exchanged[0]
    assert one.other_texts.parts == (first.parts[0], second.parts[1], first.parts[2])
    assert one.other_images.parts == (second.parts[0], first.parts[1], second.parts[2])


def test_documents_are_paired_only_with_those_of_the_same_order():
    pair = Document((make_image(1), Text("one")))
    reverse = Document((Text("two"), make_image(2)))
    text_only = Document((Text("three"),))
    assert shuffle.exchange([pair, reverse, text_only, text_only]) == []
    assert [shuffle.has_both(one) for one in (pair, reverse, text_only)] == [True, True, False]
