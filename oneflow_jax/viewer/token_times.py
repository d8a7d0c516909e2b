"""Which words come first: when each word of a document was settled."""

import collections
import dataclasses
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from oneflow_jax.viewer import trajectory

SETTLED = 0.5
"""Certainty from which a word counts as there."""

PICTURE = "<image>"


@dataclasses.dataclass(frozen=True)
class Arrival:
    """A word, or a picture that was born on the way, and the time of the run when it came."""

    word: str
    time: float


def arrivals(told: trajectory.Story) -> list[Arrival]:
    """The words of the finished document that were not given, in reading order.

    A word has come when it reads as it does at the end, and does so from then on. One of several
    pieces has come with the last of them.
    """
    times = [frame.clock for frame in told.frames]
    at_piece = [{word.key: word for word in frame.words()} for frame in told.frames]
    at_picture = [{picture.key for picture in frame.pictures()} for frame in told.frames]
    found: list[Arrival] = []
    for part in told.frames[-1].parts:
        if isinstance(part, trajectory.Picture):
            if part.key not in at_picture[0]:
                there = [part.key in keys for keys in at_picture]
                found.append(Arrival(PICTURE, times[_since(there)]))
            continue
        for pieces in _words(part.words):
            if not any(piece.given for piece in pieces):
                since = max(_since([_reads(piece, at) for at in at_piece]) for piece in pieces)
                word = "".join(piece.text for piece in pieces).strip()
                found.append(Arrival(word, times[since]))
    return found


class Stretch(NamedTuple):
    """A text run or picture of a finished document, and the frames from and at which it formed."""

    part: trajectory.Part
    first: int
    last: int


def stretches(told: trajectory.Story) -> list[Stretch]:
    """When each part of a document formed, in reading order.

    From the frame that first has something of it, to the one from which on it is as at the end.

    A picture is finished with the last frame, unless it was given: it is refined to the end.
    """
    at_piece = [{word.key: word for word in frame.words()} for frame in told.frames]
    at_picture = [{picture.key for picture in frame.pictures()} for frame in told.frames]
    found = []
    for part in told.frames[-1].parts:
        if isinstance(part, trajectory.Picture):
            found.append(
                Stretch(
                    part, _since([part.key in keys for keys in at_picture]), len(told.frames) - 1
                )
            )
            continue
        first = min(_since([piece.key in at for at in at_piece]) for piece in part.words)
        last = max(_since([_reads(piece, at) for at in at_piece]) for piece in part.words)
        found.append(Stretch(part, first, max(first, last)))
    return found


def mean_times(every: Sequence[Arrival]) -> dict[str, tuple[float, int]]:
    """By word: the mean of its times, and how often it came; the earliest first."""
    times = collections.defaultdict(list)
    for one in every:
        times[one.word].append(one.time)
    means = {word: (float(np.mean(values)), len(values)) for word, values in times.items()}
    return dict(sorted(means.items(), key=lambda item: item[1]))


def _since(there: Sequence[bool]) -> int:
    """The first moment from which on it is true to the end; the last one, if not even then."""
    trailing = next((n for n, true in enumerate(reversed(there)) if not true), len(there))
    return len(there) - max(trailing, 1)


def _reads(piece: trajectory.Word, at: dict[int, trajectory.Word]) -> bool:
    then = at.get(piece.key)
    return then is not None and then.text == piece.text and then.certainty >= SETTLED


def _words(pieces: Sequence[trajectory.Word]) -> list[list[trajectory.Word]]:
    """Pieces that belong together; a leading space begins a word, empty pieces are left out."""
    words: list[list[trajectory.Word]] = []
    for piece in pieces:
        if not piece.text.strip():
            continue
        if piece.text.startswith(" ") or not words:
            words.append([])
        words[-1].append(piece)
    return words
