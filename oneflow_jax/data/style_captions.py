"""Captions that may name styles and keywords, and exact parsing of such captions.

The templates of `sentences` give the text of a document. A style precedes the name: "a noto fox".
Keywords stand before the colon, or at the end of a caption without a colon: "here is a lion, tagged
mane and roar:".
"""

import random
import re
from collections.abc import Collection, Sequence

from oneflow_jax.data import document as documents
from oneflow_jax.data import labels, sentences
from oneflow_jax.data.style_drawings import Drawing

_NUM_KEYWORDS = 2
_TAGS = re.compile(r", tagged (\w+) and (\w+)")


def compose(
    template: str, drawings: Sequence[Drawing], *, styled: bool, keywords: Sequence[str] = ()
) -> documents.Document:
    """Compose a document that shows the drawings and names them.

    Args:
        template: one of `sentences.CAPTION_TEMPLATES` or `sentences.INTERLEAVED_TEMPLATES`.
        drawings: drawings of different names of one kind, one for each name in the template.
        styled: whether the text names the style of each drawing.
        keywords: two keywords of the drawing, or no keywords. They require exactly one drawing.
    """
    names = [drawing.label if styled else drawing.name for drawing in drawings]
    parts = sentences.render(template, names, drawings[0].kind)
    tags = f", tagged {keywords[0]} and {keywords[1]}" if keywords else ""
    return documents.Document(
        tuple(
            documents.Text(_insert_tags(part, tags))
            if isinstance(part, str)
            else documents.Image(drawings[part].pixels)
            for part in parts
        )
    )


def sample_keywords(rng: random.Random, drawing: Drawing) -> list[str]:
    """Sample the keywords for a caption; return [] if the drawing has too few."""
    if len(drawing.keywords) < _NUM_KEYWORDS:
        return []
    return rng.sample(drawing.keywords, _NUM_KEYWORDS)


def split_keywords(
    document: documents.Document,
) -> tuple[documents.Document, tuple[str, ...]]:
    """Return a document without its keywords, and the keywords in the order of the text."""
    keywords: list[str] = []
    parts: list[documents.Part] = []
    for part in document.parts:
        if isinstance(part, documents.Text):
            keywords += [word for pair in _TAGS.findall(part.text) for word in pair]
            part = documents.Text(_TAGS.sub("", part.text))
        parts.append(part)
    return documents.Document(tuple(parts)), tuple(keywords)


def has_true_keywords(
    document: documents.Document,
    document_labels: Sequence[str],
    images: Collection[labels.LabeledImage],
) -> bool:
    """Return whether the keywords of a document are correct.

    A document without keywords is correct. Otherwise it must have exactly one label, and two
    keywords that belong to the name in this label.

    Args:
        document: a document that may have keywords.
        document_labels: labels in the text of the document.
        images: all images that a document can name.
    """
    _, keywords = split_keywords(document)
    if not keywords:
        return True
    if len(document_labels) != 1 or len(keywords) != _NUM_KEYWORDS:
        return False
    known = {image.name: image.keywords for image in images}
    return set(keywords) <= set(known[labels.split_label(document_labels[0])[1]])


def _insert_tags(text: str, tags: str) -> str:
    return f"{text[:-1]}{tags}:" if text.endswith(":") else text + tags
