"""Escaping of characters for SentencePiece, and the choice of characters that get a token."""

import collections
import unicodedata
from collections.abc import Iterable, Sequence

import numpy as np

NONCHARACTERS = "\ufdd0\ufdd1\ufdd2"
"""Code points that texts should not contain: Unicode reserves them for use inside programs."""

UNKNOWN_PIECE = NONCHARACTERS[2]
"""Piece that stands for unknown symbols, instead of SentencePiece's default `<unk>`.

SentencePiece skips this string wherever a text contains it, and a text may contain "<unk>".
"""

_SPACE = "\u2581"
_STAND_INS = str.maketrans({_SPACE: NONCHARACTERS[0], "\u2585": NONCHARACTERS[1]})
"""Stand-ins for two characters that texts may contain but that SentencePiece reserves.

SentencePiece writes spaces as U+2581, and skips lines with U+2585.
"""

_PROTECTED = dict.fromkeys(map(ord, NONCHARACTERS), "\ufffd") | _STAND_INS

_ORIGINALS = {ord(stand_in): character for character, stand_in in _STAND_INS.items()}

_UNMERGED = "\t"
"""In the lines that train a tokenizer, this character replaces each character without a token.

SentencePiece never merges pieces across this character.
"""

_CHARACTER_FRACTION = 0.75
"""Fraction of the tokens that `hide_rare` reserves for single characters, 0 to 1."""


def clean_spaces(text: str) -> str:
    """Replace each run of white space by one space, and remove white space at both ends."""
    return " ".join(text.split())


def protect(text: str) -> str:
    """Put a noncharacter in place of each character that SentencePiece reserves.

    A noncharacter of the text itself becomes U+FFFD.
    """
    return text.translate(_PROTECTED)


def restore(text: str) -> str:
    """Undo `protect`. Noncharacters that `protect` replaced with U+FFFD are not restored."""
    return text.translate(_ORIGINALS)


def count_characters(lines: Iterable[str]) -> collections.Counter[str]:
    """Count how often each character occurs in the lines.

    As in SentencePiece, spaces count as U+2581, and one space is added before each line.
    """
    counts: collections.Counter[str] = collections.Counter()
    for line in lines:
        counts.update(f"{_SPACE}{line.replace(' ', _SPACE)}")
    return counts


def choose_covered(counts: collections.Counter[str], coverage: float) -> list[str]:
    """Return the most frequent characters that together make up `coverage` of all occurrences.

    `coverage` is a fraction, 0 to 1. SentencePiece chooses the same characters.
    """
    total, seen, covered = sum(counts.values()), 0, []
    for character, count in sorted(counts.items(), key=lambda item: (-item[1], item[0])):
        # Compare in single precision, as SentencePiece does.
        if np.float32(seen / total) >= np.float32(coverage):
            break
        covered.append(character)
        seen += count
    return covered


def hide_rare(
    lines: Sequence[str], counts: collections.Counter[str], room: int
) -> tuple[list[str], int]:
    """Hide the rarest characters of lines, so that a tokenizer with `room` tokens can be trained.

    Returns:
        The lines with `_UNMERGED` in place of these characters, and the number of different
        characters that remain.
    """
    count = max(1, int(room * _CHARACTER_FRACTION))
    frequent = choose_covered(counts, 1.0)[:count]
    hidden = dict.fromkeys(map(ord, counts.keys() - {*frequent, _SPACE}), _UNMERGED)
    return [line.translate(hidden) for line in lines], len(frequent)


def describe(character: str) -> str:
    """Return a character in quotes, with its Unicode name in parentheses."""
    return f"{character!r} ({unicodedata.name(character, 'unnamed')})"
