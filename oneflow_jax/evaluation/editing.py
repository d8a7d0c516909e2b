"""Metrics of editing: the model corrects documents into which errors were injected.

One word in five (at least one word) is corrupted: it is substituted, deleted, swapped with the next
word, or followed by a spurious word. In documents with images, one image is replaced by another.

    edit_text_recall   fraction of the errors in words that are corrected; two swapped words count
                       as one error, since the alignment of items leaves one of the two in place
    edit_image_recall  fraction of the replaced images that show the right content after editing
    over_edit_rate     fraction of the words and images without an error that are missing after
                       editing
    unedited_baseline  fraction of all words and images that are right before editing
    edit_exact_match   fraction of documents that are entirely right after editing
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
"""Fraction of the words that are corrupted."""

SingleImageClassifier = Callable[[np.ndarray], str]
"""A function from one image to the name of what it shows."""


@dataclasses.dataclass(frozen=True)
class CorruptedDocument:
    """A document with injected errors.

    Attributes:
        reference: items of the document without errors: words, and `<name>` for each image.
        document: the document with errors.
        corrupted_indices: indices of the items of `reference` that are wrong or are followed by a
            spurious word.
        spurious_after: subset of `corrupted_indices`: the items that are themselves right, but are
            followed by a spurious word.
    """

    reference: tuple[str, ...]
    document: Document
    corrupted_indices: frozenset[int]
    spurious_after: frozenset[int]


def make_task(
    documents: Sequence[Document],
    images: Mapping[str, np.ndarray],
    classifier: SingleImageClassifier,
    seed: int,
) -> base.EvalTask:
    """Make the editing task: correct the errors injected into each document.

    Args:
        documents: documents without errors.
        images: images by name, from which replacements are drawn.
        classifier: function that names what an image shows.
        seed: RNG seed of the errors.
    """
    words = sorted({word for one in documents for word in one.text().split()})
    broken = [
        inject_errors(one, random.Random(f"{seed}/{n}"), words, images, classifier)
        for n, one in enumerate(documents)
    ]
    return base.EvalTask(
        "edit",
        tuple(one.document for one in broken),
        functools.partial(score, broken, classifier),
        may_insert_images=True,
        is_editing=True,
    )


def inject_errors(
    document: Document,
    rng: random.Random,
    words: Sequence[str],
    images: Mapping[str, np.ndarray],
    classifier: SingleImageClassifier,
) -> CorruptedDocument:
    """Inject errors into at least one word and into one image, if the document has them.

    Args:
        document: a document of two or more items.
        rng: random generator.
        words: at least four distinct words from which substitutes are drawn.
        images: at least two images by name.
        classifier: function that names what an image shows.
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
            # The spurious word must differ from its neighbors, because scoring could not tell which
            # of two equal words is spurious.
            neighbors = right[n : n + 2]
            items[n] = [*items[n], rng.choice([word for word in words if word not in neighbors])]
    if not all(is_word):
        n = rng.choice([n for n, word in enumerate(is_word) if not word])
        mistaken.add(n)
        items[n] = [images[rng.choice([name for name in images if f"<{name}>" != right[n]])]]
    return CorruptedDocument(right, _from_items(items), frozenset(mistaken), frozenset(extra))


def score(
    corrupted: Sequence[CorruptedDocument],
    classifier: SingleImageClassifier,
    generated: Sequence[Document],
) -> base.MetricResult:
    """Score edited documents: compare them with the documents before errors were injected."""
    words: list[bool] = []
    pictures: list[bool] = []
    harmed: list[bool] = []
    untouched: list[bool] = []
    whole: list[bool] = []
    for one, document in zip(corrupted, generated, strict=True):
        matched, surplus = _align(one, document, classifier)
        before, _ = _align(one, one.document, classifier)
        for n, item in enumerate(one.reference):
            untouched.append(n in before)
            if n not in one.corrupted_indices:
                harmed.append(n not in matched)
            elif item.startswith("<"):
                pictures.append(n in matched)
            elif n in one.spurious_after:
                # The spurious word counts as deleted if nothing surplus follows item n.
                words.append(n in matched and n not in surplus)
            elif n not in before:
                words.append(n in matched)
        whole.append(len(matched) == len(one.reference) and not surplus)
    return base.MetricResult({
        "edit_text_recall": base.fraction(words),
        "edit_image_recall": base.fraction(pictures),
        "over_edit_rate": base.fraction(harmed),
        "unedited_baseline": base.fraction(untouched),
        "edit_exact_match": base.fraction(whole),
    })  # fmt: skip


def _align(
    corrupted: CorruptedDocument, document: Document, classifier: SingleImageClassifier
) -> tuple[set[int], set[int]]:
    """Return indices of reference items: those in `document`, and those next to a surplus item."""
    blocks = edits.align(
        corrupted.reference, _with_names(_to_items(document), classifier)
    ).get_opcodes()
    matched = {n for what, i, j, _, _ in blocks if what == "equal" for n in range(i, j)}
    # Surplus items mark the item before them, and the items that they replace, as wrong.
    more = [(i, j) for what, i, j, m, n in blocks if n - m > j - i]
    return matched, {at for i, j in more for at in range(i - 1, j)}


def _to_items(document: Document) -> list[str | np.ndarray]:
    """Return the words and images of a document in reading order."""
    items: list[str | np.ndarray] = []
    for part in document.parts:
        items += part.text.split() if isinstance(part, Text) else [part.pixels]
    return items


def _with_names(
    items: Sequence[str | np.ndarray], classifier: SingleImageClassifier
) -> tuple[str, ...]:
    return tuple(item if isinstance(item, str) else f"<{classifier(item)}>" for item in items)


def _from_items(items: Sequence[Sequence[str | np.ndarray]]) -> Document:
    """Build a document from items; consecutive words form one text part."""
    parts: list[Text | Image] = []
    for item in (item for group in items for item in group):
        if not isinstance(item, str):
            parts.append(Image(item))
        elif parts and isinstance(parts[-1], Text):
            parts[-1] = Text(f"{parts[-1].text} {item}")
        else:
            parts.append(Text(item))
    return Document(tuple(parts))
