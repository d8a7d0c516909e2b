"""Metrics of the emoji data set: do the images show the emoji that the text names?

    text_to_image            fraction of images, generated for a caption, that look like the named
                             emoji
    image_to_text            fraction of texts, generated for an image, that name exactly its emoji
    joint                    fraction of documents, generated without a prompt, whose image looks
                             like the emoji named in their text
    joint_template_validity  fraction of these documents whose text is one of the caption templates
                             with one name
    joint_diversity          effective number of distinct names in these documents, exp(entropy),
                             divided by the number of all names

Models that choose the number of images themselves also generate whole documents without a prompt:

    document_alignment          fraction of images that look like the emoji named in their place:
                                the images and the names in the text are aligned as two sequences
    document_count_accuracy     of the documents that state a count: fraction with that number of
                                images
    document_num_images_1       fraction of documents with 1 image; also _2, _3 and _4
    reference_num_images_1      fraction of the data's documents with 1 image; also _2, _3 and _4
    document_diversity          `joint_diversity` of these documents
    document_template_validity  fraction of documents that match a template exactly, including names
                                and count
    document_accuracy           fraction of images that look like the emoji that the template names
                                in their place; all images of documents that match no template count
                                as wrong

The metrics of editing are in `evaluation.editing`.

An image looks like an emoji if, of all emoji in the training data, this emoji is nearest to the
image (`nearest_neighbor`).
"""

import functools
import itertools
from collections.abc import Mapping, Sequence

import numpy as np

from oneflow_jax.data import edits, emoji_concepts, sentences
from oneflow_jax.data.document import Document, Gap, Image, Text
from oneflow_jax.evaluation import base, editing

GALLERY_SIZE = 64
"""Maximum number of cells of the contact sheet."""


def make_suite(
    concepts: Sequence[emoji_concepts.Concept],
    train_documents: Sequence[Document],
    heldout_documents: Sequence[Document],
    num_samples: int,
    *,
    variable_length: bool,
) -> base.EvalSuite:
    """Make the suite: tasks of `num_samples` documents each, over the concepts of training.

    Args:
        concepts: all concepts, including those held out of training.
        train_documents: training documents, for comparison.
        heldout_documents: documents for the editing task; may be empty. Their combinations of
            concepts do not occur in training documents.
        num_samples: number of documents per task.
        variable_length: whether the model chooses the number of images itself.
    """
    seen = [concept for concept in concepts if not concept.held_out]
    pictures = {concept.name: concept.pixels for concept in seen}
    known = {name: features(pixels) for name, pixels in pictures.items()}
    names = prompt_names(seen, num_samples)
    tasks = [
        base.EvalTask(
            "text_to_image",
            tuple(Document((caption_prompt(name), Gap("image"))) for name in names),
            functools.partial(_score_text_to_image, known, names),
        ),
        base.EvalTask(
            "image_to_text",
            tuple(Document((Image(pictures[name]), Gap("text"))) for name in names),
            functools.partial(_score_image_to_text, known, names),
            is_captioning=True,
        ),
        base.EvalTask(
            "joint",
            (Document((Gap("text"), Gap("image"))),) * num_samples,
            functools.partial(_score_joint, known),
        ),
    ]
    if heldout_documents:
        documents = [heldout_documents[i] for i in range(min(num_samples, len(heldout_documents)))]
        named = functools.partial(nearest_neighbor, references=known)
        tasks.append(editing.make_task(documents, pictures, named, seed=0))
    if variable_length:
        kinds = {concept.name: concept.kind for concept in concepts if not concept.held_out}
        prompts = (Document((Gap("document"),)),) * num_samples
        judge = functools.partial(_score_documents, known, kinds)
        tasks.append(base.EvalTask("document", prompts, judge, may_insert_images=True))
    return base.EvalSuite(
        tuple(tasks),
        _image_count_fractions("reference", train_documents) if variable_length else {},
    )


def prompt_names(concepts: Sequence[emoji_concepts.Concept], num_prompts: int) -> list[str]:
    """Return one concept name per prompt, cycling through the concepts."""
    return [concepts[n % len(concepts)].name for n in range(num_prompts)]


def caption_prompt(name: str) -> Text:
    """Return the text prompt that asks for an image of the named emoji."""
    return Text(f"a picture of {sentences.noun_phrase(name)}:")


def nearest_neighbor(pixels: np.ndarray, references: Mapping[str, np.ndarray]) -> str:
    """Return the name of the reference image nearest to an image.

    Args:
        pixels: uint8 `[H W 3]`.
        references: `features` of images of the same size, by name.
    """
    wanted = features(pixels)
    distance = {
        name: float(np.sum((wanted - reference) ** 2)) for name, reference in references.items()
    }
    return min(distance, key=distance.__getitem__)


def features(pixels: np.ndarray) -> np.ndarray:
    """Return the features of an image for nearest-neighbor search.

    The squared distance between two feature vectors is the sum, over four scales, of the mean
    squared difference of the images. The scales are full resolution, and averages of blocks of 2 x
    2, 4 x 4 and 8 x 8 pixels. With the coarse scales, the distance depends on shapes and colors,
    not only on edges.
    """
    values = pixels.astype(np.float32) / 255
    size = len(values)
    scales = [
        values.reshape(size // n, n, size // n, n, 3).mean(axis=(1, 3)).reshape(-1)
        for n in (1, 2, 4, 8)
        if size % n == 0
    ]
    return np.concatenate([scale / np.sqrt(scale.size) for scale in scales])


def _score_text_to_image(
    references: Mapping[str, np.ndarray], names: Sequence[str], generated: Sequence[Document]
) -> base.MetricResult:
    pictures = [document.images()[0] for document in generated]
    right = [
        nearest_neighbor(p, references) == name for p, name in zip(pictures, names, strict=True)
    ]
    return base.score_fractions({"text_to_image": right}, gallery_cells(pictures, names, right))


def _score_image_to_text(
    references: Mapping[str, np.ndarray], names: Sequence[str], generated: Sequence[Document]
) -> base.MetricResult:
    captions = [document.text() for document in generated]
    right = [
        sentences.parse_name(words, references) == name
        for words, name in zip(captions, names, strict=True)
    ]
    pictures = [document.images()[0] for document in generated]
    return base.score_fractions({"image_to_text": right}, gallery_cells(pictures, captions, right))


def _score_joint(
    references: Mapping[str, np.ndarray], generated: Sequence[Document]
) -> base.MetricResult:
    captions = [document.text() for document in generated]
    pictures = [document.images()[0] for document in generated]
    named = [sentences.parse_name(words, references) for words in captions]
    right = [
        name == nearest_neighbor(p, references) for p, name in zip(pictures, named, strict=True)
    ]
    variety = base.diversity([name for name in named if name], len(references))
    return base.merge(
        base.score_fractions(
            {"joint": right, "joint_template_validity": [name is not None for name in named]},
            gallery_cells(pictures, captions, right),
        ),
        base.MetricResult({"joint_diversity": variety}),
    )


def _score_documents(
    references: Mapping[str, np.ndarray], kinds: Mapping[str, str], generated: Sequence[Document]
) -> base.MetricResult:
    hits, places, cells = [], [], []
    forms = [sentences.expected_names(document, kinds) for document in generated]
    for document, form in zip(generated, forms, strict=True):
        looks = [nearest_neighbor(pixels, references) for pixels in document.images()]
        places += _match_in_order(sentences.extract_names(document.text(), references), looks)
        right = [form is not None and form[n] == look for n, look in enumerate(looks)]
        hits += right
        cells += gallery_cells(document.images(), [document.text()] * len(looks), right)
    promised = [
        sentences.parse_count(document.text()) == len(document.images())
        for document in generated
        if sentences.parse_count(document.text())
    ]
    named = [sentences.extract_names(document.text(), references) for document in generated]
    figures = {
        "document_accuracy": base.fraction(hits),
        "document_alignment": base.fraction(places),
        "document_count_accuracy": base.fraction(promised),
        "document_template_validity": base.fraction([form is not None for form in forms]),
        "document_diversity": base.diversity(list(itertools.chain(*named)), len(references)),
        **_image_count_fractions("document", generated),
    }
    return base.MetricResult(figures, tuple(cells[:GALLERY_SIZE]))


def _match_in_order(names: Sequence[str], predictions: Sequence[str]) -> list[bool]:
    """Align names and images in order; return for each image whether it matches its name."""
    blocks = edits.align(names, predictions).get_matching_blocks()
    there = {n for block in blocks for n in range(block.b, block.b + block.size)}
    return [n in there for n in range(len(predictions))]


def _image_count_fractions(prefix: str, documents: Sequence[Document]) -> dict[str, float]:
    """Return the fractions of documents with 1, 2, 3 and 4 images."""
    counts = [len(documents[i].images()) for i in range(len(documents))]
    return {
        f"{prefix}_num_images_{n}": base.fraction([count == n for count in counts])
        for n in range(1, 5)
    }


def gallery_cells(
    images: Sequence[np.ndarray], captions: Sequence[str], outcomes: Sequence[bool]
) -> tuple[base.GalleryCell, ...]:
    """Return the cells of a contact sheet: images, captions, and whether each is right."""
    cells = zip(images, captions, outcomes, strict=True)
    return tuple((p, words, "right" if ok else "wrong") for p, words, ok in cells)[:GALLERY_SIZE]
