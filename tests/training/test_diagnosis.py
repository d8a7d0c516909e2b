"""Tests of the sentence that says what went wrong in a run."""

import pytest

from oneflow_jax.training import conditioning, diagnosis, document_losses
from oneflow_jax.training.overfitting import Overfitting


def make_gains(**gains):
    """Return shuffled gains with intervals of 0.05; `image_train=0.3` sets one, others are 0.2."""
    values = dict.fromkeys(["image_train", "image_heldout", "text_train", "text_heldout"], 0.2)
    metrics = {}
    for name, gain in (values | gains).items():
        term, split = name.split("_")
        names = document_losses.shuffled_gain_names(term, split)
        metrics |= dict(zip(names, (gain, gain - 0.05, gain + 0.05), strict=True))
    return metrics


MATCH = {"reference_caption_match": 0.7, "reference_caption_match_chance": 0.52}
MISMATCH = MATCH | {"reference_caption_match": 0.5}
SAMPLES = {
    "reference_image_distance": 0.2,
    "image_distance@16": 0.15,
    "image_distance_captions@16": 0.1,
    "image_distance@4": 0.0,
    "memorization_rate_heldout@16": 0.1,
}
TEXT_IS_OVERFITTED = [Overfitting("text", 450, 500, 0.2, 0.1, 0.3)]


@pytest.mark.parametrize(
    ("metrics", "overfitted", "expected"),
    [
        (make_gains() | MATCH | SAMPLES, [], "good. Generated images depend on texts and texts "),
        (make_gains(), [], "good."),
        (make_gains(image_train=0.01), [], "images do not depend on texts yet. Even for training"),
        (make_gains(text_train=0.04), [], "texts do not depend on images yet."),
        (make_gains(image_heldout=0.0), [], "images depend on texts in training documents only"),
        (make_gains(text_heldout=-0.3), [], "texts depend on images in training documents only"),
        (
            make_gains(image_heldout=0.0),
            TEXT_IS_OVERFITTED,
            "text is overfitted since step 500. Its held-out loss was lowest at step 450. Use the "
            "best checkpoint, with --config.checkpoint.use=best",
        ),
        (
            make_gains(),
            [Overfitting("image", 450, 500, 0.2, 0.1, 0.3, has_better_checkpoint=False)],
            "image is overfitted since step 500. Its held-out loss was lowest at step 450. The "
            "loss of text and images together still falls.",
        ),
        (
            make_gains(image_train=0.0, image_heldout=0.0, text_heldout=0.0) | MISMATCH,
            [],
            "captions do not match the images in the data. Documents with similar captions have no "
            "more similar images than others (0.50, by chance up to 0.52), and shuffled captions "
            "are as good as the right ones, also for training documents.",
        ),
        (
            make_gains(image_heldout=0.0, text_heldout=0.0) | MISMATCH,
            TEXT_IS_OVERFITTED,
            "captions do not match the images in the data. Documents with similar captions have no "
            "more similar images than others (0.50, by chance up to 0.52), and training documents "
            "are learned by heart.",
        ),
        (make_gains() | MISMATCH, [], "good."),
        (
            make_gains(image_heldout=0.0, text_heldout=0.0)
            | MISMATCH
            | {"reference_caption_match_chance": 0.6},
            [],
            "images depend on texts in training documents only",
        ),
        (
            make_gains() | SAMPLES | {"image_distance@16": 0.01},
            [],
            "images are all alike. Their mean distance is 5% of that of real images.",
        ),
        (
            make_gains() | SAMPLES | {"image_distance_captions@16": 0.01},
            [],
            "images do not depend on the text: different captions give the same image.",
        ),
        (
            make_gains() | SAMPLES | {"memorization_rate_heldout@16": 0.8},
            [],
            "images are copies of training images. For held-out captions, 80% of them are closer",
        ),
    ],
)  # fmt: skip
def test_sentences(metrics, overfitted, expected):
    assert diagnosis.diagnose(metrics, overfitted).startswith(f"Diagnosis: {expected}")


FEW = {document_losses.count_name("heldout"): 5.0}


@pytest.mark.parametrize(
    ("metrics", "expected"),
    [
        (make_gains(), "5 held-out documents are too few to tell; 10 are needed. Give more doc"),
        (make_gains(image_heldout=0.0), "5 held-out documents are too few to tell"),
        (make_gains(image_train=0.0, image_heldout=0.0) | MISMATCH, "images do not depend on text"),
        (make_gains() | SAMPLES | {"image_distance@16": 0.01}, "images are all alike."),
        (
            make_gains() | SAMPLES | {"memorization_rate_heldout@16": 0.8},
            "5 held-out documents are",
        ),
    ],
)
def test_few_held_out_documents_are_not_judged(metrics, expected):
    sentence = diagnosis.diagnose(metrics | FEW, TEXT_IS_OVERFITTED)
    assert sentence.startswith(f"Diagnosis: {expected}")


def test_the_minimum_of_held_out_documents():
    name = document_losses.count_name("heldout")
    enough = diagnosis.diagnose(make_gains() | {name: float(diagnosis.MIN_DOCUMENTS)})
    assert enough.startswith("Diagnosis: good.")
    one = diagnosis.diagnose(make_gains() | {name: 1.0})
    assert one.startswith("Diagnosis: 1 held-out document is too few to tell;")


def test_there_is_no_sentence_without_gains_of_both_splits():
    assert diagnosis.diagnose({}) == ""
    assert diagnosis.diagnose(SAMPLES, TEXT_IS_OVERFITTED) == ""
    heldout = {name: x for name, x in make_gains().items() if "heldout" in name}
    assert diagnosis.diagnose(heldout) == ""
    images = {name: x for name, x in make_gains().items() if "image" in name}
    assert diagnosis.diagnose(images).startswith(
        "Diagnosis: good. Generated images depend on texts, also"
    )


@pytest.mark.parametrize(("documents", "sentences"), [(5, 0), (10, 3), (None, 3)])
def test_few_held_out_documents_are_no_evidence(documents, sentences):
    """Check sentences about both gains and about overfitting; earlier logs have no number."""
    metrics = {
        name: 0.3 for name in conditioning.all_metric_names() if not name.endswith(("low", "high"))
    }
    metrics |= {name: 0.2 for name in conditioning.all_metric_names() if name.endswith("low")}
    metrics |= {name: 0.4 for name in conditioning.all_metric_names() if name.endswith("high")}
    if documents is not None:
        metrics[document_losses.count_name("heldout")] = documents
    evidence = diagnosis.describe_evidence(metrics, TEXT_IS_OVERFITTED)
    assert len(evidence) == sentences
    assert not evidence or evidence[0].startswith("Images depend on texts, also in held-out")


def test_a_wide_interval_of_held_out_documents_is_not_called_learned_by_heart():
    names = document_losses.shuffled_gain_names("image", "heldout")
    wide = dict(zip(names, (0.17, -0.18, 0.45), strict=True))
    sentence = diagnosis.diagnose(make_gains() | wide)
    assert "images depend on texts in training documents. It is not certain that" in sentence
    assert "by heart" not in sentence


def test_a_diagnosis_is_the_only_verdict_on_what_depends_on_what():
    """Check gains by which images do not depend on texts, beside a diagnosis by which they do."""
    metrics = dict.fromkeys(conditioning.all_metric_names(), 0.0)
    assert "Images hardly depend on texts yet" in diagnosis.describe_evidence(metrics)[0]
    metrics |= make_gains()
    assert diagnosis.diagnose(metrics).startswith("Diagnosis: good.")
    (sentence,) = diagnosis.describe_evidence(metrics, TEXT_IS_OVERFITTED)
    assert sentence.startswith("Text is overfitted since step 500")
