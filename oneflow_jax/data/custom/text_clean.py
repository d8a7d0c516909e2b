"""Cleaning of text from any source before tokenization.

Each run of white space, including tabs, line ends and non-breaking spaces, becomes one space. White
space at both ends is removed. `REPAIRS` lists the other changes. All other characters are
preserved, including superscripts, fractions, ligatures, full-width forms, accents in either Unicode
form, and joiners and selectors of emoji.
"""

import codecs
import itertools
import re
import unicodedata
from collections.abc import Iterator

from oneflow_jax.data import characters
from oneflow_jax.data.custom.errors import DataError

SECTION_WORDS = 20_000
SECTION_CHARACTERS = 100_000
"""A text with more words or characters is split into several documents.

Otherwise each access to a chunk of it would lay out the whole text again.
"""

UTF_16_MARKS = (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)
"""Byte order marks at the start of files in UTF-16, which editors on Windows write."""

_SURROGATES = re.compile("[\ud800-\udfff]")
_ESCAPED_BYTES = re.compile("[\udc80-\udcff]")
"""Surrogates into which the error handler `surrogateescape` converts bytes that are not UTF-8.

JSON may contain other surrogates.
"""

_CONTROL_CHARACTERS = re.compile(
    rf"[\x00-\x08\x0e-\x1f\x7f-\x84\x86-\x9f{characters.NONCHARACTERS}]"
)
"""Control characters that are not white space, and code points that are not characters."""

_INVISIBLE_CATEGORIES = ("C", "Z")
"""First letters of the Unicode categories of control, unassigned and separator characters."""

_REPLACEMENT_CHARACTER = "\ufffd"


def clean_text(text: object) -> tuple[str, set[str]]:
    """Clean a text; return it with the set of its repairs (keys of `REPAIRS`).

    Raises:
        DataError: the value is neither a string nor bytes, or it has no visible characters.
    """
    repairs: set[str] = set()
    if isinstance(text, bytes):
        text = decode(text)
    if not isinstance(text, str):
        raise DataError("not words", repr(text)[:80])
    if _SURROGATES.search(text):
        repairs.add("invalid UTF-8" if _ESCAPED_BYTES.search(text) else "lone surrogates")
        text = _SURROGATES.sub(_REPLACEMENT_CHARACTER, text)
    if _CONTROL_CHARACTERS.search(text):
        repairs.add("control characters")
        text = _CONTROL_CHARACTERS.sub("", text)
    text = characters.clean_spaces(text)
    if all(_is_blank(letter) for letter in text):
        raise DataError("not UTF-8" if "invalid UTF-8" in repairs else "blank words")
    return text, repairs


def decode(data: bytes) -> str:
    """Decode a text as UTF-8, or as UTF-16 if its byte order mark says so; remove the mark.

    Bytes that are not UTF-8 become surrogates, which `clean_text` replaces and counts.
    """
    if data.startswith(UTF_16_MARKS):
        return data.decode("utf-16", "replace")
    return data.removeprefix(codecs.BOM_UTF8).decode("utf-8", "surrogateescape")


def split_long_text(text: str) -> Iterator[str]:
    """Split a text into sections of limited length, between words where possible."""
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
    return (
        character == _REPLACEMENT_CHARACTER
        or unicodedata.category(character)[0] in _INVISIBLE_CATEGORIES
    )
