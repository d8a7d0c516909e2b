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

SOURCE_CONFIG = {"concepts": 24, "pixels": 16, "documents": 300, "held_out_documents": 10}
CONCEPT_CONFIG = {key: SOURCE_CONFIG[key] for key in ("concepts", "pixels")}


@pytest.fixture(scope="module")
def concepts():
    return data.Settings(**CONCEPT_CONFIG).drawn()


@pytest.fixture(scope="module")
def classifier(concepts):
    known = {concept.name: emoji.features(concept.pixels) for concept in concepts}

    @functools.cache
    def name(content, shape):
        return emoji.nearest_neighbor(np.frombuffer(content, np.uint8).reshape(shape), known)

    return lambda pictures: [name(pixels.tobytes(), pixels.shape) for pixels in pictures]


@pytest.fixture(scope="module")
def real(tmp_path_factory):
    documents = sources.open_dataset(
        "emoji", tmp_path_factory.mktemp("emoji"), "train", **SOURCE_CONFIG
    )
    return [documents[i] for i in range(len(documents))]


@pytest.fixture(scope="module")
def real_scores(concepts, classifier, real):
    return interleaved.score_documents(real, concepts, classifier)


@pytest.fixture(scope="module")
def score(concepts, classifier, real_scores):
    return lambda made: interleaved.compute_metrics(
        interleaved.score_documents(made, concepts, classifier), real_scores
    )


@pytest.fixture(scope="module")
def real_metrics(score, real):
    return score(real)


def map_images(document, fn):
    """The document, each of its pictures changed."""
    return Document(
        tuple(
            Image(fn(part.pixels)) if isinstance(part, Image) else part for part in document.parts
        )
    )


def text_then_images(document, text=None, images=None):
    """All words first, then all pictures."""
    text = document.words() if text is None else text
    images = document.pictures() if images is None else images
    return Document((Text(text), *map(Image, images)))


def test_real_documents_are_right_in_everything(real_metrics):
    assert real_metrics == pytest.approx(dict.fromkeys(real_metrics, 1.0))
    assert set(real_metrics) == {*interleaved.COMPONENTS, "text_valid", "pictured", "interleaved"}


def test_where_pictures_stand_between_the_words_does_not_count(score, real, real_metrics):
    assert score([text_then_images(document) for document in real]) == real_metrics


def test_the_more_pictures_are_exchanged_the_worse(score, real, real_metrics):
    levels = [score(interleaved.shuffle_images(real, share, seed=0)) for share in (0.1, 0.5, 1.0)]
    for name in ("shown", "ordered", "agreed", "interleaved"):
        values = [real_metrics[name], *(level[name] for level in levels)]
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
        after = pictures(interleaved.shuffle_images(real, share, seed=0))
        assert sorted(after) == sorted(before)
        stayed = np.mean([a == b for a, b in zip(before, after, strict=True)])
        assert 1 - share <= stayed < 1 - share + 0.1
    assert pictures(interleaved.shuffle_images(real, 0.0, seed=0)) == before
    assert pictures(interleaved.shuffle_images(real, 1.0, seed=1)) != after


def test_pictures_in_reverse_are_out_of_order(score, real, real_metrics):
    made = [text_then_images(one, images=one.pictures()[::-1]) for one in real]
    found = score(made)
    # Only 'a, then b, then a again' is the same in reverse.
    assert found["ordered"] < 0.2
    assert 0.5 < found["shown"] < 0.95
    assert found["interleaved"] < 0.8 * real_metrics["interleaved"]
    assert (found["counted"], found["agreed"], found["varied"]) == (1, 1, 1)


def test_a_picture_too_few(score, real, real_metrics):
    several = [len(one.pictures()) > 1 for one in real]
    made = [
        text_then_images(one, images=one.pictures()[: -1 if more else None])
        for one, more in zip(real, several, strict=True)
    ]
    found = score(made)
    assert found["shown"] == found["pictured"] == 1
    assert found["counted"] == found["ordered"] == 0
    assert found["interleaved"] == 0
    # In one document of those.
    n = several.index(True)
    promising = [one for one in real if sentences.parse_count(one.words())]
    one_less = score([*real[:n], made[n], *real[n + 1 :]])
    assert one_less["ordered"] == pytest.approx(1 - 1 / sum(several))
    assert one_less["interleaved"] < real_metrics["interleaved"]
    assert len(promising) < sum(several) < len(real)


def test_a_picture_too_many(score, real):
    made = [text_then_images(one, images=one.pictures() + one.pictures()[:1]) for one in real]
    found = score(made)
    assert found["counted"] == 0
    assert found["ordered"] < 0.2  # Again, the form that says so is one of twelve.
    assert 0.5 < found["shown"] < 0.8


def add_noise(pixels, level, rng):
    return np.clip(pixels + level * rng.standard_normal(pixels.shape), 0, 255).astype(np.uint8)


def blur(pixels, level, rng):
    del rng
    return ndimage.gaussian_filter(pixels, (level, level, 0))


@pytest.mark.parametrize(("worse", "levels"), [(add_noise, (100, 250, 600)), (blur, (2, 4, 8))])
def test_the_worse_pictures_look_the_less_they_show(worse, levels, score, real, real_metrics):
    rng = np.random.default_rng(0)
    made = [
        [map_images(one, functools.partial(worse, level=level, rng=rng)) for one in real]
        for level in levels
    ]
    values = [real_metrics, *map(score, made)]
    for name in ("shown", "ordered", "interleaved"):
        falling = [value[name] for value in values]
        assert all(a > b for a, b in itertools.pairwise(falling)), (name, falling)
    assert values[-1]["text_valid"] == 1


def test_words_out_of_order(score, real, real_metrics):
    rng = random.Random(0)

    def permuted(document):
        words = document.words().split()
        return text_then_images(document, text=" ".join(rng.sample(words, len(words))))

    found = score([permuted(document) for document in real])
    assert found["text_valid"] < 0.25
    for name in ("shown", "counted", "ordered", "varied", "interleaved"):
        assert found[name] < 0.7 * real_metrics[name], name
    assert found["pictured"] == 1


def test_one_document_again_and_again_is_not_varied(score, real):
    three = next(one for one in real if sentences.parse_count(one.words()) == 3)
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
    firsts = [sentences.extract_names(one.words(), kinds)[0] for one in real]
    made = [
        Document((Text(f"here is {sentences.noun_phrase(name)}:"), Image(pixels[name])))
        for name in firsts
    ]
    forms = [sentences.match_template(one.words(), kinds) for one in real]
    # All names in one form.
    expected = np.sqrt(1 / base.diversity(forms, 1))
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
    promising = [one for one in real if sentences.parse_count(one.words())]
    found = score([promising[0], *made[1:]])
    assert found["counted"] == pytest.approx(1 / len(promising))


def test_kinds_that_words_give_must_be_true_of_names_and_pictures(concepts, classifier, real):
    by_kind = {}
    for concept in concepts:
        by_kind.setdefault(concept.kind, []).append(concept)
    animals, fruits = by_kind["animal"], by_kind["fruit"]

    def agreed(words, *shown):
        pictures = [concept.pixels for concept in shown]
        document = Document((Text(words), *map(Image, pictures)))
        return interleaved.score_documents([document], concepts, classifier)[0].agreed

    one, other = animals[:2]
    names = f"{sentences.noun_phrase(one.name)} and {sentences.noun_phrase(other.name)}"
    assert agreed(f"two animals: {names}", one, other) is True
    assert agreed(f"two fruits: {names}", one, other) is False
    assert agreed(f"two animals: {names}", one, fruits[0]) is False
    assert agreed(names, one, animals[2]) is True  # Of the kind, though not what is named.
    assert agreed(names, fruits[0], fruits[1]) is False
    assert agreed("two animals: nothing", one, other) is True
    assert agreed("two things: nothing", one, other) is False
    mixed = f"{sentences.noun_phrase(one.name)} and {sentences.noun_phrase(fruits[0].name)}"
    assert agreed(mixed, one, fruits[0]) is False
    assert agreed(names) is False
    assert agreed("nothing", one) is None


def test_names_count_like_pictures(concepts, classifier):
    one, other = [concept for concept in concepts if concept.kind == "animal"][:2]
    names = [sentences.noun_phrase(concept.name) for concept in (one, other)]

    def marked(words, *shown):
        pictures = [concept.pixels for concept in shown]
        return interleaved.score_documents(
            [Document((Text(words), *map(Image, pictures)))], concepts, classifier
        )[0]

    kept = marked(f"two animals: {names[0]} and {names[1]}", one, other)
    assert (kept.counted, kept.ordered, kept.shown) == (True, True, 2)
    nameless = marked(f"two animals: {names[0]}", one, other)
    assert (nameless.counted, nameless.ordered, nameless.shown) == (False, False, 1)
    bare = marked(f"two animals: {names[0]} and {names[1]}", one)
    assert (bare.counted, bare.ordered, bare.shown) == (False, False, 1)
    alone = marked(names[0], one)
    assert (alone.counted, alone.ordered, alone.shown) == (None, None, 1)
    assert alone.names == (one.name,)


def test_real_documents_are_as_many_as_are_made(real_scores):
    alike = interleaved.compute_metrics(real_scores[:50], real_scores)
    assert alike == interleaved.compute_metrics(real_scores[:50], real_scores[:50])
    # More varied than real ones is no better than as varied.
    assert (
        interleaved.compute_metrics(real_scores, real_scores[:1] * len(real_scores))["varied"] == 1
    )


def test_documents_of_nothing(score, real):
    assert set(score([Document(())] * len(real)).values()) == {0.0}
    alone = score([Document((one.parts[0],)) for one in real])
    assert alone["pictured"] < 1


def test_bounds(concepts, classifier, real, real_metrics):
    found = interleaved.compute_bounds(real, concepts, classifier)
    assert found["upper"] == real_metrics
    assert found["lower"]["interleaved"] < 0.5
    assert found["lower"]["counted"] == found["lower"]["varied"] == 1
    assert found["lower"] == interleaved.compute_bounds(real, concepts, classifier)["lower"]
    assert found["lower"] != interleaved.compute_bounds(real, concepts, classifier, seed=1)["lower"]


def test_what_cannot_be_scored(concepts, classifier, real, real_scores):
    with pytest.raises(UserError, match="301 made and 300 real"):
        interleaved.compute_metrics([*real_scores, real_scores[0]], real_scores)
    with pytest.raises(UserError, match="0 made"):
        interleaved.compute_metrics([], real_scores)
    with pytest.raises(UserError, match="no such thing"):
        interleaved.score_documents(
            real[:4], concepts, lambda pictures: ["no such thing"] * len(pictures)
        )
    with pytest.raises(UserError, match="1 names of"):
        interleaved.score_documents(real[:4], concepts, lambda pictures: classifier(pictures[:1]))
