"""Computes at which sampling time each word, text span and image reaches its final form."""

import collections
import dataclasses
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from oneflow_jax.viewer import trajectory

CONFIDENT = 0.5
"""Minimum confidence at which a token counts as generated."""

IMAGE_LABEL = "<image>"


@dataclasses.dataclass(frozen=True)
class WordTime:
    """A word or an inserted image, and the sampling time at which it reached its final form."""

    word: str
    time: float


def compute_word_times(view: trajectory.TrajectoryView) -> list[WordTime]:
    """Return the generated words and images of the finished document, with times, in reading order.

    The time of a word is the time of the first frame in which all tokens of the word have their
    final form. Given words and images are left out.
    """
    times = [frame.time for frame in view.frames]
    at_piece = [{word.key: word for word in frame.tokens()} for frame in view.frames]
    at_picture = [{picture.key for picture in frame.images()} for frame in view.frames]
    word_times: list[WordTime] = []
    for part in view.frames[-1].parts:
        if isinstance(part, trajectory.ImageView):
            if part.key not in at_picture[0]:
                there = [part.key in keys for keys in at_picture]
                word_times.append(WordTime(IMAGE_LABEL, times[_first_stable(there)]))
            continue
        for pieces in _group_into_words(part.tokens):
            if not any(piece.given for piece in pieces):
                since = max(
                    _first_stable([_reads_as_final(piece, at) for at in at_piece])
                    for piece in pieces
                )
                word = "".join(piece.text for piece in pieces).strip()
                word_times.append(WordTime(word, times[since]))
    return word_times


class FormationInterval(NamedTuple):
    """A text span or image of a finished document, and the frames between which it formed."""

    part: trajectory.Part
    first_frame: int
    last_frame: int


def compute_formation_intervals(view: trajectory.TrajectoryView) -> list[FormationInterval]:
    """Return the interval in which each part of the document forms, in reading order.

    The interval of a text span starts at the first frame with a token of the span. It ends at the
    first frame in which the span has its final form. The interval of an image starts at its
    insertion and ends at the last frame, since images change until the end.
    """
    at_piece = [{word.key: word for word in frame.tokens()} for frame in view.frames]
    at_picture = [{picture.key for picture in frame.images()} for frame in view.frames]
    intervals = []
    for part in view.frames[-1].parts:
        if isinstance(part, trajectory.ImageView):
            intervals.append(
                FormationInterval(
                    part,
                    _first_stable([part.key in keys for keys in at_picture]),
                    len(view.frames) - 1,
                )
            )
            continue
        first = min(_first_stable([piece.key in at for at in at_piece]) for piece in part.tokens)
        last = max(
            _first_stable([_reads_as_final(piece, at) for at in at_piece]) for piece in part.tokens
        )
        intervals.append(FormationInterval(part, first, max(first, last)))
    return intervals


def average_times(word_times: Sequence[WordTime]) -> dict[str, tuple[float, int]]:
    """Return the mean time and the count of each word, sorted by time."""
    times = collections.defaultdict(list)
    for one in word_times:
        times[one.word].append(one.time)
    means = {word: (float(np.mean(values)), len(values)) for word, values in times.items()}
    return dict(sorted(means.items(), key=lambda item: item[1]))


def _first_stable(is_stable: Sequence[bool]) -> int:
    """Return the first index from which all values are true; the last index if there is none."""
    trailing = next((n for n, true in enumerate(reversed(is_stable)) if not true), len(is_stable))
    return len(is_stable) - max(trailing, 1)


def _reads_as_final(
    token: trajectory.TokenView, tokens_by_key: dict[int, trajectory.TokenView]
) -> bool:
    then = tokens_by_key.get(token.key)
    return then is not None and then.text == token.text and then.confidence >= CONFIDENT


def _group_into_words(tokens: Sequence[trajectory.TokenView]) -> list[list[trajectory.TokenView]]:
    """Group tokens into words: a leading space starts a word, and blank tokens are dropped."""
    words: list[list[trajectory.TokenView]] = []
    for piece in tokens:
        if not piece.text.strip():
            continue
        if piece.text.startswith(" ") or not words:
            words.append([])
        words[-1].append(piece)
    return words
