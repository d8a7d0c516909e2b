"""Words of any origin, made into words that a tokenizer takes."""

import itertools
import re
import unicodedata
from collections.abc import Iterator

from oneflow_jax.data.custom.errors import Fault

SECTION_WORDS = 20_000
SECTION_CHARACTERS = 100_000
"""Longer texts are cut, since a document is laid out whole each time that it is read."""

_HALVES = re.compile("[\ud800-\udfff]")
_BYTES = re.compile("[\udc80-\udcff]")
"""Halves that `surrogateescape` makes of bytes. JSON may write any."""

_CONTROL = re.compile(r"[\x00-\x08\x0e-\x1f\x7f-\x84\x86-\x9f]")
"""Control characters that are no white space."""

_INVISIBLE = ("C", "Z")
"""Unicode's categories of control, format, unassigned and separating characters."""

_NOTHING = "\ufffd"
_SPACES = (_NOTHING, "\u2581")
"""SentencePiece makes them spaces."""


def cleaned(words: object) -> tuple[str, set[str]]:
    """Words with single spaces, and what had to be put right: keys of `faults.REPAIRED`.

    Raises:
        Fault: no words, or nothing to see in them.
    """
    repairs: set[str] = set()
    if isinstance(words, bytes):
        words = words.decode("utf-8", "surrogateescape")
    if not isinstance(words, str):
        raise Fault("not words", repr(words)[:80])
    if _HALVES.search(words):
        repairs.add("invalid UTF-8" if _BYTES.search(words) else "lone surrogates")
        words = _HALVES.sub(_NOTHING, words)
    if _CONTROL.search(words):
        repairs.add("control characters")
        words = _CONTROL.sub("", words)
    words = " ".join(words.split())
    if all(_blank(letter) for letter in words):
        raise Fault("blank words")
    return words, repairs


def sections(words: str) -> Iterator[str]:
    """The words in pieces that are not too long, cut between words if they can be."""
    short = itertools.chain.from_iterable(
        (word[at : at + SECTION_CHARACTERS] for at in range(0, len(word), SECTION_CHARACTERS))
        for word in words.split(" ")
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


def _blank(letter: str) -> bool:
    return letter in _SPACES or unicodedata.category(letter)[0] in _INVISIBLE
