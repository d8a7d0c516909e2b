"""Metrics of emoji in several styles: are name and style right, for known and for new pairs?

    text_to_image        fraction of images, generated for a caption without a style, that show the
                         name in any style
    styled_name          fraction of images, generated for a caption with a style, that show the
                         name; pairs of name and style are in training
    styled_style         fraction of these images that are in the style
    styled               fraction of these images where both are right
    composition_name     the same three for pairs that are not in training, although the name and
    composition_style    the style are: they cannot be copied from training
    composition
    image_to_text        fraction of captions, generated for an image of training, that have its
                         name; if they have a style, it must be that of the image
    joint                fraction of documents, generated without a prompt, whose image shows the
                         name, and the style if there is one, of their text
    joint_template_validity, joint_diversity    as in `emoji`, keywords included

A `DrawingRecognizer` tells what an image shows: the drawing that is nearest to it, of all drawings
of the names in training. The drawings of held-out pairs are among them, so that a composition can
be recognized. `reference_recognized_composition` is the fraction of real drawings of held-out
pairs that it recognizes after a random shift, blur and noise; `reference_recognized_name` that of
their names.
"""

import dataclasses
import functools
from collections.abc import Mapping, Sequence

import numpy as np
from jaxtyping import Float, UInt8

from oneflow_jax.data import sentences, style_captions
from oneflow_jax.data.document import Document, Gap, Image
from oneflow_jax.data.style_drawings import Drawing
from oneflow_jax.evaluation import base, emoji, image_name_judge

Shown = tuple[str, str]
"""Style and name of the drawing that an image shows."""


@dataclasses.dataclass(frozen=True, eq=False)
class DrawingRecognizer:
    """Nearest-neighbor search among drawings.

    Attributes:
        labels: style and name of each drawing.
        vectors: `emoji.features` of each drawing.
    """

    labels: Sequence[Shown]
    vectors: Float[np.ndarray, "n f"]

    @classmethod
    def from_drawings(cls, drawings: Sequence[Drawing]) -> "DrawingRecognizer":
        """Index drawings, which must have one size."""
        labels = [(drawing.style, drawing.name) for drawing in drawings]
        return cls(labels, np.stack([emoji.features(drawing.pixels) for drawing in drawings]))

    def __call__(self, images: Sequence[UInt8[np.ndarray, "H W 3"]]) -> list[Shown]:
        """Return the style and name of the drawing that is nearest to each image."""
        nearest = []
        for image in images:
            distances = np.square(self.vectors - emoji.features(image)).sum(axis=1)
            nearest.append(self.labels[int(distances.argmin())])
        return nearest


def make_suite(drawings: Sequence[Drawing], num_samples: int, seed: int = 0) -> base.EvalSuite:
    """Make the suite: tasks of `num_samples` documents each.

    Args:
        drawings: all drawings of the data set, including those that are held out.
        num_samples: number of documents per task.
        seed: RNG seed of the roughened copies for the reference metrics.
    """
    known = [drawing for drawing in drawings if not drawing.name_held_out]
    train = _spread([drawing for drawing in known if drawing.in_training], num_samples)
    pairs = [drawing for drawing in known if drawing.pair_held_out]
    recognize = DrawingRecognizer.from_drawings(known)
    kinds = style_captions.label_kinds(known)
    tasks = [
        base.EvalTask(
            "text_to_image",
            tuple(_image_prompt(drawing.name) for drawing in train),
            functools.partial(_score_names, recognize, train),
        ),
        _styled_task("styled", recognize, train),
        base.EvalTask(
            "image_to_text",
            tuple(Document((Image(drawing.pixels), Gap("text"))) for drawing in train),
            functools.partial(_score_captions, kinds, train),
            is_captioning=True,
        ),
        base.EvalTask(
            "joint",
            (Document((Gap("text"), Gap("image"))),) * num_samples,
            functools.partial(_score_joint, recognize, known, kinds),
        ),
    ]
    if not pairs:
        return base.EvalSuite(tuple(tasks), {})
    tasks.append(_styled_task("composition", recognize, _spread(pairs, num_samples)))
    return base.EvalSuite(tuple(tasks), _reference_metrics(recognize, pairs, seed))


def _spread(drawings: Sequence[Drawing], count: int) -> list[Drawing]:
    """Choose `count` drawings spread evenly over the list; repeat the list if it is shorter."""
    total = len(drawings)
    return [drawings[n * total // count if count < total else n % total] for n in range(count)]


def _image_prompt(label: str) -> Document:
    return Document((emoji.caption_prompt(label), Gap("image")))


def _styled_task(
    name: str, recognize: DrawingRecognizer, drawings: Sequence[Drawing]
) -> base.EvalTask:
    prompts = tuple(_image_prompt(drawing.styled_name) for drawing in drawings)
    score = functools.partial(_score_styled, name, recognize, drawings)
    return base.EvalTask(name, prompts, score)


def _score_names(
    recognize: DrawingRecognizer, drawings: Sequence[Drawing], generated: Sequence[Document]
) -> base.MetricResult:
    images = [document.images()[0] for document in generated]
    names = [drawing.name for drawing in drawings]
    right = [
        recognized == name for (_, recognized), name in zip(recognize(images), names, strict=True)
    ]
    cells = emoji.gallery_cells(images, names, right)
    return base.score_fractions({"text_to_image": right}, cells)


def _score_styled(
    task: str,
    recognize: DrawingRecognizer,
    drawings: Sequence[Drawing],
    generated: Sequence[Document],
) -> base.MetricResult:
    images = [document.images()[0] for document in generated]
    pairs = list(zip(recognize(images), drawings, strict=True))
    names = [name == drawing.name for (_, name), drawing in pairs]
    styles = [style == drawing.style for (style, _), drawing in pairs]
    right = [name and style for name, style in zip(names, styles, strict=True)]
    return base.score_fractions(
        {f"{task}_name": names, f"{task}_style": styles, task: right},
        emoji.gallery_cells(images, [drawing.styled_name for drawing in drawings], right),
    )


def _score_captions(
    kinds: Mapping[str, str], drawings: Sequence[Drawing], generated: Sequence[Document]
) -> base.MetricResult:
    captions = [document.text() for document in generated]
    right = [
        _agrees(_label(document, kinds), (drawing.style, drawing.name))
        for document, drawing in zip(generated, drawings, strict=True)
    ]
    images = [drawing.pixels for drawing in drawings]
    return base.score_fractions(
        {"image_to_text": right}, emoji.gallery_cells(images, captions, right)
    )


def _score_joint(
    recognize: DrawingRecognizer,
    drawings: Sequence[Drawing],
    kinds: Mapping[str, str],
    generated: Sequence[Document],
) -> base.MetricResult:
    labels = [_label(document, kinds) for document in generated]
    images = [document.images()[0] for document in generated]
    right = [_agrees(*pair) for pair in zip(labels, recognize(images), strict=True)]
    keywords = {drawing.name: drawing.keywords for drawing in drawings}
    valid = [
        label is not None
        and style_captions.has_true_keywords(
            label, style_captions.split_keywords(document)[1], keywords
        )
        for label, document in zip(labels, generated, strict=True)
    ]
    names = [style_captions.split_label(label)[1] for label in labels if label]
    captions = [document.text() for document in generated]
    return base.merge(
        base.score_fractions(
            {"joint": right, "joint_template_validity": valid},
            emoji.gallery_cells(images, captions, right),
        ),
        base.MetricResult({"joint_diversity": base.diversity(names, len(keywords))}),
    )


def _label(document: Document, kinds: Mapping[str, str]) -> str | None:
    """Return the label in the caption of one image, or None if the caption is not exact."""
    plain, _ = style_captions.split_keywords(document)
    return sentences.parse_name(plain.text(), kinds)


def _agrees(label: str | None, recognized: Shown) -> bool:
    """Return whether a label names what an image shows; without a style, any style is right."""
    if label is None:
        return False
    style, name = style_captions.split_label(label)
    return name == recognized[1] and style in (None, recognized[0])


def _reference_metrics(
    recognize: DrawingRecognizer, pairs: Sequence[Drawing], seed: int
) -> dict[str, float]:
    images = np.stack([drawing.pixels for drawing in pairs])
    copies = image_name_judge.augment(images, np.random.default_rng(seed))
    recognized = list(zip(recognize(copies), pairs, strict=True))
    return {
        "reference_recognized_composition": base.fraction(
            [label == (one.style, one.name) for label, one in recognized]
        ),
        "reference_recognized_name": base.fraction(
            [name == one.name for (_, name), one in recognized]
        ),
    }
