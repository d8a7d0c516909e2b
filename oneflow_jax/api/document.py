"""Documents as Python's users write and read them: strings, pictures of Pillow's, and gaps."""

import dataclasses
import os
import pathlib
from collections.abc import Sequence

import numpy as np
import PIL.Image

from oneflow_jax.api import markup
from oneflow_jax.data import document as inner
from oneflow_jax.data import prompt
from oneflow_jax.data.document import Gap
from oneflow_jax.data.edits import Edit
from oneflow_jax.errors import UserError

Part = str | PIL.Image.Image | Gap

IMAGE = Gap("image")
"""A picture to be made."""

TEXT = Gap("text")
"""Words to be made, as many as the model sees fit."""

DOCUMENT = Gap("document")
"""Words and pictures to be made, as many as the model sees fit, by models that grow (edit_flow)."""


def text(tokens: int) -> Gap:
    """Words to be made, in so many tokens; `TEXT` leaves their number to the model.

    Raises:
        UserError: it is no whole number above 0.
    """
    if not isinstance(tokens, int) or tokens < 1:
        raise UserError(f"text({tokens!r}): give a whole number above 0.")
    return Gap("text", tokens)


@dataclasses.dataclass(frozen=True)
class Document:
    """Words and pictures in reading order, perhaps with gaps; two are equal if their parts are.

    As a prompt it is taken literally: a "<" in its strings is only that.

    Attributes:
        parts: strings, pictures of Pillow's and gaps; uint8 arrays `[height width 3]` become
            pictures.
        passes: forward passes of the network that it was made in; 0 of one that was not made.
        full: whether it ran out of room, so that something that was to be inserted was left out.

    Raises:
        UserError: a part is something else.
    """

    parts: tuple[Part, ...]
    passes: int = dataclasses.field(default=0, compare=False)
    full: bool = dataclasses.field(default=False, compare=False)

    def __post_init__(self) -> None:
        parts = self.parts if isinstance(self.parts, list | tuple) else [self.parts]
        object.__setattr__(self, "parts", tuple(map(_check_part, parts)))

    @property
    def text(self) -> str:
        """All words, the strings joined by single spaces."""
        return " ".join(part for part in self.parts if isinstance(part, str))

    @property
    def images(self) -> tuple[PIL.Image.Image, ...]:
        """The pictures, in reading order."""
        return tuple(part for part in self.parts if isinstance(part, PIL.Image.Image))

    def save(self, path: str | os.PathLike[str]) -> pathlib.Path:
        """Writes one self-contained HTML file, and returns its path; folders are made if need be.

        Raises:
            UserError: the name does not end in .html.
        """
        path = pathlib.Path(path)
        if path.suffix != ".html":
            raise UserError(f"save: {str(path)!r} must end in .html.")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(
            markup.render_page(self.text, markup.render_parts(self.parts)), encoding="utf-8"
        )
        return path

    def __str__(self) -> str:
        """One line, in the language of prompts; pictures are told by their sizes."""
        return " ".join(map(_format_part, self.parts))

    def _repr_html_(self) -> str:
        """What notebooks show."""
        return markup.render_parts(self.parts)


@dataclasses.dataclass(frozen=True)
class EditResult(Document):
    """A document that was looked over.

    Attributes:
        edits: what was changed, in reading order; each has a `place`, what stood there `before`
            and what stands there `after`, and reads as one line.
    """

    edits: tuple[Edit, ...] = dataclasses.field(default=(), compare=False)


Prompt = Document | prompt.PromptPart | Sequence[prompt.PromptPart]
"""What may be asked for: a string in the language of prompts, such as "a tiger: <image>"; a picture
or gap; a list of those; or a `Document`."""


def to_internal(user_prompt: Prompt, pixels: int) -> inner.Document:
    """The document of slots' side that a prompt describes, its pictures brought to one size.

    Raises:
        UserError: there is nothing in it, or something wrong: see `data.prompt.parse`.
    """
    if not isinstance(user_prompt, Document):
        return prompt.parse(user_prompt, pixels)
    if not user_prompt.parts:
        raise UserError("The document is empty: give it words, a picture, or a gap.")
    return inner.Document(tuple(_to_internal_part(part, pixels) for part in user_prompt.parts))


def to_public(parts: Sequence[inner.Part]) -> tuple[Part, ...]:
    """The parts of a finished document as users see them; runs without a word are left out."""
    seen = [
        part.text if isinstance(part, inner.Text) else PIL.Image.fromarray(part.pixels)
        for part in parts
    ]
    return tuple(part for part in seen if part != "")


def _check_part(part: object) -> Part:
    if isinstance(part, np.ndarray):
        return PIL.Image.fromarray(prompt.validate_image(part))
    if not isinstance(part, Part):
        raise UserError(
            f"Document: {part!r} is a {type(part).__name__}; its parts are strings, pictures of "
            "Pillow's or NumPy's, and gaps."
        )
    return part


def _to_internal_part(part: Part, pixels: int) -> inner.Part:
    if isinstance(part, str):
        return inner.Text(part)
    return part if isinstance(part, Gap) else inner.Image(prompt.prepare_image(part, pixels))


def _format_part(part: Part) -> str:
    if isinstance(part, PIL.Image.Image):
        return f"<image:{part.width}x{part.height}>"
    return part if isinstance(part, str) else str(part)
