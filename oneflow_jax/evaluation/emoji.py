"""Emoji: does the picture show what the words name, and do the words name what it shows?

    text_to_image   share of pictures, made for a caption, that look like the emoji it names
    image_to_text   share of captions, made for a picture, with exactly its name
    joint           share of documents, made from nothing, whose picture looks like the emoji that
                    their words name
    joint_valid     share of those whose words are one of the captions' forms with one name
    joint_variety   how many names there would be if all that come came equally often, by all names

and of models that choose the number of pictures themselves, for documents made from nothing at all:

    document_places   share of pictures that look like the emoji that is named in their place: the
                      pictures and the names that the words speak of are aligned in their order
    document_counted  of documents that say how many there will be, the share that keep their word
    document_1 ... 4  share of documents with so many pictures; data_1 ... 4 the same of the data
    document_variety  as above
    document_valid    share of documents of one of the forms to the letter, names and count included
    document          share of pictures that look like what that form names in their place; all
                      pictures of other documents count as wrong

What is asked of revision is in `scoring.revision`.

A picture looks like the emoji that is nearest to it of all that training shows.
"""

import functools
import itertools
from collections.abc import Mapping, Sequence

import numpy as np

from oneflow_jax.data import edits, emoji_concepts, sentences
from oneflow_jax.data.document import Document, Gap, Image, Text
from oneflow_jax.evaluation import base, editing

GALLERY_SIZE = 64
"""Cells of the contact sheet."""


def make_suite(
    concepts: Sequence[emoji_concepts.Concept],
    train_documents: Sequence[Document],
    heldout_documents: Sequence[Document],
    num_samples: int,
    *,
    variable_length: bool,
) -> base.EvalSuite:
    """The tasks, each with `num_samples` documents, over the concepts that training shows.

    Args:
        concepts: all that there are.
        train_documents: documents of training, to compare with.
        heldout_documents: documents that put them together as training never does, for `revision`.
        num_samples: documents of each task.
        variable_length: whether the model chooses the number of pictures itself.
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
            captions=True,
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
        tasks.append(base.EvalTask("document", prompts, judge, births=True))
    return base.EvalSuite(
        tuple(tasks), _image_count_fractions("data", train_documents) if variable_length else {}
    )


def prompt_names(concepts: Sequence[emoji_concepts.Concept], num_prompts: int) -> list[str]:
    """The names that so many prompts are about: all in turn."""
    return [concepts[n % len(concepts)].name for n in range(num_prompts)]


def caption_prompt(name: str) -> Text:
    """What pictures are asked for with."""
    return Text(f"a picture of {sentences.noun_phrase(name)}:")


def nearest_neighbor(pixels: np.ndarray, references: Mapping[str, np.ndarray]) -> str:
    """The name of the known picture at the least distance.

    Args:
        pixels: uint8 `[H W 3]`.
        references: `features` of pictures of the same size, by name.
    """
    wanted = features(pixels)
    distance = {name: float(np.sum((wanted - other) ** 2)) for name, other in references.items()}
    return min(distance, key=distance.__getitem__)


def features(pixels: np.ndarray) -> np.ndarray:
    """A picture as a vector; the squared distance of two is that of the pictures.

    It is the mean squared difference, summed over four scales: the pictures as they are, and
    averaged over 2 x 2, 4 x 4 and 8 x 8 pixels, so that shapes and colors count beside edges.
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
    pictures = [document.pictures()[0] for document in generated]
    right = [
        nearest_neighbor(p, references) == name for p, name in zip(pictures, names, strict=True)
    ]
    return base.score_fractions({"text_to_image": right}, _gallery_cells(pictures, names, right))


def _score_image_to_text(
    references: Mapping[str, np.ndarray], names: Sequence[str], generated: Sequence[Document]
) -> base.MetricResult:
    captions = [document.words() for document in generated]
    right = [
        sentences.parse_name(words, references) == name
        for words, name in zip(captions, names, strict=True)
    ]
    pictures = [document.pictures()[0] for document in generated]
    return base.score_fractions({"image_to_text": right}, _gallery_cells(pictures, captions, right))


def _score_joint(
    references: Mapping[str, np.ndarray], generated: Sequence[Document]
) -> base.MetricResult:
    captions = [document.words() for document in generated]
    pictures = [document.pictures()[0] for document in generated]
    named = [sentences.parse_name(words, references) for words in captions]
    right = [
        name == nearest_neighbor(p, references) for p, name in zip(pictures, named, strict=True)
    ]
    variety = base.diversity([name for name in named if name], len(references))
    return base.merge(
        base.score_fractions(
            {"joint": right, "joint_valid": [name is not None for name in named]},
            _gallery_cells(pictures, captions, right),
        ),
        base.MetricResult({"joint_variety": variety}),
    )


def _score_documents(
    references: Mapping[str, np.ndarray], kinds: Mapping[str, str], generated: Sequence[Document]
) -> base.MetricResult:
    hits, places, cells = [], [], []
    forms = [sentences.expected_names(document, kinds) for document in generated]
    for document, form in zip(generated, forms, strict=True):
        looks = [nearest_neighbor(pixels, references) for pixels in document.pictures()]
        places += _match_in_order(sentences.extract_names(document.words(), references), looks)
        right = [form is not None and form[n] == look for n, look in enumerate(looks)]
        hits += right
        cells += _gallery_cells(document.pictures(), [document.words()] * len(looks), right)
    promised = [
        sentences.parse_count(document.words()) == len(document.pictures())
        for document in generated
        if sentences.parse_count(document.words())
    ]
    named = [sentences.extract_names(document.words(), references) for document in generated]
    figures = {
        "document": base.fraction(hits),
        "document_places": base.fraction(places),
        "document_counted": base.fraction(promised),
        "document_valid": base.fraction([form is not None for form in forms]),
        "document_variety": base.diversity(list(itertools.chain(*named)), len(references)),
        **_image_count_fractions("document", generated),
    }
    return base.MetricResult(figures, tuple(cells[:GALLERY_SIZE]))


def _match_in_order(names: Sequence[str], predictions: Sequence[str]) -> list[bool]:
    """For each picture, whether it looks like the name in its place."""
    blocks = edits.align(names, predictions).get_matching_blocks()
    there = {n for block in blocks for n in range(block.b, block.b + block.size)}
    return [n in there for n in range(len(predictions))]


def _image_count_fractions(prefix: str, documents: Sequence[Document]) -> dict[str, float]:
    """Shares of documents with 1 to 4 pictures."""
    counts = [len(documents[i].pictures()) for i in range(len(documents))]
    return {f"{prefix}_{n}": base.fraction([count == n for count in counts]) for n in range(1, 5)}


def _gallery_cells(
    images: Sequence[np.ndarray], captions: Sequence[str], outcomes: Sequence[bool]
) -> tuple[base.GalleryCell, ...]:
    cells = zip(images, captions, outcomes, strict=True)
    return tuple((p, words, "right" if ok else "wrong") for p, words, ok in cells)[:GALLERY_SIZE]
