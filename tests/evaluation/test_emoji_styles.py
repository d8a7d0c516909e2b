"""Tests of the metrics of styles: names, styles and new pairs are scored separately."""

import numpy as np
import pytest

from oneflow_jax.data import emoji_styles as data
from oneflow_jax.data import labels, sentences
from oneflow_jax.data.document import Document, Gap, Image, Text
from oneflow_jax.evaluation import emoji_styles
from oneflow_jax.evaluation.nearest_image import NearestImage
from tests.data import small_style_packages

NUM_SAMPLES = 30


@pytest.fixture(scope="module")
def drawings(tmp_path_factory):
    folder = small_style_packages.write(tmp_path_factory.mktemp("packages"))
    settings = data.Settings(
        path=str(folder),
        concepts=20,
        styles=small_style_packages.STYLES,
        min_styles=3,
        pixels=24,
    )
    return settings.load_drawings()


@pytest.fixture(scope="module")
def suite(drawings):
    nearest = NearestImage.from_images(drawings)
    train = [
        Document((Text("a fox and an owl"), Image(drawings[0].pixels), Image(drawings[1].pixels)))
    ]
    return emoji_styles.make_suite(drawings, nearest, train, NUM_SAMPLES)


@pytest.fixture(scope="module")
def tasks(suite):
    return {task.name: task for task in suite.tasks}


@pytest.fixture(scope="module")
def pixels(drawings):
    return {(drawing.style, drawing.name): drawing.pixels for drawing in drawings}


def prompted_label(prompt):
    (label,) = (
        part.text.removeprefix("a picture of ").rstrip(":").split(" ", 1)[1]
        for part in prompt.parts
        if isinstance(part, Text)
    )
    return labels.split_label(label)


def answer(prompt, image):
    return Document(tuple(Image(image) if isinstance(part, Gap) else part for part in prompt.parts))


def test_every_drawing_is_nearest_to_itself(drawings):
    shown = NearestImage.from_images(drawings)([drawing.pixels for drawing in drawings])
    assert shown == [f"{drawing.style} {drawing.name}" for drawing in drawings]


def test_prompts_ask_for_pairs_of_training_and_for_held_out_pairs(tasks, drawings):
    for name, held_out in (("styled", False), ("composition", True)):
        asked = {prompted_label(prompt) for prompt in tasks[name].prompts}
        pairs = {
            (drawing.style, drawing.name)
            for drawing in drawings
            if drawing.pair_held_out == held_out and not drawing.name_held_out
        }
        assert asked <= pairs
        assert len(asked) == min(NUM_SAMPLES, len(pairs))
    assert {style for style, _ in map(prompted_label, tasks["text_to_image"].prompts)} == {None}
    assert {len(task.prompts) for task in tasks.values()} == {NUM_SAMPLES}


@pytest.mark.parametrize("task", ["styled", "composition"])
def test_name_and_style_are_scored_separately(tasks, pixels, task):
    prompts = tasks[task].prompts
    labels = [prompted_label(prompt) for prompt in prompts]
    right = [answer(*pair) for pair in zip(prompts, (pixels[x] for x in labels), strict=True)]
    assert tasks[task].score(right).metrics == {f"{task}_name": 1, f"{task}_style": 1, task: 1}
    other_style = [
        next(image for (s, n), image in pixels.items() if n == name and s != style)
        for style, name in labels
    ]
    wrong = [answer(*pair) for pair in zip(prompts, other_style, strict=True)]
    assert tasks[task].score(wrong).metrics == {f"{task}_name": 1, f"{task}_style": 0, task: 0}
    mixed = tasks[task].score(right[:15] + wrong[15:])
    assert mixed.metrics[task] == 0.5
    assert [cell[2] for cell in mixed.gallery] == ["right"] * 15 + ["wrong"] * 15


def test_without_a_style_any_style_is_right(tasks, pixels):
    task = tasks["text_to_image"]
    names = [prompted_label(prompt)[1] for prompt in task.prompts]
    for style in ("noto", "openmoji"):
        made = [
            answer(prompt, pixels[style, name])
            for prompt, name in zip(task.prompts, names, strict=True)
        ]
        assert task.score(made).metrics == {"text_to_image": 1.0}
    white = [answer(prompt, np.full((24, 24, 3), 255, np.uint8)) for prompt in task.prompts]
    assert task.score(white).metrics["text_to_image"] < 0.3


@pytest.mark.parametrize(
    ("label", "score"),
    [("{name}", 1.0), ("{style} {name}", 1.0), ("{other} {name}", 0.0), ("flying {name}", 0.0)],
)
def test_a_caption_may_name_the_style_but_not_another(tasks, drawings, label, score):
    task = tasks["image_to_text"]
    made = []
    for prompt in task.prompts:
        image = prompt.images()[0]
        drawing = next(one for one in drawings if np.array_equal(one.pixels, image))
        other = next(style for style in small_style_packages.STYLES if style != drawing.style)
        named = label.format(name=drawing.name, style=drawing.style, other=other)
        text = f"this is {sentences.noun_phrase(named)}"
        made.append(Document((Image(image), Text(text))))
    assert task.score(made).metrics["image_to_text"] == score


def test_joint_needs_agreement_and_true_keywords(tasks, pixels):
    fox, lion = pixels["noto", "fox"], pixels["noto", "lion"]
    captions = [
        ("this is a noto fox", fox, True, True),
        ("this is a fox, tagged sly and clever", fox, True, True),
        ("this is a fox, tagged mane and roar", fox, True, False),
        ("this is a twemoji fox", fox, False, True),
        ("this is a lion", fox, False, True),
        ("this is nothing", lion, False, False),
    ] * 5
    made = [Document((Image(image), Text(text))) for text, image, _, _ in captions]
    metrics = tasks["joint"].score(made).metrics
    assert metrics["joint"] == np.mean([right for *_, right, _ in captions])
    assert metrics["joint_template_validity"] == np.mean([valid for *_, valid in captions])
    assert 0 < metrics["joint_diversity"] < 0.2


def test_document_labels_are_compared_as_the_text_names_them(tasks, pixels):
    images = [Image(pixels[style, name]) for style, name in (("noto", "fox"), ("twemoji", "owl"))]
    score = tasks["document"].score

    def accuracy(text):
        # The template is "[0] [1] on the left {0}, on the right {1}": images come before the text.
        metrics = score([Document((*images, Text(text)))]).metrics
        return metrics["document_accuracy"], metrics["document_alignment"]

    assert accuracy("on the left a fox, on the right an owl") == (1, 1)
    assert accuracy("on the left a noto fox, on the right a twemoji owl") == (1, 1)
    assert accuracy("on the left a noto fox, on the right a noto owl") == (0.5, 0.5)
    assert accuracy("on the left an owl, on the right a fox") == (0, 0.5)
    # A document that names a style must name all styles.
    assert accuracy("on the left a noto fox, on the right an owl") == (0, 0.5)


def test_a_document_s_keywords_must_be_true(tasks, pixels):
    image = Image(pixels["noto", "fox"])
    for words, valid in (("sly and clever", 1), ("mane and roar", 0)):
        made = [Document((image, Text(f"this is a fox, tagged {words}")))]
        metrics = tasks["document"].score(made).metrics
        assert metrics["document_template_validity"] == valid
        assert metrics["document_accuracy"] == metrics["document_alignment"] == 1


def test_the_classifier_is_scored_on_rough_drawings_of_held_out_pairs(suite):
    metrics = suite.measure_reference()
    name, style = (metrics[f"reference_composition_{part}"] for part in ("name", "style"))
    assert name > 0.8
    assert 0.5 < metrics["reference_composition"] <= min(name, style)
    assert metrics["reference_num_images_2"] == 1
