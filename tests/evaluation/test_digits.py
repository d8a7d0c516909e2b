import dataclasses

import numpy as np
import pytest

from oneflow_jax.data import digits as data
from oneflow_jax.data import sources
from oneflow_jax.data.document import Document, Gap, Image, Text
from oneflow_jax.evaluation import base, digits


@pytest.fixture(scope="module")
def scans(tmp_path_factory):
    folder = tmp_path_factory.mktemp("data")
    return {split: sources.open_dataset("digits", folder, split) for split in ("train", "heldout")}


@pytest.fixture(scope="module")
def suite(scans):
    return digits.make_suite(scans["train"], scans["heldout"], num_samples=7)


def replace_caption(document, digit):
    """Return the document with a caption that names `digit` instead of its own caption."""
    caption = data.TEMPLATES[0].format(data.NAMES[digit])
    return dataclasses.replace(document, parts=(Text(caption), document.parts[1]))


def caption_digit(document):
    return data.parse_digit(document.text())


def test_the_classifier_reads_digits_that_it_has_not_seen(suite):
    assert suite.measure_reference()["classifier_accuracy"] >= 0.93


def test_prompts_ask_for_a_caption_and_a_image(suite):
    (task,) = suite.tasks
    assert [part.kind for part in task.prompts[0].parts] == ["text", "image"]
    assert all(isinstance(part, Gap) for part in task.prompts[0].parts)
    assert len(task.prompts) == 7


def test_perfect_documents_score_one(suite, scans):
    score = suite.tasks[0].score([scans["train"][i] for i in range(100)])
    assert score.metrics["caption_validity"] == 1
    assert score.metrics["image_caption_match"] >= 0.98
    assert len(score.gallery) == digits.GALLERY_SIZE
    assert {cell[2] for cell in score.gallery[:20]} == {"right"}


def test_wrong_captions_score_zero_match(suite, scans):
    documents = [scans["train"][i] for i in range(50)]
    score = suite.tasks[0].score(
        [replace_caption(item, (caption_digit(item) + 1) % 10) for item in documents]
    )
    assert score.metrics["caption_validity"] == 1
    assert score.metrics["image_caption_match"] <= 0.02


def test_invalid_captions_have_zero_validity(suite, scans):
    picture = scans["train"][0].parts[1]
    babble = ["", "a drawing of the digit", "a drawing of the digit two ", "seven"]
    score = suite.tasks[0].score([Document((Text(words), picture)) for words in babble])
    # Without a valid caption, the match metric is absent.
    assert score.metrics["caption_validity"] == 0.0
    assert "image_caption_match" not in score.metrics


def test_match_is_a_fraction_of_valid_captions(suite, scans):
    right = [scans["train"][i] for i in range(4)]
    wrong = replace_caption(right[0], (caption_digit(right[0]) + 1) % 10)
    babble = Document((Text("no digit"), right[0].parts[1]))
    score = suite.tasks[0].score([*right[:3], wrong, babble, babble, babble, babble])
    assert (score.metrics["caption_validity"], score.metrics["image_caption_match"]) == (0.5, 0.75)
    assert [cell[2] for cell in score.gallery] == ["right"] * 3 + ["wrong"] * 5


def test_noise_images_rarely_match_captions(suite, scans):
    """Check that noise images rarely match their captions."""
    noise = np.random.default_rng(0).integers(0, 256, (40, 8, 8, 3)).astype(np.uint8)
    documents = [Document((scans["train"][i].parts[0], Image(noise[i]))) for i in range(40)]
    assert suite.tasks[0].score(documents).metrics["image_caption_match"] < 0.4


def test_diversity_separates_one_caption_from_all(suite, scans):
    picture = scans["train"][0].parts[1]

    def measure_variety(captions):
        documents = [Document((Text(words), picture)) for words in captions]
        return suite.tasks[0].score(documents).metrics["caption_diversity"]

    all_captions = list(data.CAPTIONS)
    assert measure_variety(all_captions) == pytest.approx(1)
    assert measure_variety([*all_captions[:10], "babble"]) == pytest.approx(10 / 40)
    assert measure_variety([all_captions[0]] * 50) == pytest.approx(1 / 40)
    assert 1 / 40 < measure_variety([all_captions[0]] * 50 + [all_captions[1]]) < 2 / 40


def test_total_variation_of_two_counts():
    assert base.total_variation([3, 3, 5, 5], [3, 5]) == 0
    assert base.total_variation([3, 3], [5, 5]) == 1
    assert base.total_variation([3, 3, 3, 5], [3, 5]) == 0.25
    assert base.total_variation([], []) == 0
