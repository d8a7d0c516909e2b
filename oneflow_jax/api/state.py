"""Sampling steps of a document, as yielded by `Model.stream`."""

import dataclasses

import PIL.Image

from oneflow_jax.api.document import Document, Part
from oneflow_jax.viewer import trajectory

MASK_SYMBOL = "▒"
"""Symbol that is printed in place of a masked token."""


@dataclasses.dataclass(frozen=True)
class SamplingStep:
    """A document at one step of sampling.

    Attributes:
        t: global time, from 0 (only the given parts are clean) to 1 (all parts are clean).
        document: the document at this step, with the x1 predictions of its images; masked tokens
            are `▒`.
        noisy_images: the decoded states x_t of the images of `document`.
        tokens: all tokens, each with its `text`, its `confidence` and whether it was `given`.
        frame: the content of the step, part by part, as the viewer draws it.
    """

    t: float
    document: Document
    noisy_images: tuple[PIL.Image.Image, ...]
    tokens: tuple[trajectory.TokenView, ...]
    frame: trajectory.Frame = dataclasses.field(repr=False, compare=False)

    @property
    def confidence(self) -> float:
        """Mean confidence of the generated tokens, 0 to 1; 1 if no token is generated."""
        confidences = [token.confidence for token in self.tokens if not token.given]
        return sum(confidences) / len(confidences) if confidences else 1.0

    def _repr_html_(self) -> str:
        """Return the HTML that notebooks show."""
        return f"<div>t = {self.t:.2f}</div>{self.document._repr_html_()}"


def from_frame(frame: trajectory.Frame, document: Document | None = None) -> SamplingStep:
    """Convert a viewer's frame to a step; `document` is the finished document, at the last step."""
    return SamplingStep(
        t=frame.time,
        document=document or Document(_to_parts(frame)),
        noisy_images=tuple(PIL.Image.fromarray(image.x_t) for image in frame.images()),
        tokens=frame.tokens(),
        frame=frame,
    )


def _to_parts(frame: trajectory.Frame) -> tuple[Part, ...]:
    parts = [
        _read_tokens(part)
        if isinstance(part, trajectory.TextSpan)
        else PIL.Image.fromarray(part.x_t if part.x1_hat is None else part.x1_hat)
        for part in frame.parts
    ]
    return tuple(part for part in parts if part != "")


def _read_tokens(span: trajectory.TextSpan) -> str:
    hidden = f" {MASK_SYMBOL}"
    pieces = [
        token.text if token.given or token.confidence > 0 else hidden for token in span.tokens
    ]
    return "".join(pieces).strip()
