"""Trajectory of a document for display: its text and images at each sampling step.

A frame is a list of parts, and a text span is a list of tokens. Each part and each token has a key
that identifies it across frames. Lists may differ between frames, for example after insertions: an
item with the same key is the same item, and an item with a new key is a new item. Within a frame,
the keys of parts are unique, and so are the keys of tokens. If an inserted image splits a text
span, the tokens keep their keys.

Times and confidences are in [0, 1]. At time 0, an item is masked or noise; at time 1, it is clean.
"""

import collections
import dataclasses
from collections.abc import Iterable

import numpy as np
from jaxtyping import UInt8

TRANSPARENT_CONFIDENCE = 0.1  # A token with less confidence is drawn as a plain block.
OPAQUE_CONFIDENCE = 0.9  # A token with more confidence is drawn as plain text.

Pixels = UInt8[np.ndarray, "H W 3"]


def _check_fraction(owner: str, name: str, value: float) -> None:
    """Raise ValueError if `value` is outside [0, 1] or NaN."""
    if not 0 <= value <= 1:
        raise ValueError(f"{owner}: {name}={value} is not in [0, 1]")


def _check_pixels(owner: str, name: str, pixels: np.ndarray) -> None:
    """Raise ValueError unless `pixels` is uint8 `[H W 3]` with at least one pixel."""
    wrong = pixels.dtype != np.uint8 or pixels.ndim != 3 or pixels.shape[-1] != 3
    if wrong or not pixels.size:
        raise ValueError(
            f"{owner}: {name} is {pixels.dtype} {pixels.shape}, not uint8 [height width 3]"
        )


def _check_unique(owner: str, keys: Iterable[int]) -> None:
    """Raise ValueError if a key occurs twice."""
    twice = sorted(key for key, count in collections.Counter(keys).items() if count > 1)
    if twice:
        raise ValueError(f"{owner} occur more than once in a frame: {twice}")


@dataclasses.dataclass(frozen=True)
class TokenView:
    """A token at one step.

    Attributes:
        key: identity of the token across frames.
        text: text of the token, including a leading space. The joined texts of a span's tokens are
            the text of the span.
        confidence: probability of the token at this step.
        given: whether the token is part of the prompt.
        final: whether the document is finished, so that the token will not change.
    """

    key: int
    text: str
    confidence: float
    given: bool = False
    final: bool = False

    def __post_init__(self) -> None:
        _check_fraction(f"token {self.key} ({self.text!r})", "confidence", self.confidence)

    def opacity(self) -> float:
        """Return the opacity of the text, from 0 (a plain block) to 1 (plain text).

        Tokens of a finished document are plain text regardless of their confidence.
        """
        if self.given or self.final:
            return 1.0
        return min(
            1.0,
            max(
                0.0,
                (self.confidence - TRANSPARENT_CONFIDENCE)
                / (OPAQUE_CONFIDENCE - TRANSPARENT_CONFIDENCE),
            ),
        )


@dataclasses.dataclass(frozen=True, eq=False)
class ImageView:
    """An image at one step.

    Attributes:
        key: identity of the image across frames.
        x_t: decoded state, uint8 `[H W 3]`.
        x1_hat: decoded x1 prediction, uint8 `[H W 3]`; None if the sampler makes no prediction.
        time: time t of the image.
        given: whether the image is part of the prompt.
    """

    key: int
    x_t: Pixels
    x1_hat: Pixels | None
    time: float
    given: bool = False

    def __post_init__(self) -> None:
        _check_fraction(f"image {self.key}", "time", self.time)
        _check_pixels(f"image {self.key}", "x_t", self.x_t)
        if self.x1_hat is not None:
            _check_pixels(f"image {self.key}", "x1_hat", self.x1_hat)
            if self.x1_hat.shape != self.x_t.shape:
                raise ValueError(
                    f"image {self.key}: the shapes of x1_hat {self.x1_hat.shape} and x_t"
                    f" {self.x_t.shape} differ"
                )


@dataclasses.dataclass(frozen=True)
class TextSpan:
    """A run of tokens between two images, before the first image, or after the last one."""

    key: int
    tokens: tuple[TokenView, ...]
    time: float
    given: bool = False

    def __post_init__(self) -> None:
        _check_fraction(f"text span {self.key}", "time", self.time)

    def to_text(self) -> str:
        """Join the texts of the tokens."""
        return "".join(word.text for word in self.tokens).strip()


Part = TextSpan | ImageView


@dataclasses.dataclass(frozen=True, eq=False)
class Frame:
    """A document at one sampling step, at the sampler's time t; `parts` are in reading order."""

    time: float
    parts: tuple[Part, ...]

    def __post_init__(self) -> None:
        _check_fraction("frame", "time", self.time)
        _check_unique("keys of parts", (part.key for part in self.parts))
        _check_unique("keys of tokens", (word.key for word in self.tokens()))

    def tokens(self) -> tuple[TokenView, ...]:
        """Return the tokens of all text spans, in reading order."""
        return tuple(word for run in self.text_spans() for word in run.tokens)

    def text_spans(self) -> tuple[TextSpan, ...]:
        """Return the text spans, in reading order."""
        return tuple(part for part in self.parts if isinstance(part, TextSpan))

    def images(self) -> tuple[ImageView, ...]:
        """Return the images, in reading order."""
        return tuple(part for part in self.parts if isinstance(part, ImageView))


@dataclasses.dataclass(frozen=True, eq=False)
class TrajectoryView:
    """Trajectory of a document, from corrupted to clean.

    Attributes:
        title: title of the document on the page.
        prompt: prompt as text; "" for documents without a prompt.
        frames: document at each step, from the start of sampling to the finished document.
    """

    title: str
    prompt: str
    frames: tuple[Frame, ...]

    def __post_init__(self) -> None:
        if not self.frames:
            raise ValueError(f"trajectory {self.title!r} has no frames")
        kinds: dict[int, type[Part]] = {}
        for part in (part for frame in self.frames for part in frame.parts):
            if kinds.setdefault(part.key, type(part)) is not type(part):
                raise ValueError(
                    f"trajectory {self.title!r}: key {part.key} is a text span in one frame and an "
                    "image in another"
                )

    def to_text(self) -> str:
        """Return the text of the finished document: its spans joined by single spaces."""
        return " ".join(filter(None, (run.to_text() for run in self.frames[-1].text_spans())))
