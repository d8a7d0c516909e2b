"""The scores must put known corruptions of real documents in their order."""

import functools
import itertools
import random

import numpy as np
import pytest
from scipy import ndimage

from oneflow_jax.data import emoji as data
from oneflow_jax.data import sentences, sources
from oneflow_jax.data.document import Document, Image, Text
from oneflow_jax.errors import UserError
from oneflow_jax.evaluation import base, emoji, interleaved

SETTINGS = {"concepts": 24, "pixels": 16, "documents": 300, "held_out_documents": 10}
CHOICES = {key: SETTINGS[key] for key in ("concepts", "pixels")}


@pytest.fixture(scope="module")
def concepts():
    return data.Settings(**CHOICES).drawn()


@pytest.fixture(scope="module")
def look(concepts):
    known = {concept.name: emoji.features(concept.pixels) for concept in concepts}

    @functools.cache
    def name(content, shape):
        return emoji.nearest(np.frombuffer(content, np.uint8).reshape(shape), known)

    return lambda pictures: [name(pixels.tobytes(), pixels.shape) for pixels in pictures]


@pytest.fixture(scope="module")
def real(tmp_path_factory):
    documents = sources.open_source("emoji", tmp_path_factory.mktemp("emoji"), "train", **SETTINGS)
    return [documents[i] for i in range(len(documents))]


@pytest.fixture(scope="module")
def marks(concepts, look, real):
    return interleaved.marks(real, concepts, look)


@pytest.fixture(scope="module")
def score(concepts, look, marks):
    return lambda made: interleaved.figures(interleaved.marks(made, concepts, look), marks)


@pytest.fixture(scope="module")
def whole(score, real):
    return score(real)


def painted(document, paint):
    """The document, each of its pictures changed."""
    return Document(
        tuple(
            Image(paint(part.pixels)) if isinstance(part, Image) else part
            for part in document.parts
        )
    )


def words_and_pictures(document, words=None, pictures=None):
    """All words first, then all pictures."""
    words = document.words() if words is None else words
    pictures = document.pictures() if pictures is None else pictures
    return Document((Text(words), *map(Image, pictures)))


def test_real_documents_are_right_in_everything(whole):
    assert whole == pytest.approx(dict.fromkeys(whole, 1.0))
    assert set(whole) == {*interleaved.PARTS, "text_valid", "pictured", "interleaved"}


def test_where_pictures_stand_between_the_words_does_not_count(score, real, whole):
    assert score([words_and_pictures(document) for document in real]) == whole


def test_the_more_pictures_are_exchanged_the_worse(score, real, whole):
    levels = [score(interleaved.exchanged(real, share, seed=0)) for share in (0.1, 0.5, 1.0)]
    for name in ("shown", "ordered", "agreed", "interleaved"):
        values = [whole[name], *(level[name] for level in levels)]
        assert all(a > b + 0.03 for a, b in itertools.pairwise(values)), (name, values)
    for name in ("counted", "varied", "text_valid", "pictured"):
        assert levels[-1][name] == 1, name
    assert levels[0]["shown"] == pytest.approx(0.9, abs=0.02)
    assert levels[-1]["interleaved"] < 0.5


def test_exchanged_pictures_change_places_and_none_is_lost(real):
    def pictures(documents):
        return [p.tobytes() for document in documents for p in document.pictures()]

    before = pictures(real)
    for share in (0.1, 1.0):
        after = pictures(interleaved.exchanged(real, share, seed=0))
        assert sorted(after) == sorted(before)
        stayed = np.mean([a == b for a, b in zip(before, after, strict=True)])
        assert 1 - share <= stayed < 1 - share + 0.1
    assert pictures(interleaved.exchanged(real, 0.0, seed=0)) == before
    assert pictures(interleaved.exchanged(real, 1.0, seed=1)) != after


def test_pictures_in_reverse_are_out_of_order(score, real, whole):
    made = [words_and_pictures(one, pictures=one.pictures()[::-1]) for one in real]
    found = score(made)
    # Only 'a, then b, then a again' is the same in reverse.
    assert found["ordered"] < 0.2
    assert 0.5 < found["shown"] < 0.95
    assert found["interleaved"] < 0.8 * whole["interleaved"]
    assert (found["counted"], found["agreed"], found["varied"]) == (1, 1, 1)


def test_a_picture_too_few(score, real, whole):
    several = [len(one.pictures()) > 1 for one in real]
    made = [
        words_and_pictures(one, pictures=one.pictures()[: -1 if more else None])
        for one, more in zip(real, several, strict=True)
    ]
    found = score(made)
    assert found["shown"] == found["pictured"] == 1
    assert found["counted"] == found["ordered"] == 0
    assert found["interleaved"] == 0
    # In one document of those.
    n = several.index(True)
    promising = [one for one in real if sentences.counted(one.words())]
    one_less = score([*real[:n], made[n], *real[n + 1 :]])
    assert one_less["ordered"] == pytest.approx(1 - 1 / sum(several))
    assert one_less["interleaved"] < whole["interleaved"]
    assert len(promising) < sum(several) < len(real)


def test_a_picture_too_many(score, real):
    made = [words_and_pictures(one, pictures=one.pictures() + one.pictures()[:1]) for one in real]
    found = score(made)
    assert found["counted"] == 0
    assert found["ordered"] < 0.2  # Again, the form that says so is one of twelve.
    assert 0.5 < found["shown"] < 0.8


def noisy(pixels, level, rng):
    return np.clip(pixels + level * rng.standard_normal(pixels.shape), 0, 255).astype(np.uint8)


def blurred(pixels, level, rng):
    del rng
    return ndimage.gaussian_filter(pixels, (level, level, 0))


@pytest.mark.parametrize(("worse", "levels"), [(noisy, (100, 250, 600)), (blurred, (2, 4, 8))])
def test_the_worse_pictures_look_the_less_they_show(worse, levels, score, real, whole):
    rng = np.random.default_rng(0)
    made = [
        [painted(one, functools.partial(worse, level=level, rng=rng)) for one in real]
        for level in levels
    ]
    values = [whole, *map(score, made)]
    for name in ("shown", "ordered", "interleaved"):
        falling = [value[name] for value in values]
        assert all(a > b for a, b in itertools.pairwise(falling)), (name, falling)
    assert values[-1]["text_valid"] == 1


def test_words_out_of_order(score, real, whole):
    rng = random.Random(0)

    def permuted(document):
        words = document.words().split()
        return words_and_pictures(document, words=" ".join(rng.sample(words, len(words))))

    found = score([permuted(document) for document in real])
    assert found["text_valid"] < 0.25
    for name in ("shown", "counted", "ordered", "varied", "interleaved"):
        assert found[name] < 0.7 * whole[name], name
    assert found["pictured"] == 1


def test_one_document_again_and_again_is_not_varied(score, real):
    three = next(one for one in real if sentences.counted(one.words()) == 3)
    found = score([three] * len(real))
    assert found["varied"] < 0.2
    # The mean is geometric, of five figures; all others are 1.
    assert found["interleaved"] == pytest.approx(found["varied"] ** 0.2)
    assert found["shown"] == found["counted"] == found["ordered"] == found["agreed"] == 1
    # The half of the documents again: something of the names and forms is lost, but not much.
    half = score([*real[:150], *real[:150]])
    assert 0.9 < half["varied"] < 1


def test_forms_count_for_variety_and_not_only_names(concepts, score, real):
    kinds = {concept.name: concept.kind for concept in concepts}
    pixels = {concept.name: concept.pixels for concept in concepts}
    firsts = [sentences.mentioned(one.words(), kinds)[0] for one in real]
    made = [
        Document((Text(f"here is {sentences.phrase(name)}:"), Image(pixels[name])))
        for name in firsts
    ]
    forms = [sentences.form(one.words(), kinds) for one in real]
    # All names in one form.
    expected = np.sqrt(1 / base.variety(forms, 1))
    found = score(made)
    assert found["varied"] == pytest.approx(expected, rel=0.02)
    assert found["text_valid"] == found["shown"] == 1


def test_who_promises_nothing_and_makes_single_pictures_gains_nothing(score, real):
    singles = [one for one in real if len(one.pictures()) == 1]
    made = (singles * 9)[: len(real)]
    found = score(made)
    assert found["shown"] == found["agreed"] == found["text_valid"] == 1
    assert found["counted"] == found["ordered"] == found["interleaved"] == 0
    # One promise kept is not all promises kept, but as many as real documents have of them.
    promising = [one for one in real if sentences.counted(one.words())]
    found = score([promising[0], *made[1:]])
    assert found["counted"] == pytest.approx(1 / len(promising))


def test_kinds_that_words_give_must_be_true_of_names_and_pictures(concepts, look, real):
    by_kind = {}
    for concept in concepts:
        by_kind.setdefault(concept.kind, []).append(concept)
    animals, fruits = by_kind["animal"], by_kind["fruit"]

    def agreed(words, *shown):
        pictures = [concept.pixels for concept in shown]
        document = Document((Text(words), *map(Image, pictures)))
        return interleaved.marks([document], concepts, look)[0].agreed

    one, other = animals[:2]
    names = f"{sentences.phrase(one.name)} and {sentences.phrase(other.name)}"
    assert agreed(f"two animals: {names}", one, other) is True
    assert agreed(f"two fruits: {names}", one, other) is False
    assert agreed(f"two animals: {names}", one, fruits[0]) is False
    assert agreed(names, one, animals[2]) is True  # Of the kind, though not what is named.
    assert agreed(names, fruits[0], fruits[1]) is False
    assert agreed("two animals: nothing", one, other) is True
    assert agreed("two things: nothing", one, other) is False
    mixed = f"{sentences.phrase(one.name)} and {sentences.phrase(fruits[0].name)}"
    assert agreed(mixed, one, fruits[0]) is False
    assert agreed(names) is False
    assert agreed("nothing", one) is None


def test_names_count_like_pictures(concepts, look):
    one, other = [concept for concept in concepts if concept.kind == "animal"][:2]
    names = [sentences.phrase(concept.name) for concept in (one, other)]

    def marked(words, *shown):
        pictures = [concept.pixels for concept in shown]
        return interleaved.marks([Document((Text(words), *map(Image, pictures)))], concepts, look)[
            0
        ]

    kept = marked(f"two animals: {names[0]} and {names[1]}", one, other)
    assert (kept.counted, kept.ordered, kept.shown) == (True, True, 2)
    nameless = marked(f"two animals: {names[0]}", one, other)
    assert (nameless.counted, nameless.ordered, nameless.shown) == (False, False, 1)
    bare = marked(f"two animals: {names[0]} and {names[1]}", one)
    assert (bare.counted, bare.ordered, bare.shown) == (False, False, 1)
    alone = marked(names[0], one)
    assert (alone.counted, alone.ordered, alone.shown) == (None, None, 1)
    assert alone.names == (one.name,)


def test_real_documents_are_as_many_as_are_made(marks):
    alike = interleaved.figures(marks[:50], marks)
    assert alike == interleaved.figures(marks[:50], marks[:50])
    # More varied than real ones is no better than as varied.
    assert interleaved.figures(marks, marks[:1] * len(marks))["varied"] == 1


def test_documents_of_nothing(score, real):
    assert set(score([Document(())] * len(real)).values()) == {0.0}
    alone = score([Document((one.parts[0],)) for one in real])
    assert alone["pictured"] < 1


def test_bounds(concepts, look, real, whole):
    found = interleaved.bounds(real, concepts, look)
    assert found["upper"] == whole
    assert found["lower"]["interleaved"] < 0.5
    assert found["lower"]["counted"] == found["lower"]["varied"] == 1
    assert found["lower"] == interleaved.bounds(real, concepts, look)["lower"]
    assert found["lower"] != interleaved.bounds(real, concepts, look, seed=1)["lower"]


def test_what_cannot_be_scored(concepts, look, real, marks):
    with pytest.raises(UserError, match="301 made and 300 real"):
        interleaved.figures([*marks, marks[0]], marks)
    with pytest.raises(UserError, match="0 made"):
        interleaved.figures([], marks)
    with pytest.raises(UserError, match="no such thing"):
        interleaved.marks(real[:4], concepts, lambda pictures: ["no such thing"] * len(pictures))
    with pytest.raises(UserError, match="1 names of"):
        interleaved.marks(real[:4], concepts, lambda pictures: look(pictures[:1]))
