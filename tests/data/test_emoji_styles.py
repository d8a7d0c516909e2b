"""Tests of documents in several styles: the text is correct, and training has no held-out pairs."""

import collections
import itertools

import numpy as np
import pytest

from oneflow_jax import errors
from oneflow_jax.data import (
    emoji_styles,
    labels,
    sentences,
    sources,
    style_captions,
    style_drawings,
)
from oneflow_jax.data.document import Document, Text
from tests.data import small_style_packages

SETTINGS = {
    "concepts": 20,
    "styles": small_style_packages.STYLES,
    "min_styles": 3,
    "pixels": 16,
    "documents": 400,
    "held_out_documents": 60,
}
SPLITS = ("train", "heldout", "combinations", "compositions")


@pytest.fixture(scope="module")
def settings(packages_folder):
    return SETTINGS | {"path": str(packages_folder)}


@pytest.fixture(scope="module")
def loaded(settings):
    return emoji_styles.Settings(**settings).load_drawings()


@pytest.fixture(scope="module")
def documents(settings, tmp_path_factory):
    folder = tmp_path_factory.mktemp("styles")
    return {
        split: [*sources.open_dataset("emoji_styles", folder, split, **settings)]
        for split in SPLITS
    }


def shown_drawings(document, loaded):
    """Return the drawing with the pixels of each image. No two drawings have equal pixels."""
    return [
        next(drawing for drawing in loaded if np.array_equal(drawing.pixels, pixels))
        for pixels in document.images()
    ]


def labels_of(document, loaded):
    return sentences.expected_names(
        style_captions.split_keywords(document)[0], labels.list_kinds(loaded)
    )


def test_text_and_images_agree_in_every_document(documents, loaded):
    for document in itertools.chain(*documents.values()):
        named = labels_of(document, loaded)
        assert named is not None, document.text()
        for label, drawing in zip(named, shown_drawings(document, loaded), strict=True):
            style, name = labels.split_label(label)
            assert name == drawing.name
            assert style in (None, drawing.style)


def test_what_is_held_out_is_not_in_training(documents, loaded):
    pairs = {
        split: {
            (drawing.name, drawing.style)
            for document in documents[split]
            for drawing in shown_drawings(document, loaded)
        }
        for split in SPLITS
    }
    names = {split: {name for name, _ in pairs[split]} for split in SPLITS}
    assert pairs["train"] == {(d.name, d.style) for d in loaded if d.in_training}
    assert pairs["compositions"] == {(d.name, d.style) for d in loaded if d.pair_held_out}
    assert names["compositions"] <= names["train"]
    assert {style for _, style in pairs["compositions"]} <= {style for _, style in pairs["train"]}
    assert names["heldout"] == {d.name for d in loaded if d.name_held_out}
    assert not names["heldout"] & names["train"]
    assert pairs["combinations"] <= pairs["train"]
    combined = {
        split: {
            tuple(labels.split_label(label)[1] for label in labels_of(document, loaded))
            for document in documents[split]
            if len(document.images()) > 1
        }
        for split in ("train", "combinations")
    }
    assert not combined["train"] & combined["combinations"]


def test_compositions_name_their_style_and_have_one_image(documents, loaded):
    for document in documents["compositions"]:
        (label,) = labels_of(document, loaded)
        assert labels.split_label(label)[0] is not None
        assert len(document.images()) == 1


def test_fractions_are_those_of_the_settings(documents, loaded):
    train = documents["train"]
    styled = [labels.split_label(labels_of(one, loaded)[0])[0] is not None for one in train]
    single = [len(one.images()) == 1 for one in train]
    tagged = [one for one in train if style_captions.split_keywords(one)[1]]
    assert 0.43 < np.mean(styled) < 0.57
    assert 0.43 < np.mean(single) < 0.57
    assert {labels_of(one, loaded)[0].split()[-1] for one in tagged} == {"lion", "fox"}
    styles = collections.Counter(
        len({drawing.style for drawing in shown_drawings(one, loaded)})
        for one in train
        if len(one.images()) == 2
    )
    assert 0.4 < styles[1] / styles.total() < 0.8


def test_keywords_are_true(documents, loaded):
    known = {drawing.name: drawing.keywords for drawing in loaded}
    assert known["lion"] == (
        "mane",
        "roar",
    )  # The keyword "Leo's" is dropped, because it has an apostrophe.
    told = 0
    for document in documents["train"]:
        keywords = style_captions.split_keywords(document)[1]
        told += len(keywords)
        if keywords:
            named = labels_of(document, loaded)
            assert style_captions.has_true_keywords(document, named, loaded)
    assert told > 2


@pytest.mark.parametrize(
    ("text", "named", "expected"),
    [
        ("a noto lion, tagged mane and roar", ["noto lion"], True),
        ("a lion", ["lion"], True),
        ("a lion and a fox", ["lion", "fox"], True),
        ("a lion, tagged mane and sly", ["lion"], False),
        ("a fox, tagged mane and roar", ["fox"], False),
        ("a lion, tagged mane and roar, tagged mane and roar", ["lion"], False),
        ("a lion and a fox, tagged mane and roar", ["lion", "fox"], False),
        ("nothing, tagged mane and roar", [], False),
    ],
)
def test_keywords_of_another_name_are_not_true(loaded, text, named, expected):
    tagged = Document((Text(text),))
    assert style_captions.has_true_keywords(tagged, named, loaded) is expected


@pytest.mark.parametrize(
    ("label", "phrase"),
    [
        ("noto fox", "a noto fox"),
        ("openmoji fox", "an openmoji fox"),
        ("noto bread", "noto bread"),
        ("noto grapes", "noto grapes"),
        ("curry rice", "curry rice"),
        ("soft ice cream", "a soft ice cream"),
    ],
)
def test_articles(label, phrase):
    assert sentences.noun_phrase(label) == phrase


def test_the_place_of_the_packages_does_not_name_the_data(settings):
    here = emoji_styles.Settings(**settings)
    assert here.name == emoji_styles.Settings(**settings | {"path": "/elsewhere"}).name
    assert here.name != emoji_styles.Settings(**settings | {"pixels": 24}).name


def test_half_of_the_styles_stay_in_training():
    styles = [f"style {n}" for n in range(4)]
    held_out = [style_drawings.held_out_styles(f"name {n}", styles) for n in range(4_000)]
    assert max(map(len, held_out)) == 2
    assert 0.11 < np.mean([len(chosen) for chosen in held_out]) / 4 < 0.14


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"styled": 1.5}, "styled=1.5"),
        ({"keywords": -0.1}, "keywords=-0.1"),
        ({"pixels": 0}, "pixels=0"),
        ({"styles": ("noto", "apple")}, "apple"),
        ({"min_styles": 1}, "min_styles=1"),
        ({"concepts": 10_000}, "concepts=10000"),
        ({"categories": ("Flowers",)}, "Flowers"),
        ({"style": 3}, "'style'"),
    ],
)
def test_wrong_settings_are_named(tmp_path, settings, wrong, message):
    with pytest.raises(errors.UserError, match=message):
        sources.open_dataset("emoji_styles", tmp_path, "train", **settings | wrong)
