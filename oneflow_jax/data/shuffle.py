"""Documents with the texts or the images of other documents, to test whether both belong together.

If the losses of documents whose texts and images were exchanged are as low as those of the original
documents, a model does not use one for the other, or they do not belong together in the data.
"""

import dataclasses
from collections.abc import Sequence

from oneflow_jax.data.document import Document, group_runs, is_text


@dataclasses.dataclass(frozen=True)
class ExchangedDocument:
    """A document, and the two documents that result from exchanging its parts with another one.

    Attributes:
        original: the document.
        other_texts: its images, with the texts of another document.
        other_images: its texts, with the images of this other document.
    """

    original: Document
    other_texts: Document
    other_images: Document


def pair_by_text(texts: Sequence[str]) -> list[int | None]:
    """Return for each text the index of a partner with another text; None if all are equal.

    The texts are sorted. The partner is the first other text from half the list further on, so that
    most texts are the partner of one text.
    """
    ordered = sorted(range(len(texts)), key=texts.__getitem__)
    partners: list[int | None] = [None] * len(texts)
    for place, index in enumerate(ordered):
        start = place + len(ordered) // 2
        following = (ordered[(start + n) % len(ordered)] for n in range(len(ordered)))
        partners[index] = next((n for n in following if texts[n] != texts[index]), None)
    return partners


def has_both(document: Document) -> bool:
    """Return whether a document has text and an image."""
    return {is_text(part) for part in document.parts} == {True, False}


def exchange(documents: Sequence[Document]) -> list[ExchangedDocument]:
    """Exchange texts and images between documents that have the same order of texts and images.

    Each document exchanges its parts with its partner (`pair_by_text`). Documents without a partner
    are left out.
    """
    by_order: dict[tuple[bool, ...], list[Document]] = {}
    for document in documents:
        order = tuple(is_text(run[0]) for run in group_runs(document.parts))
        if len(set(order)) == 2:
            by_order.setdefault(order, []).append(document)
    exchanged = []
    for group in by_order.values():
        partners = pair_by_text([document.text() for document in group])
        for document, index in zip(group, partners, strict=True):
            if index is not None:
                partner = group[index]
                exchanged.append(
                    ExchangedDocument(
                        document,
                        other_texts=_merge(texts=partner, images=document),
                        other_images=_merge(texts=document, images=partner),
                    )
                )
    return exchanged


def _merge(texts: Document, images: Document) -> Document:
    """Return the texts of one document with the images of another, which has the same order."""
    runs = zip(group_runs(texts.parts), group_runs(images.parts), strict=True)
    chosen = [run if is_text(run[0]) else other for run, other in runs]
    return Document(tuple(part for run in chosen for part in run))
