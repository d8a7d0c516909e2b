"""Stories: what a sampling run looked like at each of its steps, ready to be drawn.

A frame is a list of parts and a text run is a list of words, each with a key of its own. The lists
may differ from frame to frame, as they do when words are inserted: what keeps its key is the same
thing; a new key is something that has just appeared. Keys are unique within a frame (parts among
parts, words among words), and a word keeps its key when a picture splits its run.

Clocks and certainties lie in [0, 1]; clock 0 is all mask or noise, clock 1 is clean.
"""

import collections
import dataclasses
from collections.abc import Iterable

import numpy as np
from jaxtyping import UInt8

TRANSPARENT_CONFIDENCE = 0.1  # a word less certain than this is drawn as a plain block ...
OPAQUE_CONFIDENCE = 0.9  # ... and one more certain than this as plain text

Pixels = UInt8[np.ndarray, "H W 3"]


def _check_fraction(owner: str, name: str, value: float) -> None:
    """Raises ValueError unless `value` lies in [0, 1]; not-a-number does not."""
    if not 0 <= value <= 1:
        raise ValueError(f"{owner}: {name}={value} is not in [0, 1]")


def _check_pixels(owner: str, name: str, pixels: np.ndarray) -> None:
    """Raises ValueError unless `pixels` is uint8 `[H W 3]` with at least one pixel."""
    wrong = pixels.dtype != np.uint8 or pixels.ndim != 3 or pixels.shape[-1] != 3
    if wrong or not pixels.size:
        raise ValueError(
            f"{owner}: {name} is {pixels.dtype} {pixels.shape}, not uint8 [height width 3]"
        )


def _check_unique(owner: str, keys: Iterable[int]) -> None:
    """Raises ValueError if a key occurs twice."""
    twice = sorted(key for key, count in collections.Counter(keys).items() if count > 1)
    if twice:
        raise ValueError(f"{owner} occur more than once in a frame: {twice}")


@dataclasses.dataclass(frozen=True)
class TokenView:
    """One token of a text run as it stands at one step.

    `text` is the token's piece, with its leading space if it has one: the pieces joined are what
    people read. `certainty` is the probability that the model gives to this piece at this step; a
    given word was part of the prompt.
    """

    key: int
    text: str
    certainty: float
    given: bool = False

    def __post_init__(self) -> None:
        _check_fraction(f"word {self.key} ({self.text!r})", "certainty", self.certainty)

    def legibility(self) -> float:
        """How far the word has come out of its mask, from 0 (a plain block) to 1 (plain text)."""
        if self.given:
            return 1.0
        return min(
            1.0,
            max(
                0.0,
                (self.certainty - TRANSPARENT_CONFIDENCE)
                / (OPAQUE_CONFIDENCE - TRANSPARENT_CONFIDENCE),
            ),
        )


@dataclasses.dataclass(frozen=True, eq=False)
class ImageView:
    """One picture at one step: `state` is x_t decoded, `guess` the model's x̂_1, uint8 `[H W 3]`."""

    key: int
    state: Pixels
    guess: Pixels | None
    clock: float
    given: bool = False

    def __post_init__(self) -> None:
        _check_fraction(f"picture {self.key}", "clock", self.clock)
        _check_pixels(f"picture {self.key}", "state", self.state)
        if self.guess is not None:
            _check_pixels(f"picture {self.key}", "guess", self.guess)
            if self.guess.shape != self.state.shape:
                raise ValueError(
                    f"picture {self.key}: the shapes of guess {self.guess.shape} and state"
                    f" {self.state.shape} differ"
                )


@dataclasses.dataclass(frozen=True)
class TextSpan:
    """Words that stand together, between two pictures or at an end of the document."""

    key: int
    words: tuple[TokenView, ...]
    clock: float
    given: bool = False

    def __post_init__(self) -> None:
        _check_fraction(f"text run {self.key}", "clock", self.clock)

    def reading(self) -> str:
        """The pieces joined, as people read them."""
        return "".join(word.text for word in self.words).strip()


Part = TextSpan | ImageView


@dataclasses.dataclass(frozen=True, eq=False)
class Frame:
    """A whole document at one step, in reading order; `clock` is the time of the run as a whole."""

    clock: float
    parts: tuple[Part, ...]

    def __post_init__(self) -> None:
        _check_fraction("frame", "clock", self.clock)
        _check_unique("keys of parts", (part.key for part in self.parts))
        _check_unique("keys of words", (word.key for word in self.words()))

    def words(self) -> tuple[TokenView, ...]:
        """The words of all text runs, in reading order."""
        return tuple(word for run in self.runs() for word in run.words)

    def runs(self) -> tuple[TextSpan, ...]:
        """The text runs, in reading order."""
        return tuple(part for part in self.parts if isinstance(part, TextSpan))

    def pictures(self) -> tuple[ImageView, ...]:
        """The pictures, in reading order."""
        return tuple(part for part in self.parts if isinstance(part, ImageView))


@dataclasses.dataclass(frozen=True, eq=False)
class TrajectoryView:
    """One document from corrupted to clean: `frames[0]` is the start, `frames[-1]` the result.

    `prompt` says in words what was asked for ("" if nothing was).
    """

    title: str
    prompt: str
    frames: tuple[Frame, ...]

    def __post_init__(self) -> None:
        if not self.frames:
            raise ValueError(f"story {self.title!r} has no frames")
        kinds: dict[int, type[Part]] = {}
        for part in (part for frame in self.frames for part in frame.parts):
            if kinds.setdefault(part.key, type(part)) is not type(part):
                raise ValueError(
                    f"story {self.title!r}: key {part.key} is a text run in one frame and a picture"
                    " in another"
                )

    def reading(self) -> str:
        """The text of the finished document, its runs joined by single spaces."""
        return " ".join(filter(None, (run.reading() for run in self.frames[-1].runs())))
