"""Emoji: does the picture show what the words name, and do the words name what it shows?

    text_to_image   share of pictures, made for a caption, that look like the emoji it names
    image_to_text   share of captions, made for a picture, with exactly its name
    joint           share of documents, made from nothing, whose picture looks like the emoji that
                    their words name
    joint_valid     share of those whose words are one of the captions' forms with one name

and of models that choose the number of pictures themselves, for documents made from nothing at all:

    document          share of pictures that look like the emoji that the words name in their place
    document_valid    share of documents of one of the forms, names, count and order included
    document_several  share of those with two pictures or more

What is asked of revision is in `scoring.revision`.

A picture looks like the emoji that is nearest to it of all that training shows.
"""

import functools
import itertools
from collections.abc import Mapping, Sequence

import numpy as np

from oneflow_jax.data import emoji_concepts, sentences
from oneflow_jax.data.document import Document, Gap, Image, Text
from oneflow_jax.scoring import base, revision

SHOWN = 64
"""Cells of the contact sheet."""


def suite(
    concepts: Sequence[emoji_concepts.Concept],
    unseen: Sequence[Document],
    samples: int,
    *,
    grows: bool,
) -> base.Suite:
    """The tasks, each with `samples` documents, over the concepts that training shows.

    Args:
        concepts: all that there are.
        unseen: documents that put them together as training never does, for `revision`.
        samples: documents of each task.
        grows: whether the model chooses the number of pictures itself.
    """
    pictures = {concept.name: concept.pixels for concept in concepts if not concept.held_out}
    known = {name: features(pixels) for name, pixels in pictures.items()}
    names = list(itertools.islice(itertools.cycle(known), samples))
    captions = [Text(f"a picture of {sentences.phrase(name)}:") for name in names]
    tasks = [
        base.Task(
            "text_to_image",
            tuple(Document((caption, Gap("image"))) for caption in captions),
            functools.partial(_text_to_image, known, names),
        ),
        base.Task(
            "image_to_text",
            tuple(Document((Image(pictures[name]), Gap("text"))) for name in names),
            functools.partial(_image_to_text, known, names),
        ),
        base.Task(
            "joint",
            (Document((Gap("text"), Gap("image"))),) * samples,
            functools.partial(_joint, known),
        ),
    ]
    if unseen:
        documents = [unseen[i] for i in range(min(samples, len(unseen)))]
        named = functools.partial(nearest, known=known)
        tasks.append(revision.task(documents, pictures, named, seed=0))
    if grows:
        kinds = {concept.name: concept.kind for concept in concepts if not concept.held_out}
        prompts = (Document((Gap("document"),)),) * samples
        judge = functools.partial(_document, known, kinds)
        tasks.append(base.Task("document", prompts, judge, births=True))
    return base.Suite(tuple(tasks), {})


def nearest(pixels: np.ndarray, known: Mapping[str, np.ndarray]) -> str:
    """The name of the known picture at the least distance.

    Args:
        pixels: uint8 `[H W 3]`.
        known: `features` of pictures of the same size, by name.
    """
    wanted = features(pixels)
    distance = {name: float(np.sum((wanted - other) ** 2)) for name, other in known.items()}
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


def _text_to_image(
    known: Mapping[str, np.ndarray], names: Sequence[str], made: Sequence[Document]
) -> base.Score:
    pictures = [document.pictures()[0] for document in made]
    right = [nearest(p, known) == name for p, name in zip(pictures, names, strict=True)]
    return base.Score({"text_to_image": base.share(right)}, _cells(pictures, names, right))


def _image_to_text(
    known: Mapping[str, np.ndarray], names: Sequence[str], made: Sequence[Document]
) -> base.Score:
    captions = [document.words() for document in made]
    right = [
        sentences.name_in(words, known) == name for words, name in zip(captions, names, strict=True)
    ]
    pictures = [document.pictures()[0] for document in made]
    return base.Score({"image_to_text": base.share(right)}, _cells(pictures, captions, right))


def _joint(known: Mapping[str, np.ndarray], made: Sequence[Document]) -> base.Score:
    captions = [document.words() for document in made]
    pictures = [document.pictures()[0] for document in made]
    named = [sentences.name_in(words, known) for words in captions]
    right = [name == nearest(p, known) for p, name in zip(pictures, named, strict=True)]
    figures = {
        "joint": base.share(right),
        "joint_valid": base.share([name is not None for name in named]),
    }
    return base.Score(figures, _cells(pictures, captions, right))


def _document(
    known: Mapping[str, np.ndarray], kinds: Mapping[str, str], made: Sequence[Document]
) -> base.Score:
    right, cells = [], []
    named = [sentences.pictured(document, kinds) for document in made]
    for document, names in zip(made, named, strict=True):
        shown = [nearest(pixels, known) for pixels in document.pictures()]
        hits = (
            [False] * len(shown)
            if names is None
            else [a == b for a, b in zip(shown, names, strict=True)]
        )
        right += hits
        captions = [document.words()] * len(shown)
        cells += _cells(document.pictures(), captions, hits)
    valid = [names is not None for names in named]
    several = [len(names) > 1 for names in named if names is not None]
    figures = {
        "document": base.share(right),
        "document_valid": base.share(valid),
        "document_several": base.share(several),
    }
    return base.Score(figures, tuple(cells[:SHOWN]))


def _cells(
    pictures: Sequence[np.ndarray], captions: Sequence[str], right: Sequence[bool]
) -> tuple[base.Cell, ...]:
    cells = zip(pictures, captions, right, strict=True)
    return tuple((p, words, "right" if ok else "wrong") for p, words, ok in cells)[:SHOWN]
