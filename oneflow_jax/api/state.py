"""A document on its way: what a step of sampling looks like to those who watch."""

import dataclasses

import PIL.Image

from oneflow_jax.api.document import Document, Part
from oneflow_jax.viewer import trajectory

MASK_SYMBOL = "▒"
"""What a word that is not read yet is written as."""


@dataclasses.dataclass(frozen=True)
class SamplingStep:
    """A document at one step.

    Attributes:
        t: time of the run as a whole, 0 (nothing but what was given) to 1 (finished).
        document: what it reads as now, with the clean pictures that the network believes in;
            words that are still hidden are `▒`.
        noisy: the pictures of `document` as they really stand: x_t, decoded.
        words: all of its words, each with its `text`, its `certainty` and whether it was `given`.
        frame: all of that as it is drawn, part by part.
    """

    t: float
    document: Document
    noisy: tuple[PIL.Image.Image, ...]
    words: tuple[trajectory.TokenView, ...]
    frame: trajectory.Frame = dataclasses.field(repr=False, compare=False)

    @property
    def certainty(self) -> float:
        """The mean certainty of the words that are to be made, 0 to 1; 1 if there are none."""
        every = [word.certainty for word in self.words if not word.given]
        return sum(every) / len(every) if every else 1.0

    def _repr_html_(self) -> str:
        """What notebooks show."""
        return f"<div>t = {self.t:.2f}</div>{self.document._repr_html_()}"


def from_frame(frame: trajectory.Frame, document: Document | None = None) -> SamplingStep:
    """The state that a frame tells; `document` is what it came to, if it is the last."""
    return SamplingStep(
        t=frame.clock,
        document=document or Document(_to_parts(frame)),
        noisy=tuple(PIL.Image.fromarray(picture.state) for picture in frame.pictures()),
        words=frame.words(),
        frame=frame,
    )


def _to_parts(frame: trajectory.Frame) -> tuple[Part, ...]:
    seen = [
        _read_tokens(part)
        if isinstance(part, trajectory.TextSpan)
        else PIL.Image.fromarray(part.state if part.guess is None else part.guess)
        for part in frame.parts
    ]
    return tuple(part for part in seen if part != "")


def _read_tokens(span: trajectory.TextSpan) -> str:
    hidden = f" {MASK_SYMBOL}"
    pieces = [word.text if word.given or word.certainty > 0 else hidden for word in span.words]
    return "".join(pieces).strip()
