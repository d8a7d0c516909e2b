"""Tests of the layouts of training documents: counts, and the gaps that complete a prompt."""

import dataclasses
import functools

import numpy as np
import pytest

from oneflow_jax.codecs.patches import PatchCodec
from oneflow_jax.data import known_layouts, overflow, vocab
from oneflow_jax.data.document import Document, Gap, Image, Text
from oneflow_jax.data.layout import Layout
from oneflow_jax.errors import UserError

PIXELS = np.zeros((4, 4, 3), np.uint8)
IMAGE = known_layouts.IMAGE


@pytest.fixture(scope="module")
def layout():
    words = ["a fox and an owl", "two animals: first a fox, then an owl"] * 50
    codec = PatchCodec(pixels=4, patch_size=2, image_channels=3, mean=0.0, std=1.0)
    return Layout(vocab.train_sentencepiece(words, 60), codec, length=64, text_slots=6)


def document(*parts):
    return Document(
        tuple(
            Text(part) if isinstance(part, str) else Image(PIXELS) if part is Image else part
            for part in parts
        )
    )


EXAMPLES = (
    document("a fox", Image),
    document("two animals: first a fox", Image, ", then an owl", Image),
    document(Image, "an owl and a fox and an owl"),
)


@functools.cache
def count(layout):
    return known_layouts.count([EXAMPLES[0], *EXAMPLES, EXAMPLES[0], EXAMPLES[1]], layout)


def test_a_layout_has_the_slots_of_its_documents(layout):
    """Generating a layout fills the slots of a document, and no text slot is given."""
    for example in EXAMPLES:
        known = known_layouts.count([example], layout)
        (prompt,) = known_layouts.fit(document(Gap("document")), layout, known).prompts
        row, prompt_row = layout.row(example), layout.prompt_row(prompt)
        for name in ("modality", "position", "span"):
            assert row[name].tolist() == prompt_row[name].tolist(), name
        assert prompt_row["is_given"].tolist() == (prompt_row["position"][:, 0] == 0).tolist()


@pytest.mark.parametrize("example", EXAMPLES)
def test_documents_that_exceed_a_row_are_not_counted(layout, example):
    slots = overflow.count_slots(layout, example.parts)
    for length, counted in ((slots, 1), (slots - 1, 0)):
        known = known_layouts.count([example], dataclasses.replace(layout, length=length))
        assert known.documents == counted


def test_each_text_is_encoded_once(layout, monkeypatch):
    encoded = []
    encode = type(layout.vocab).encode

    def record(self, text, **options):
        encoded.append(text)
        return encode(self, text, **options)

    monkeypatch.setattr(type(layout.vocab), "encode", record)
    known_layouts.count([EXAMPLES[1]], layout)
    assert sorted(encoded) == [", then an owl", "two animals: first a fox"]


def test_probabilities_without_a_prompt_are_frequencies(layout):
    found = known_layouts.fit(document(Gap("document")), layout, count(layout))
    assert count(layout).counts == (3, 2, 1)
    assert count(layout).documents == 6
    np.testing.assert_allclose(found.probs, [3 / 6, 2 / 6, 1 / 6])
    assert known_layouts.KnownLayouts.from_json(count(layout).to_json()) == count(layout)


def test_only_frequent_layouts_that_fit_a_row_are_kept(layout, monkeypatch):
    monkeypatch.setattr(known_layouts, "MAX_LAYOUTS", 1)
    known = known_layouts.count([EXAMPLES[1], EXAMPLES[0], EXAMPLES[0]], layout)
    assert len(known.layouts) == 1
    assert known.counts == (2,)
    assert known.documents == 3
    short = dataclasses.replace(layout, length=12)
    assert known_layouts.count(EXAMPLES, short).documents == 1


def test_a_prompt_keeps_the_layouts_that_begin_as_it_does(layout):
    known = known_layouts.KnownLayouts(
        ((6, IMAGE), (IMAGE, 12), (6, IMAGE, 6, IMAGE), (12, IMAGE)), (4, 3, 2, 1), 10
    )
    fitted = known_layouts.fit(document("a fox", Gap("document")), layout, known)
    tokens = len(layout.vocab.encode("a fox"))
    assert tokens < 5
    assert [prompt.parts for prompt in fitted.prompts] == [
        (Text("a fox"), Gap("text", 5 - tokens), Gap("image")),
        (Text("a fox"), Gap("text", 5 - tokens), Gap("image"), Gap("text"), Gap("image")),
        (Text("a fox"), Gap("text", 6 - tokens), Gap("text"), Gap("image")),
    ]
    np.testing.assert_allclose(fitted.probs, [4 / 7, 2 / 7, 1 / 7])
    # The text before an image is complete, so the layout with 12 slots is out.
    fitted = known_layouts.fit(document("a fox", Gap("image"), Gap("document")), layout, known)
    assert [len(prompt.parts) for prompt in fitted.prompts] == [2, 4]
    # Nothing is left to generate after a given image, so this layout is out.
    (prompt,) = known_layouts.fit(document("a fox", Image, Gap("document")), layout, known).prompts
    assert prompt.parts[2:] == (Gap("text"), Gap("image"))
    for row in (layout.prompt_row(one) for one in fitted.prompts):
        assert len(row["modality"]) in (1 + 6 + 4, 1 + 2 * (6 + 4))


def test_bayes_rule(layout):
    found = known_layouts.fit(document(Gap("document")), layout, count(layout))
    updated = found.update(np.array([1000.0, 1000.0 - np.log(3.0), np.inf]))
    np.testing.assert_allclose(updated.probs, [1 / 3, 2 / 3, 0])


@pytest.mark.parametrize(
    ("parts", "message"),
    [
        ((Gap("document"), "a fox"), "needs it as the last part"),
        ((Gap("document"), Gap("document")), "needs it as the last part"),
        ((Image, Image, Gap("document")), "no frequent training document"),
        (("a fox and an owl " * 4, Gap("document")), "no frequent training document"),
    ],
)
def test_prompts_that_no_layout_fits_are_refused(layout, parts, message):
    with pytest.raises(UserError, match=message):
        known_layouts.fit(document(*parts), layout, count(layout))


def test_unknown_layouts_are_reported(layout):
    with pytest.raises(UserError, match=r"an earlier version trained it. Write <text> and <image>"):
        known_layouts.fit(document(Gap("document")), layout, None)
