"""Words of any origin, made into words that a tokenizer takes."""

import itertools
import re
import unicodedata
from collections.abc import Iterator

from oneflow_jax.data.custom.errors import DataError

SECTION_WORDS = 20_000
SECTION_CHARACTERS = 100_000
"""Longer texts are cut, since a document is laid out whole each time that it is read."""

_SURROGATES = re.compile("[\ud800-\udfff]")
_ESCAPED_BYTES = re.compile("[\udc80-\udcff]")
"""Halves that `surrogateescape` makes of bytes. JSON may write any."""

_CONTROL_CHARACTERS = re.compile(r"[\x00-\x08\x0e-\x1f\x7f-\x84\x86-\x9f]")
"""Control characters that are no white space."""

_INVISIBLE_CATEGORIES = ("C", "Z")
"""Unicode's categories of control, format, unassigned and separating characters."""

_REPLACEMENT_CHARACTER = "\ufffd"
_SPACE_LIKE = (_REPLACEMENT_CHARACTER, "\u2581")
"""SentencePiece makes them spaces."""


def clean_text(text: object) -> tuple[str, set[str]]:
    """Words with single spaces, and what had to be put right: keys of `errors.REPAIRS`.

    Raises:
        Fault: no words, or nothing to see in them.
    """
    repairs: set[str] = set()
    if isinstance(text, bytes):
        text = text.decode("utf-8", "surrogateescape")
    if not isinstance(text, str):
        raise DataError("not words", repr(text)[:80])
    if _SURROGATES.search(text):
        repairs.add("invalid UTF-8" if _ESCAPED_BYTES.search(text) else "lone surrogates")
        text = _SURROGATES.sub(_REPLACEMENT_CHARACTER, text)
    if _CONTROL_CHARACTERS.search(text):
        repairs.add("control characters")
        text = _CONTROL_CHARACTERS.sub("", text)
    text = " ".join(text.split())
    if all(_is_blank(letter) for letter in text):
        raise DataError("blank words")
    return text, repairs


def split_long_text(text: str) -> Iterator[str]:
    """The words in pieces that are not too long, cut between words if they can be."""
    short = itertools.chain.from_iterable(
        (word[at : at + SECTION_CHARACTERS] for at in range(0, len(word), SECTION_CHARACTERS))
        for word in text.split(" ")
    )
    held: list[str] = []
    size = 0
    for word in short:
        if held and (len(held) == SECTION_WORDS or size + len(word) > SECTION_CHARACTERS):
            yield " ".join(held)
            held, size = [], 0
        held.append(word)
        size += len(word) + 1
    yield " ".join(held)


def _is_blank(character: str) -> bool:
    return character in _SPACE_LIKE or unicodedata.category(character)[0] in _INVISIBLE_CATEGORIES
