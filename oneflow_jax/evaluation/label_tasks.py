"""Tasks of data sets of labeled images: do images show what the text names?

    text_to_image            fraction of the images generated for a caption that show its name
    image_to_text            fraction of the captions generated for an image that match a template
                             exactly and name what the image shows
    joint                    fraction of the documents generated without a prompt whose image shows
                             what their caption names
    joint_template_validity  fraction of these documents whose text is a caption template with one
                             label; if the text has keywords, they must be true
    joint_diversity          effective number of distinct names in these documents, exp(entropy),
                             divided by the number of names in training

Whole documents, generated from the prompt <document>, have these metrics:

    document_alignment          fraction of images that show the right label: the labels in the text
                                and what the images show are aligned as two sequences
    document_count_accuracy     fraction of the documents that have as many images as their text
                                states, among documents that state a count
    document_num_images_1       fraction of documents with 1 image; also _2, _3 and _4
    document_diversity          `joint_diversity` of these documents
    document_template_validity  fraction of documents that match a template exactly, including
                                labels, count and keywords
    document_accuracy           fraction of images that show what the template names at their place;
                                all images of documents that match no template count as wrong

A text may name an emoji with or without its style (`labels`). Without a style, an image in any
style is right; with a style, the image must be in this style. An `interleaved.ImageClassifier`
decides what an image shows.
"""

import functools
import itertools
from collections.abc import Sequence
from typing import TypeVar

import numpy as np

from oneflow_jax.data import labels, sentences, style_captions
from oneflow_jax.data.document import Document, Gap, Image, Text
from oneflow_jax.data.labels import LabeledImage
from oneflow_jax.evaluation import base, interleaved

GALLERY_SIZE = 64
"""Maximum number of cells of the contact sheet."""

LabeledImageT = TypeVar("LabeledImageT", bound=LabeledImage)


def make_tasks(
    asked: Sequence[LabeledImage],
    known: Sequence[LabeledImage],
    classifier: interleaved.ImageClassifier,
) -> list[base.EvalTask]:
    """Make the tasks; each has as many documents as `asked` has images.

    Args:
        asked: training images; the prompts contain their names or their pixels.
        known: all images that a document can name or show.
        classifier: function that labels what images show.
    """
    return [
        make_image_task("text_to_image", [image.name for image in asked], classifier),
        base.EvalTask(
            "image_to_text",
            tuple(Document((Image(image.pixels), Gap("text"))) for image in asked),
            functools.partial(_score_captions, asked, known),
            is_captioning=True,
        ),
        base.EvalTask(
            "joint",
            (Document((Gap("text"), Gap("image"))),) * len(asked),
            functools.partial(_score_joint, known, classifier),
        ),
        base.EvalTask(
            "document",
            (Document((Gap("document"),)),) * len(asked),
            functools.partial(_score_documents, known, classifier),
            may_insert_images=True,
        ),
    ]


def make_image_task(
    name: str, asked: Sequence[str], classifier: interleaved.ImageClassifier
) -> base.EvalTask:
    """Make a task that asks for one image for each label in `asked`.

    The metrics are the fractions of images that `compare_labels` counts as right.
    """
    prompts = tuple(Document((caption_prompt(label), Gap("image"))) for label in asked)
    return base.EvalTask(name, prompts, functools.partial(_score_images, name, asked, classifier))


def caption_prompt(label: str) -> Text:
    """Return the text prompt that asks for an image with a label."""
    return Text(f"a picture of {sentences.noun_phrase(label)}:")


def spread_evenly(images: Sequence[LabeledImageT], count: int) -> list[LabeledImageT]:
    """Choose `count` images, spread evenly over the list; repeat the list if it is too short."""
    total = len(images)
    return [images[n * total // count if count < total else n % total] for n in range(count)]


def compare_labels(
    metric: str, asked: Sequence[str], shown: Sequence[str]
) -> dict[str, list[bool]]:
    """Return, for each metric and image, whether the image shows the label that was asked for.

    Args:
        metric: metric of the whole label. If labels have styles, the metrics `<metric>_name` and
            `<metric>_style` compare only the names and only the styles.
        asked: label that each image should show.
        shown: label of what each image shows.
    """
    pairs = list(zip(asked, shown, strict=True))
    outcomes = {metric: [labels.agrees(*pair) for pair in pairs]}
    if any(labels.split_label(label)[0] for label in asked):
        parts = [tuple(map(labels.split_label, pair)) for pair in pairs]
        outcomes[f"{metric}_name"] = [wanted[1] == seen[1] for wanted, seen in parts]
        outcomes[f"{metric}_style"] = [wanted[0] == seen[0] for wanted, seen in parts]
    return outcomes


def image_count_fractions(prefix: str, documents: Sequence[Document]) -> dict[str, float]:
    """Return the fractions of documents with n = 1 to 4 images, as `<prefix>_num_images_<n>`."""
    counts = [len(documents[n].images()) for n in range(len(documents))]
    return {
        f"{prefix}_num_images_{n}": base.fraction([count == n for count in counts])
        for n in range(1, 5)
    }


def stack_images(documents: Sequence[Document]) -> np.ndarray:
    """Return all images of the documents, uint8 `[n H W 3]`."""
    return np.stack([pixels for document in documents for pixels in document.images()])


def _score_images(
    task: str,
    asked: Sequence[str],
    classifier: interleaved.ImageClassifier,
    generated: Sequence[Document],
) -> base.MetricResult:
    images = stack_images(generated)
    outcomes = compare_labels(task, asked, classifier(images))
    return base.score_fractions(outcomes, _gallery_cells(images, asked, outcomes[task]))


def _score_captions(
    asked: Sequence[LabeledImage], known: Sequence[LabeledImage], generated: Sequence[Document]
) -> base.MetricResult:
    captions = [document.text() for document in generated]
    right = [
        labels.agrees(label, image.label)
        for label, image in zip(_parse_captions(generated, known), asked, strict=True)
    ]
    images = [image.pixels for image in asked]
    return base.score_fractions({"image_to_text": right}, _gallery_cells(images, captions, right))


def _score_joint(
    known: Sequence[LabeledImage],
    classifier: interleaved.ImageClassifier,
    generated: Sequence[Document],
) -> base.MetricResult:
    captions = [document.text() for document in generated]
    images = stack_images(generated)
    parsed = _parse_captions(generated, known)
    right = [labels.agrees(*pair) for pair in zip(parsed, classifier(images), strict=True)]
    valid = [
        label is not None and style_captions.has_true_keywords(document, [label], known)
        for label, document in zip(parsed, generated, strict=True)
    ]
    return base.merge(
        base.score_fractions(
            {"joint": right, "joint_template_validity": valid},
            _gallery_cells(images, captions, right),
        ),
        base.MetricResult(
            {"joint_diversity": _name_diversity([label for label in parsed if label], known)}
        ),
    )


def _score_documents(
    known: Sequence[LabeledImage],
    classifier: interleaved.ImageClassifier,
    generated: Sequence[Document],
) -> base.MetricResult:
    kinds = labels.list_kinds(known)
    scores = interleaved.score_documents(generated, known, classifier)
    hits, cells, valid, promised = [], [], [], []
    for document, score in zip(generated, scores, strict=True):
        plain, _ = style_captions.split_keywords(document)
        form = sentences.expected_names(plain, kinds)
        count = sentences.parse_count(plain.text())
        right = [
            form is not None and labels.agrees(form[n], look) for n, look in enumerate(score.shown)
        ]
        hits += right
        cells += _gallery_cells(document.images(), [document.text()] * len(right), right)
        valid.append(
            form is not None and style_captions.has_true_keywords(document, score.names, known)
        )
        promised += [] if count is None else [count == score.num_images]
    num_images = sum(score.num_images for score in scores)
    figures = {
        "document_accuracy": base.fraction(hits),
        "document_alignment": sum(score.num_aligned for score in scores) / max(1, num_images),
        "document_count_accuracy": base.fraction(promised),
        "document_template_validity": base.fraction(valid),
        "document_diversity": _name_diversity(
            list(itertools.chain(*(score.names for score in scores))), known
        ),
        **image_count_fractions("document", generated),
    }
    return base.MetricResult(figures, tuple(cells[:GALLERY_SIZE]))


def _parse_captions(
    documents: Sequence[Document], known: Sequence[LabeledImage]
) -> list[str | None]:
    """Return the label in each caption; None if a caption matches no template exactly."""
    kinds = labels.list_kinds(known)
    plain = (style_captions.split_keywords(document)[0] for document in documents)
    return [sentences.parse_name(document.text(), kinds) for document in plain]


def _name_diversity(used: Sequence[str], known: Sequence[LabeledImage]) -> float:
    names = [labels.split_label(label)[1] for label in used]
    return base.diversity(names, len({image.name for image in known if image.in_training}))


def _gallery_cells(
    images: Sequence[np.ndarray], captions: Sequence[str], outcomes: Sequence[bool]
) -> tuple[base.GalleryCell, ...]:
    """Return the cells of a contact sheet: images, captions, and whether each is right."""
    cells = zip(images, captions, outcomes, strict=True)
    return tuple((p, words, "right" if ok else "wrong") for p, words, ok in cells)[:GALLERY_SIZE]
