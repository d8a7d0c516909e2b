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

SHOWN = 64
"""Cells of the contact sheet."""


def suite(
    concepts: Sequence[emoji_concepts.Concept],
    shown: Sequence[Document],
    unseen: Sequence[Document],
    samples: int,
    *,
    grows: bool,
) -> base.Suite:
    """The tasks, each with `samples` documents, over the concepts that training shows.

    Args:
        concepts: all that there are.
        shown: documents of training, to compare with.
        unseen: documents that put them together as training never does, for `revision`.
        samples: documents of each task.
        grows: whether the model chooses the number of pictures itself.
    """
    seen = [concept for concept in concepts if not concept.held_out]
    pictures = {concept.name: concept.pixels for concept in seen}
    known = {name: features(pixels) for name, pixels in pictures.items()}
    names = asked(seen, samples)
    tasks = [
        base.Task(
            "text_to_image",
            tuple(Document((caption(name), Gap("image"))) for name in names),
            functools.partial(_text_to_image, known, names),
        ),
        base.Task(
            "image_to_text",
            tuple(Document((Image(pictures[name]), Gap("text"))) for name in names),
            functools.partial(_image_to_text, known, names),
            captions=True,
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
        tasks.append(editing.task(documents, pictures, named, seed=0))
    if grows:
        kinds = {concept.name: concept.kind for concept in concepts if not concept.held_out}
        prompts = (Document((Gap("document"),)),) * samples
        judge = functools.partial(_document, known, kinds)
        tasks.append(base.Task("document", prompts, judge, births=True))
    return base.Suite(tuple(tasks), _pictures("data", shown) if grows else {})


def asked(concepts: Sequence[emoji_concepts.Concept], samples: int) -> list[str]:
    """The names that so many prompts are about: all in turn."""
    return [concepts[n % len(concepts)].name for n in range(samples)]


def caption(name: str) -> Text:
    """What pictures are asked for with."""
    return Text(f"a picture of {sentences.phrase(name)}:")


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
    return base.shares({"text_to_image": right}, _cells(pictures, names, right))


def _image_to_text(
    known: Mapping[str, np.ndarray], names: Sequence[str], made: Sequence[Document]
) -> base.Score:
    captions = [document.words() for document in made]
    right = [
        sentences.name_in(words, known) == name for words, name in zip(captions, names, strict=True)
    ]
    pictures = [document.pictures()[0] for document in made]
    return base.shares({"image_to_text": right}, _cells(pictures, captions, right))


def _joint(known: Mapping[str, np.ndarray], made: Sequence[Document]) -> base.Score:
    captions = [document.words() for document in made]
    pictures = [document.pictures()[0] for document in made]
    named = [sentences.name_in(words, known) for words in captions]
    right = [name == nearest(p, known) for p, name in zip(pictures, named, strict=True)]
    variety = base.variety([name for name in named if name], len(known))
    return base.together(
        base.shares(
            {"joint": right, "joint_valid": [name is not None for name in named]},
            _cells(pictures, captions, right),
        ),
        base.Score({"joint_variety": variety}),
    )


def _document(
    known: Mapping[str, np.ndarray], kinds: Mapping[str, str], made: Sequence[Document]
) -> base.Score:
    hits, places, cells = [], [], []
    forms = [sentences.pictured(document, kinds) for document in made]
    for document, form in zip(made, forms, strict=True):
        looks = [nearest(pixels, known) for pixels in document.pictures()]
        places += _in_place(sentences.mentioned(document.words(), known), looks)
        right = [form is not None and form[n] == look for n, look in enumerate(looks)]
        hits += right
        cells += _cells(document.pictures(), [document.words()] * len(looks), right)
    promised = [
        sentences.counted(document.words()) == len(document.pictures())
        for document in made
        if sentences.counted(document.words())
    ]
    named = [sentences.mentioned(document.words(), known) for document in made]
    figures = {
        "document": base.share(hits),
        "document_places": base.share(places),
        "document_counted": base.share(promised),
        "document_valid": base.share([form is not None for form in forms]),
        "document_variety": base.variety(list(itertools.chain(*named)), len(known)),
        **_pictures("document", made),
    }
    return base.Score(figures, tuple(cells[:SHOWN]))


def _in_place(names: Sequence[str], looks: Sequence[str]) -> list[bool]:
    """For each picture, whether it looks like the name in its place."""
    blocks = edits.matcher(names, looks).get_matching_blocks()
    there = {n for block in blocks for n in range(block.b, block.b + block.size)}
    return [n in there for n in range(len(looks))]


def _pictures(name: str, documents: Sequence[Document]) -> dict[str, float]:
    """Shares of documents with 1 to 4 pictures."""
    counts = [len(documents[i].pictures()) for i in range(len(documents))]
    return {f"{name}_{n}": base.share([count == n for count in counts]) for n in range(1, 5)}


def _cells(
    pictures: Sequence[np.ndarray], captions: Sequence[str], right: Sequence[bool]
) -> tuple[base.Cell, ...]:
    cells = zip(pictures, captions, right, strict=True)
    return tuple((p, words, "right" if ok else "wrong") for p, words, ok in cells)[:SHOWN]
