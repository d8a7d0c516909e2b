"""Tests that the metrics rank known corruptions of real documents correctly."""

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
from oneflow_jax.evaluation import base, interleaved
from oneflow_jax.evaluation.nearest_image import NearestImage

SOURCE_CONFIG = {"concepts": 24, "pixels": 16, "documents": 300, "held_out_documents": 10}
CONCEPT_CONFIG = {key: SOURCE_CONFIG[key] for key in ("concepts", "pixels")}


@pytest.fixture(scope="module")
def concepts():
    return data.Settings(**CONCEPT_CONFIG).load_concepts()


@pytest.fixture(scope="module")
def classifier(concepts):
    nearest = NearestImage.from_images(concepts)

    @functools.cache
    def name(content, shape):
        return nearest([np.frombuffer(content, np.uint8).reshape(shape)])[0]

    return lambda list_pixels: [name(pixels.tobytes(), pixels.shape) for pixels in list_pixels]


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
    return lambda documents: interleaved.compute_metrics(
        interleaved.score_documents(documents, concepts, classifier), real_scores
    )


@pytest.fixture(scope="module")
def real_metrics(score, real):
    return score(real)


def map_images(document, fn):
    """Apply `fn` to each image of the document."""
    return Document(
        tuple(
            Image(fn(part.pixels)) if isinstance(part, Image) else part for part in document.parts
        )
    )


def text_then_images(document, text=None, images=None):
    """Return the document with all text before all images."""
    text = document.text() if text is None else text
    images = document.images() if images is None else images
    return Document((Text(text), *map(Image, images)))


def test_real_documents_have_perfect_scores(real_metrics):
    assert real_metrics == pytest.approx(dict.fromkeys(real_metrics, 1.0))
    assert set(real_metrics) == {
        *interleaved.COMPONENTS,
        "template_validity",
        "image_rate",
        "interleaved_score",
    }


def test_image_places_within_the_text_do_not_matter(score, real, real_metrics):
    assert score([text_then_images(document) for document in real]) == real_metrics


def test_more_shuffled_images_lower_the_score(score, real, real_metrics):
    levels = [score(interleaved.shuffle_images(real, share, seed=0)) for share in (0.1, 0.5, 1.0)]
    for name in (
        "image_name_alignment",
        "order_accuracy",
        "category_consistency",
        "interleaved_score",
    ):
        values = [real_metrics[name], *(level[name] for level in levels)]
        assert all(a > b + 0.03 for a, b in itertools.pairwise(values)), (name, values)
    for name in ("count_accuracy", "diversity", "template_validity", "image_rate"):
        assert levels[-1][name] == 1, name
    assert levels[0]["image_name_alignment"] == pytest.approx(0.9, abs=0.02)
    assert levels[-1]["interleaved_score"] < 0.5


def test_shuffling_permutes_images(real):
    def list_pixels(documents):
        return [p.tobytes() for document in documents for p in document.images()]

    before = list_pixels(real)
    for share in (0.1, 1.0):
        after = list_pixels(interleaved.shuffle_images(real, share, seed=0))
        assert sorted(after) == sorted(before)
        stayed = np.mean([a == b for a, b in zip(before, after, strict=True)])
        assert 1 - share <= stayed < 1 - share + 0.1
    assert list_pixels(interleaved.shuffle_images(real, 0.0, seed=0)) == before
    assert list_pixels(interleaved.shuffle_images(real, 1.0, seed=1)) != after


def test_reversed_images_lower_order_accuracy(score, real, real_metrics):
    documents = [text_then_images(document, images=document.images()[::-1]) for document in real]
    metric_values = score(documents)
    # Only 'a, then b, then a again' is the same in reverse order.
    assert metric_values["order_accuracy"] < 0.2
    assert 0.5 < metric_values["image_name_alignment"] < 0.95
    assert metric_values["interleaved_score"] < 0.8 * real_metrics["interleaved_score"]
    assert (
        metric_values["count_accuracy"],
        metric_values["category_consistency"],
        metric_values["diversity"],
    ) == (1, 1, 1)


def test_missing_image_lowers_count_accuracy(score, real, real_metrics):
    several = [len(document.images()) > 1 for document in real]
    documents = [
        text_then_images(document, images=document.images()[: -1 if more else None])
        for document, more in zip(real, several, strict=True)
    ]
    metric_values = score(documents)
    assert metric_values["image_name_alignment"] == metric_values["image_rate"] == 1
    assert metric_values["count_accuracy"] == metric_values["order_accuracy"] == 0
    assert metric_values["interleaved_score"] == 0
    # Change only one of the documents that have several images.
    n = several.index(True)
    promising = [document for document in real if sentences.parse_count(document.text())]
    one_less = score([*real[:n], documents[n], *real[n + 1 :]])
    assert one_less["order_accuracy"] == pytest.approx(1 - 1 / sum(several))
    assert one_less["interleaved_score"] < real_metrics["interleaved_score"]
    assert len(promising) < sum(several) < len(real)


def test_surplus_image_lowers_count_accuracy(score, real):
    documents = [
        text_then_images(document, images=document.images() + document.images()[:1])
        for document in real
    ]
    metric_values = score(documents)
    assert metric_values["count_accuracy"] == 0
    assert metric_values["order_accuracy"] < 0.2  # One template of twelve is symmetric.
    assert 0.5 < metric_values["image_name_alignment"] < 0.8


def add_noise(pixels, level, rng):
    return np.clip(pixels + level * rng.standard_normal(pixels.shape), 0, 255).astype(np.uint8)


def blur(pixels, level, rng):
    del rng
    return ndimage.gaussian_filter(pixels, (level, level, 0))


@pytest.mark.parametrize(("worse", "levels"), [(add_noise, (100, 250, 600)), (blur, (2, 4, 8))])
def test_degraded_images_lower_alignment(worse, levels, score, real, real_metrics):
    rng = np.random.default_rng(0)
    documents = [
        [map_images(document, functools.partial(worse, level=level, rng=rng)) for document in real]
        for level in levels
    ]
    values = [real_metrics, *map(score, documents)]
    for name in ("image_name_alignment", "order_accuracy", "interleaved_score"):
        falling = [value[name] for value in values]
        assert all(a > b for a, b in itertools.pairwise(falling)), (name, falling)
    assert values[-1]["template_validity"] == 1


def test_permuted_words_lower_template_validity(score, real, real_metrics):
    rng = random.Random(0)

    def permute_words(document):
        words = document.text().split()
        return text_then_images(document, text=" ".join(rng.sample(words, len(words))))

    metric_values = score([permute_words(document) for document in real])
    assert metric_values["template_validity"] < 0.25
    for name in (
        "image_name_alignment",
        "count_accuracy",
        "order_accuracy",
        "diversity",
        "interleaved_score",
    ):
        assert metric_values[name] < 0.7 * real_metrics[name], name
    assert metric_values["image_rate"] == 1


def test_repeated_document_has_low_diversity(score, real):
    three = next(document for document in real if sentences.parse_count(document.text()) == 3)
    metric_values = score([three] * len(real))
    assert metric_values["diversity"] < 0.2
    # The score is the geometric mean of five metrics; the other four are 1.
    assert metric_values["interleaved_score"] == pytest.approx(metric_values["diversity"] ** 0.2)
    assert (
        metric_values["image_name_alignment"]
        == metric_values["count_accuracy"]
        == metric_values["order_accuracy"]
        == metric_values["category_consistency"]
        == 1
    )
    # Half of the documents, each of them twice, still have most of the names and templates.
    half = score([*real[:150], *real[:150]])
    assert 0.9 < half["diversity"] < 1


def test_templates_count_for_diversity(concepts, score, real):
    kinds = {concept.name: concept.kind for concept in concepts}
    pixels = {concept.name: concept.pixels for concept in concepts}
    firsts = [sentences.extract_names(document.text(), kinds)[0] for document in real]
    documents = [
        Document((Text(f"here is {sentences.noun_phrase(name)}:"), Image(pixels[name])))
        for name in firsts
    ]
    forms = [sentences.match_template(document.text(), kinds) for document in real]
    # All documents have the same template and different names.
    expected = np.sqrt(1 / base.diversity(forms, 1))
    metric_values = score(documents)
    assert metric_values["diversity"] == pytest.approx(expected, rel=0.02)
    assert metric_values["template_validity"] == metric_values["image_name_alignment"] == 1


def test_single_image_documents_score_zero_for_count_and_order(score, real):
    singles = [document for document in real if len(document.images()) == 1]
    documents = (singles * 9)[: len(real)]
    metric_values = score(documents)
    assert (
        metric_values["image_name_alignment"]
        == metric_values["category_consistency"]
        == metric_values["template_validity"]
        == 1
    )
    assert (
        metric_values["count_accuracy"]
        == metric_values["order_accuracy"]
        == metric_values["interleaved_score"]
        == 0
    )
    # One document states a count; the denominator is the number of real documents that state one.
    promising = [document for document in real if sentences.parse_count(document.text())]
    metric_values = score([promising[0], *documents[1:]])
    assert metric_values["count_accuracy"] == pytest.approx(1 / len(promising))


def test_stated_kind_must_match_names_and_images(concepts, classifier, real):
    by_kind = {}
    for concept in concepts:
        by_kind.setdefault(concept.kind, []).append(concept)
    animals, fruits = by_kind["animal"], by_kind["fruit"]

    def get_consistency(words, *image_concepts):
        list_pixels = [concept.pixels for concept in image_concepts]
        document = Document((Text(words), *map(Image, list_pixels)))
        return interleaved.score_documents([document], concepts, classifier)[0].category_consistent

    first, second = animals[:2]
    names = f"{sentences.noun_phrase(first.name)} and {sentences.noun_phrase(second.name)}"
    assert get_consistency(f"two animals: {names}", first, second) is True
    assert get_consistency(f"two fruits: {names}", first, second) is False
    assert get_consistency(f"two animals: {names}", first, fruits[0]) is False
    assert get_consistency(names, first, animals[2]) is True  # the kind is right, the name is wrong
    assert get_consistency(names, fruits[0], fruits[1]) is False
    assert get_consistency("two animals: nothing", first, second) is True
    assert get_consistency("two things: nothing", first, second) is False
    mixed = f"{sentences.noun_phrase(first.name)} and {sentences.noun_phrase(fruits[0].name)}"
    assert get_consistency(mixed, first, fruits[0]) is False
    assert get_consistency(names) is False
    assert get_consistency("nothing", first) is None


def test_names_are_counted_like_images(concepts, classifier):
    first, second = [concept for concept in concepts if concept.kind == "animal"][:2]
    names = [sentences.noun_phrase(concept.name) for concept in (first, second)]

    def score_document(words, *image_concepts):
        list_pixels = [concept.pixels for concept in image_concepts]
        return interleaved.score_documents(
            [Document((Text(words), *map(Image, list_pixels)))], concepts, classifier
        )[0]

    both = score_document(f"two animals: {names[0]} and {names[1]}", first, second)
    assert (both.count_correct, both.order_correct, both.num_aligned) == (
        True,
        True,
        2,
    )
    nameless = score_document(f"two animals: {names[0]}", first, second)
    assert (nameless.count_correct, nameless.order_correct, nameless.num_aligned) == (
        False,
        False,
        1,
    )
    bare = score_document(f"two animals: {names[0]} and {names[1]}", first)
    assert (bare.count_correct, bare.order_correct, bare.num_aligned) == (False, False, 1)
    alone = score_document(names[0], first)
    assert (alone.count_correct, alone.order_correct, alone.num_aligned) == (None, None, 1)
    assert alone.names == (first.name,)


def test_diversity_compares_equally_many_documents(real_scores):
    alike = interleaved.compute_metrics(real_scores[:50], real_scores)
    assert alike == interleaved.compute_metrics(real_scores[:50], real_scores[:50])
    # The metric is at most 1, even with more variety than the real documents have.
    assert (
        interleaved.compute_metrics(real_scores, real_scores[:1] * len(real_scores))["diversity"]
        == 1
    )


def test_empty_documents_score_zero(score, real):
    assert set(score([Document(())] * len(real)).values()) == {0.0}
    alone = score([Document((document.parts[0],)) for document in real])
    assert alone["image_rate"] < 1


def test_reference_bounds(concepts, classifier, real, real_metrics):
    metric_values = interleaved.compute_bounds(real, concepts, classifier)
    assert metric_values["upper"] == real_metrics
    assert metric_values["lower"]["interleaved_score"] < 0.5
    assert metric_values["lower"]["count_accuracy"] == metric_values["lower"]["diversity"] == 1
    assert metric_values["lower"] == interleaved.compute_bounds(real, concepts, classifier)["lower"]
    assert (
        metric_values["lower"]
        != interleaved.compute_bounds(real, concepts, classifier, seed=1)["lower"]
    )


def test_invalid_input_is_rejected(concepts, classifier, real, real_scores):
    with pytest.raises(UserError, match="301 generated and 300 real"):
        interleaved.compute_metrics([*real_scores, real_scores[0]], real_scores)
    with pytest.raises(UserError, match="0 generated"):
        interleaved.compute_metrics([], real_scores)
    with pytest.raises(UserError, match="no such thing"):
        interleaved.score_documents(
            real[:4], concepts, lambda list_pixels: ["no such thing"] * len(list_pixels)
        )
    with pytest.raises(UserError, match="1 labels for"):
        interleaved.score_documents(
            real[:4], concepts, lambda list_pixels: classifier(list_pixels[:1])
        )
