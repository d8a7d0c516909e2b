"""Which words come first: when each word of a document was settled."""

import collections
import dataclasses
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from oneflow_jax.viewer import trajectory

CONFIDENT = 0.5
"""Certainty from which a word counts as there."""

IMAGE_LABEL = "<image>"


@dataclasses.dataclass(frozen=True)
class WordTime:
    """A word, or a picture that was born on the way, and the time of the run when it came."""

    word: str
    time: float


def compute_word_times(view: trajectory.TrajectoryView) -> list[WordTime]:
    """The words of the finished document that were not given, in reading order.

    A word has come when it reads as it does at the end, and does so from then on. One of several
    pieces has come with the last of them.
    """
    times = [frame.clock for frame in view.frames]
    at_piece = [{word.key: word for word in frame.words()} for frame in view.frames]
    at_picture = [{picture.key for picture in frame.pictures()} for frame in view.frames]
    found: list[WordTime] = []
    for part in view.frames[-1].parts:
        if isinstance(part, trajectory.ImageView):
            if part.key not in at_picture[0]:
                there = [part.key in keys for keys in at_picture]
                found.append(WordTime(IMAGE_LABEL, times[_first_stable(there)]))
            continue
        for pieces in _group_into_words(part.words):
            if not any(piece.given for piece in pieces):
                since = max(
                    _first_stable([_reads_as_final(piece, at) for at in at_piece])
                    for piece in pieces
                )
                word = "".join(piece.text for piece in pieces).strip()
                found.append(WordTime(word, times[since]))
    return found


class FormationInterval(NamedTuple):
    """A text run or picture of a finished document, and the frames from and at which it formed."""

    part: trajectory.Part
    first: int
    last: int


def compute_formation_intervals(view: trajectory.TrajectoryView) -> list[FormationInterval]:
    """When each part of a document formed, in reading order.

    From the frame that first has something of it, to the one from which on it is as at the end.

    A picture is finished with the last frame, unless it was given: it is refined to the end.
    """
    at_piece = [{word.key: word for word in frame.words()} for frame in view.frames]
    at_picture = [{picture.key for picture in frame.pictures()} for frame in view.frames]
    found = []
    for part in view.frames[-1].parts:
        if isinstance(part, trajectory.ImageView):
            found.append(
                FormationInterval(
                    part,
                    _first_stable([part.key in keys for keys in at_picture]),
                    len(view.frames) - 1,
                )
            )
            continue
        first = min(_first_stable([piece.key in at for at in at_piece]) for piece in part.words)
        last = max(
            _first_stable([_reads_as_final(piece, at) for at in at_piece]) for piece in part.words
        )
        found.append(FormationInterval(part, first, max(first, last)))
    return found


def average_times(word_times: Sequence[WordTime]) -> dict[str, tuple[float, int]]:
    """By word: the mean of its times, and how often it came; the earliest first."""
    times = collections.defaultdict(list)
    for one in word_times:
        times[one.word].append(one.time)
    means = {word: (float(np.mean(values)), len(values)) for word, values in times.items()}
    return dict(sorted(means.items(), key=lambda item: item[1]))


def _first_stable(is_stable: Sequence[bool]) -> int:
    """The first moment from which on it is true to the end; the last one, if not even then."""
    trailing = next((n for n, true in enumerate(reversed(is_stable)) if not true), len(is_stable))
    return len(is_stable) - max(trailing, 1)


def _reads_as_final(
    token: trajectory.TokenView, tokens_by_key: dict[int, trajectory.TokenView]
) -> bool:
    then = tokens_by_key.get(token.key)
    return then is not None and then.text == token.text and then.certainty >= CONFIDENT


def _group_into_words(tokens: Sequence[trajectory.TokenView]) -> list[list[trajectory.TokenView]]:
    """Pieces that belong together; a leading space begins a word, empty pieces are left out."""
    words: list[list[trajectory.TokenView]] = []
    for piece in tokens:
        if not piece.text.strip():
            continue
        if piece.text.startswith(" ") or not words:
            words.append([])
        words[-1].append(piece)
    return words
