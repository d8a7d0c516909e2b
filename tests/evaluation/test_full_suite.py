"""Tests of the metrics that `full_suite` adds: wrong images score worse than right ones."""

import numpy as np
import pytest

from oneflow_jax.data import emoji as data
from oneflow_jax.data import emoji_styles as styles_data
from oneflow_jax.data import sentences
from oneflow_jax.data.document import Document, Image, Text
from oneflow_jax.evaluation import (
    emoji,
    emoji_styles,
    full_suite,
    image_set_distance,
    label_tasks,
)
from oneflow_jax.evaluation.nearest_image import NearestImage
from oneflow_jax.evaluation.nearest_image import features as pixel_features
from oneflow_jax.pretrained import clip, inception
from tests.data import small_style_packages

pytestmark = pytest.mark.skipif(
    image_set_distance.is_missing(), reason="pip install -r requirements-metrics.txt"
)

SAMPLES = 20


@pytest.fixture(scope="module")
def concepts():
    return data.Settings(concepts=18).load_concepts()


def make_reference_data(concepts, **more):
    real = [make_document(one) for one in concepts if not one.held_out] * 2
    unseen = data.Settings(concepts=60).load_concepts()[-7:]
    return full_suite.ReferenceData(
        images=concepts,
        heldout_images=unseen,
        real=real,
        train_texts=[document.text() for document in real],
        classifier=NearestImage.from_images(concepts),
        judge=NearestImage.from_images(concepts),
        **more,
    )


def make_document(concept):
    return Document((label_tasks.caption_prompt(concept.name), Image(concept.pixels)))


def make_tasks(concepts, **more):
    plain = emoji.make_suite(concepts, (), (), SAMPLES)
    suite = full_suite.extend_suite(plain, make_reference_data(concepts, **more), SAMPLES)
    return {task.name: task for task in suite.tasks}


def correct_documents(concepts, task):
    """Return documents with the right image for each caption."""
    concept_by_caption = {label_tasks.caption_prompt(one.name).text: one for one in concepts}
    return [make_document(concept_by_caption[prompt.text()]) for prompt in task.prompts]


def test_correct_images_have_lower_distances_than_wrong_ones(concepts):
    task = make_tasks(concepts)["text_to_image"]
    right = task.score(correct_documents(concepts, task))
    noise = np.random.default_rng(0).integers(0, 256, (24, 24, 3), np.uint8)
    wrong = task.score([Document((Text("a fox"), Image(noise)))] * SAMPLES)
    assert right.metrics["text_to_image"] == right.metrics["precision"] == 1.0
    assert right.unbounded["fd_efficientnet"] < 1e-3 < wrong.unbounded["fd_efficientnet"]
    assert "fid" not in right.unbounded
    assert {"kid_efficientnet", "fd_efficientnet", "text_to_image"} <= right.bootstrap(0).keys()


def test_captions_are_compared_with_all_references(concepts):
    task = make_tasks(concepts)["image_to_text"]
    training = [one for one in concepts if not one.held_out]
    names = [one.name for one in label_tasks.spread_evenly(training, SAMPLES)]
    right = [
        Document((Image(training[0].pixels), Text(f"this is {sentences.noun_phrase(n)}")))
        for n in names
    ]
    wrong = [Document((Image(training[0].pixels), Text("a violin plays"))) for _ in names]
    assert task.score(right).unbounded["bleu4"] == pytest.approx(1.0, abs=1e-3)
    assert task.score(wrong).unbounded["bleu4"] < 0.1


def test_training_copies_count_as_memorized(concepts):
    """Check that copied training images count as memorized in the task of unseen names."""
    task = make_tasks(concepts)["unseen"]
    held_out = {one.name for one in concepts if one.held_out}
    for prompt in task.prompts:
        assert sentences.extract_names(prompt.text(), held_out)
    training_concept = next(one for one in concepts if not one.held_out)
    copied = task.score([make_document(training_concept)] * SAMPLES)
    assert copied.metrics == {"heldout_concept_accuracy": 0.0, "memorization_rate": 1.0}
    assert copied.unbounded["nn_distance_ratio"] == pytest.approx(0, abs=1e-3)
    new = task.score(correct_documents(concepts, task))
    assert new.metrics["heldout_concept_accuracy"] == 1.0
    assert new.unbounded["nn_distance_ratio"] > 0.5


def test_right_images_of_whole_documents_are_aligned(concepts):
    task = make_tasks(concepts)["document"]
    score = task.score([make_document(one) for one in concepts if not one.held_out][:18])
    assert score.metrics["image_name_alignment"] == 1.0


def test_user_weights_add_fid_and_clip_score(concepts, monkeypatch):
    def mean_colors(network, images):
        assert network == "weights.pth"
        return images.mean(axis=(1, 2))

    monkeypatch.setattr(inception, "load", lambda path: path)
    monkeypatch.setattr(inception, "features", mean_colors)
    monkeypatch.setattr(clip, "load", lambda path: path)
    monkeypatch.setattr(clip, "scores", lambda network, images, words: np.array([20.0, 30.0]))
    task = make_tasks(concepts, inception_weights="weights.pth", clip_dir="folder")["text_to_image"]
    score = task.score(correct_documents(concepts, task))
    assert score.unbounded["fid"] == pytest.approx(0, abs=1e-3)
    assert score.unbounded["clip_score"] == 25.0


@pytest.fixture(scope="module")
def drawings(tmp_path_factory):
    folder = small_style_packages.write(tmp_path_factory.mktemp("packages"))
    settings = styles_data.Settings(
        path=str(folder), concepts=20, styles=small_style_packages.STYLES, min_styles=3
    )
    return settings.load_drawings()


def label_wrongly(images):
    return ["twemoji fox"] * len(images)


@pytest.fixture
def styles_suite(drawings, monkeypatch):
    """Return the suite of emoji in styles, with pixels as features of images."""
    monkeypatch.setattr(
        image_set_distance, "features", lambda images: np.stack([*map(pixel_features, images)])
    )
    nearest = NearestImage.from_images(drawings)
    document = Document((label_tasks.caption_prompt("fox"), Image(drawings[0].pixels)))
    reference = full_suite.ReferenceData(
        images=drawings,
        heldout_images=[drawing for drawing in drawings if drawing.name_held_out],
        real=[document] * SAMPLES,
        train_texts=[document.text()],
        classifier=nearest,
        judge=label_wrongly,
    )
    plain = emoji_styles.make_suite(drawings, nearest, (), SAMPLES)
    return full_suite.extend_suite(plain, reference, SAMPLES)


def test_compositions_are_held_against_real_drawings_of_their_pairs(styles_suite, drawings):
    task = next(task for task in styles_suite.tasks if task.name == "composition")
    pixels = {label_tasks.caption_prompt(one.label).text: one.pixels for one in drawings}

    def score(images):
        answers = [
            Document((prompt.parts[0], Image(image)))
            for prompt, image in zip(task.prompts, images, strict=True)
        ]
        return task.score(answers)

    real = score([pixels[prompt.text()] for prompt in task.prompts])
    train = [drawing.pixels for drawing in drawings if drawing.in_training]
    copied = score([train[n % len(train)] for n in range(SAMPLES)])
    assert real.metrics["composition"] == 1
    assert real.metrics["composition_judge"] < 0.2  # `label_wrongly` always returns the same label.
    assert real.metrics["composition_memorization_rate"] < 0.2
    assert copied.metrics["composition"] < 0.2
    assert copied.metrics["composition_memorization_rate"] == 1
    assert copied.unbounded["composition_nn_distance"] == 0
    assert real.unbounded["composition_nn_distance_ratio"] == pytest.approx(1, abs=0.3)
    rng = np.random.default_rng(0)
    noise = score([rng.integers(0, 256, image.shape, np.uint8) for image in train[:1] * SAMPLES])
    kid = [one.unbounded["composition_kid"] for one in (real, copied, noise)]
    assert kid == sorted(kid)
    # The few drawings of this test are so similar that held-out pairs do not differ from training.
    kid_train = [one.unbounded["composition_kid_train"] for one in (copied, noise)]
    assert abs(kid_train[0]) < kid_train[1] / 10
    draws = real.bootstrap(0)
    assert {"composition", "composition_judge", "composition_kid"} <= set(draws)


def test_real_drawings_of_held_out_pairs_have_the_same_figures(styles_suite, drawings):
    metrics = styles_suite.measure_reference()
    pairs = [drawing for drawing in drawings if drawing.pair_held_out]
    train = [drawing.pixels for drawing in drawings if drawing.in_training]
    distances = [
        min(np.linalg.norm(pixel_features(pair.pixels) - pixel_features(one)) for one in train)
        for pair in pairs
    ]
    nearest = metrics["reference_composition_nn_distance"]
    assert nearest == pytest.approx(np.median(distances), rel=1e-3)
    assert metrics["reference_composition_memorization_rate"] <= 1 / len(pairs)
    assert metrics["reference_composition_judge_name"] == np.mean(
        [pair.name == "fox" for pair in pairs]
    )
    assert "reference_composition_kid_train" in metrics


def test_captions_of_styles_and_names_never_shown(styles_suite, drawings):
    tasks = {task.name: task for task in styles_suite.tasks}
    asked = label_tasks.spread_evenly([one for one in drawings if one.in_training], SAMPLES)
    captions = [
        Document((Image(one.pixels), Text(f"this is {sentences.noun_phrase(one.label)}")))
        for one in asked
    ]
    assert tasks["image_to_text"].score(captions).unbounded["bleu4"] == pytest.approx(1, abs=1e-3)
    unseen = {one.name: one.pixels for one in drawings if one.name_held_out}
    prompts = tasks["unseen"].prompts
    names = [sentences.extract_names(prompt.text(), unseen)[0] for prompt in prompts]
    answers = [Document((Image(unseen[name]),)) for name in names]
    assert tasks["unseen"].score(answers).metrics["heldout_concept_accuracy"] == 1
