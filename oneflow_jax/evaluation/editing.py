"""Revision: documents with mistakes that somebody made on purpose, and what a model makes of them.

One word in five, at least one, is made wrong: another word stands in its place, it is missing, it
has changed places with the next, or a word too many stands after it. And one picture, if there is
any, is replaced by another. Then

    revise_words       share of the mistakes in words that are put right; of two words that changed
                       places one counts, for the other is where it was
    revise_pictures    share of the wrong pictures that come to show what they should
    revise_harm        share of the items without a mistake that are no longer there
    revise_untouched   as a mark to hold it against: share of all items that are right if nothing
                       is done at all
    revise_document    share of documents in which all is right
"""

import dataclasses
import functools
import random
from collections.abc import Callable, Mapping, Sequence

import numpy as np

from oneflow_jax.data import edits
from oneflow_jax.data.document import Document, Image, Text
from oneflow_jax.evaluation import base

CORRUPTION_RATE = 0.2
"""Share of the words that are made wrong."""

SingleImageClassifier = Callable[[np.ndarray], str]
"""What a picture shows."""


@dataclasses.dataclass(frozen=True)
class CorruptedDocument:
    """A document with mistakes.

    Attributes:
        right: the document without them, as items: words, and for pictures what they show.
        document: with them.
        mistaken: numbers of the items of `right` that are wrong, or followed by one too many.
        extra: of those, the ones that are followed by one too many, and right themselves.
    """

    right: tuple[str, ...]
    document: Document
    mistaken: frozenset[int]
    extra: frozenset[int]


def make_task(
    documents: Sequence[Document],
    images: Mapping[str, np.ndarray],
    classifier: SingleImageClassifier,
    seed: int,
) -> base.EvalTask:
    """Mistakes in each of the documents, to be put right.

    Args:
        documents: without mistakes.
        images: by name, those that are put in the place of others.
        classifier: what a picture shows.
        seed: of the mistakes.
    """
    words = sorted({word for one in documents for word in one.words().split()})
    broken = [
        inject_errors(one, random.Random(f"{seed}/{n}"), words, images, classifier)
        for n, one in enumerate(documents)
    ]
    return base.EvalTask(
        "revise",
        tuple(one.document for one in broken),
        functools.partial(score, broken, classifier),
        births=True,
        revises=True,
    )


def inject_errors(
    document: Document,
    rng: random.Random,
    words: Sequence[str],
    images: Mapping[str, np.ndarray],
    classifier: SingleImageClassifier,
) -> CorruptedDocument:
    """The document with mistakes in it, at least one in its words if it has any.

    Args:
        document: of more than one item.
        rng: randomness.
        words: at least four different ones, that others are drawn from.
        images: by name, at least two.
        classifier: what a picture shows.
    """
    whole = _to_items(document)
    right = _with_names(whole, classifier)
    is_word = [isinstance(item, str) for item in whole]
    items = [[item] for item in whole]
    mistaken: set[int] = set()
    extra: set[int] = set()
    count = min(sum(is_word), max(1, round(CORRUPTION_RATE * sum(is_word))))
    for n in rng.sample(np.flatnonzero(is_word).tolist(), count):
        if n in mistaken:
            continue
        mistaken.add(n)
        kind = rng.choice(("wrong", "missing", "swapped", "extra"))
        neighbor = n + 1 < len(whole) and is_word[n + 1] and n + 1 not in mistaken
        if kind == "wrong" or (kind == "swapped" and not neighbor):
            items[n] = [rng.choice([word for word in words if word != right[n]])]
        elif kind == "missing":
            items[n] = []
        elif kind == "swapped":
            mistaken.add(n + 1)
            items[n], items[n + 1] = items[n + 1], items[n]
        else:
            extra.add(n)
            # Beside its like it could not be told which of the two is too many.
            near = right[n : n + 2]
            items[n] = [*items[n], rng.choice([word for word in words if word not in near])]
    if not all(is_word):
        n = rng.choice([n for n, word in enumerate(is_word) if not word])
        mistaken.add(n)
        items[n] = [images[rng.choice([other for other in images if f"<{other}>" != right[n]])]]
    return CorruptedDocument(right, _from_items(items), frozenset(mistaken), frozenset(extra))


def score(
    corrupted: Sequence[CorruptedDocument],
    classifier: SingleImageClassifier,
    generated: Sequence[Document],
) -> base.MetricResult:
    """How the documents that were made of broken ones compare with the right ones."""
    words: list[bool] = []
    pictures: list[bool] = []
    harmed: list[bool] = []
    untouched: list[bool] = []
    whole: list[bool] = []
    for one, document in zip(corrupted, generated, strict=True):
        found, surplus = _align(one, document, classifier)
        before, _ = _align(one, one.document, classifier)
        for n, item in enumerate(one.right):
            untouched.append(n in before)
            if n not in one.mistaken:
                harmed.append(n not in found)
            elif item.startswith("<"):
                pictures.append(n in found)
            elif n in one.extra:
                # A word too many is gone if nothing stands there that should not.
                words.append(n in found and n not in surplus)
            elif n not in before:
                words.append(n in found)
        whole.append(len(found) == len(one.right) and not surplus)
    return base.MetricResult({
        "revise_words": base.fraction(words),
        "revise_pictures": base.fraction(pictures),
        "revise_harm": base.fraction(harmed),
        "revise_untouched": base.fraction(untouched),
        "revise_document": base.fraction(whole),
    })  # fmt: skip


def _align(
    corrupted: CorruptedDocument, document: Document, classifier: SingleImageClassifier
) -> tuple[set[int], set[int]]:
    """Which right items are there; and after which something else comes that should not."""
    blocks = edits.align(
        corrupted.right, _with_names(_to_items(document), classifier)
    ).get_opcodes()
    found = {n for what, i, j, _, _ in blocks if what == "equal" for n in range(i, j)}
    # Where more stands than should, it counts against what comes before, and what it stands for.
    more = [(i, j) for what, i, j, m, n in blocks if n - m > j - i]
    return found, {at for i, j in more for at in range(i - 1, j)}


def _to_items(document: Document) -> list[str | np.ndarray]:
    """Words and pictures, in reading order."""
    items: list[str | np.ndarray] = []
    for part in document.parts:
        items += part.text.split() if isinstance(part, Text) else [part.pixels]
    return items


def _with_names(
    items: Sequence[str | np.ndarray], classifier: SingleImageClassifier
) -> tuple[str, ...]:
    return tuple(item if isinstance(item, str) else f"<{classifier(item)}>" for item in items)


def _from_items(items: Sequence[Sequence[str | np.ndarray]]) -> Document:
    """Items as a document: words that stand together are one part."""
    parts: list[Text | Image] = []
    for item in (item for group in items for item in group):
        if not isinstance(item, str):
            parts.append(Image(item))
        elif parts and isinstance(parts[-1], Text):
            parts[-1] = Text(f"{parts[-1].text} {item}")
        else:
            parts.append(Text(item))
    return Document(tuple(parts))
