"""Tests of the metrics of own data, on documents whose texts name the color of an image."""

import numpy as np
import pytest

from oneflow_jax.data.document import Document, Gap, Image, Text
from oneflow_jax.evaluation import own_data

NUM_TRAIN, NUM_HELDOUT = 24, 8
TOKENS = {"a": 1, "light": 2, "dark": 3, "thing": 4}


def make_document(number):
    """Return a light or dark image with its text; no two images are equal."""
    light = number % 2 == 0
    pixels = np.full((8, 8, 3), 230 if light else 20, np.uint8)
    pixels[number % 8, number // 8] += 5
    return Document((Image(pixels), Text(f"a {'light' if light else 'dark'} thing{number}")))


def encode(text):
    return [TOKENS.get(word, 100 + len(word)) for word in text.split()]


def make_own(**changes):
    documents = [make_document(n) for n in range(NUM_TRAIN + NUM_HELDOUT)]
    examples = [
        own_data.Example(one, Document((Gap("image"), one.parts[1])), Document((one.parts[0],)))
        for one in documents
    ]
    settings = {
        "examples": {"heldout": examples[NUM_TRAIN:], "train": examples[:8]},
        "training": documents[:NUM_TRAIN],
        "encode": encode,
        "pixels": 8,
        "text_slots": lambda document: np.array(encode(document.text())),
    }
    return own_data.OwnData(**settings | changes)


def score(own, name, generated):
    (task,) = (task for task in own_data.make_suite(own).tasks if task.name == name)
    result = task.score(generated)
    return {**result.metrics, **result.unbounded}


def list_documents(own, split="heldout"):
    return [one.document for one in own.examples[split]]


def add_images(own, change, split="heldout"):
    """Return the documents with changed images."""
    return [
        Document((Image(change(one.images()[0])), one.parts[1]))
        for one in list_documents(own, split)
    ]


def test_right_images_match_and_inverted_ones_do_not():
    own = make_own()
    right = score(own, "text_to_image_heldout", list_documents(own))
    assert right["image_match_heldout"] == 1
    assert right["nn_distance_ratio_heldout"] == 1
    assert right["nn_distance_heldout"] == right["nn_distance_real"] > 0
    wrong = score(own, "text_to_image_heldout", add_images(own, lambda pixels: 255 - pixels))
    assert wrong["image_match_heldout"] == 0


def test_copies_of_training_images_are_found():
    own = make_own()
    copies = list_documents(own, "train")
    result = score(own, "text_to_image_heldout", copies)
    assert result["nn_distance_heldout"] == 0
    assert result["memorization_rate_heldout"] == 1


def test_texts_are_compared_with_the_baselines():
    own = make_own()
    right = score(own, "image_to_text_heldout", list_documents(own))
    assert right["token_accuracy_heldout"] == right["text_match_heldout"] == 1
    assert right["text_copy_rate_heldout"] == 0
    # The nearest training image has the right color, and the most frequent one is light or dark.
    assert right["token_accuracy_copy_heldout"] == 1
    assert right["token_accuracy_mode_heldout"] == pytest.approx(5 / 6)
    copied = score(own, "image_to_text_heldout", [own.training[0]] * NUM_HELDOUT)
    assert copied["text_copy_rate_heldout"] == 1
    assert copied["text_match_heldout"] == pytest.approx(0.5)
    empty = score(own, "image_to_text_heldout", [Document((Text(""),))] * NUM_HELDOUT)
    assert empty["token_accuracy_heldout"] == 0


def test_the_nearest_training_image_of_a_training_document_is_not_its_own():
    own = make_own()
    nearest = own_data._nearest_texts(own, "train")
    assert not any(a == b.text() for a, b in zip(nearest, own.training, strict=False))


def test_distances_tell_apart_captions_and_noises():
    own = make_own()
    (task,) = (task for task in own_data.make_suite(own).tasks if task.name == "image_distance")
    assert len(task.prompts) == len(task.noise_ids) == own_data.NUM_CAPTIONS * own_data.NUM_SEEDS
    assert task.noise_ids[: own_data.NUM_SEEDS + 1] == (0, 1, 2, 3, 0)

    def measure(color):
        documents = [
            Document((Image(np.full((8, 8, 3), color(n // 4, n % 4), np.uint8)),))
            for n in range(len(task.prompts))
        ]
        return score(own, "image_distance", documents)

    by_noise = measure(lambda caption, noise: 50 * noise)
    assert by_noise["image_distance_captions"] == 0 < by_noise["image_distance_seeds"]
    by_caption = measure(lambda caption, noise: 20 * caption)
    assert by_caption["image_distance_seeds"] == 0 < by_caption["image_distance_captions"]
    assert measure(lambda caption, noise: 7)["image_distance"] == 0


def test_reference_metrics():
    metrics = own_data.make_suite(make_own()).measure_reference()
    assert metrics["reference_image_distance"] == pytest.approx(0.42, abs=0.05)
    assert 0 < metrics["reference_text_loss_unigram_heldout"] < 1
    without = own_data.make_suite(make_own(text_slots=None)).measure_reference()
    assert not any("unigram" in name for name in without)


def test_the_sheet_shows_held_out_documents_beside_generated_ones():
    own = make_own()
    suite = own_data.make_suite(own)
    drawn = add_images(own, lambda pixels: pixels)
    sheet = suite.make_sheet({"text_to_image_heldout": drawn, "image_to_text_heldout": drawn})
    assert len(sheet.headers) == 4
    assert len(sheet.cells) == 4 * NUM_HELDOUT
    real, made, nearest, again = sheet.cells[:4]
    first = own.examples["heldout"][0].document
    assert real[1] == again[1] == first.text()
    assert nearest[1] in [one.text() for one in own.training]
    np.testing.assert_array_equal(made[0], first.images()[0])
    assert suite.make_sheet({}) is None
    assert len(suite.make_sheet({"text_to_image_heldout": drawn}).headers) == 3


def test_a_split_without_examples_has_no_tasks():
    own = make_own(examples={"heldout": [], "train": make_own().examples["train"]})
    names = [task.name for task in own_data.make_suite(own).tasks]
    assert names == ["text_to_image_train", "image_to_text_train", "image_distance"]
    metrics = score(own, "text_to_image_train", list_documents(own, "train"))
    assert not any("real" in name or "ratio" in name for name in metrics)
    nothing = make_own(examples={"heldout": [], "train": []}, training=[])
    assert own_data.make_suite(nothing).tasks == ()
    assert own_data.make_suite(nothing).measure_reference() == {}


def test_images_of_all_shapes_are_compared_as_squares_and_shown_whole():
    wide = np.full((4, 12, 3), 20, np.uint8)
    document = Document((Image(wide), Text("a dark thing")))
    example = own_data.Example(document, Document((Gap("image"),)), Document((Gap("text"),)))
    own = make_own(examples={"heldout": [example, *make_own().examples["heldout"]], "train": []})
    square = own.make_square(document)
    assert square.shape == (8, 8, 3)
    assert (square[3:5] == 20).all()
    assert (square[[0, -1]] == 255).all()
    assert score(own, "text_to_image_heldout", list_documents(own))["image_match_heldout"] == 1
    sheet = own_data.make_suite(own).make_sheet({"text_to_image_heldout": list_documents(own)})
    assert sheet.cells[0][0].shape == sheet.cells[1][0].shape == wide.shape
