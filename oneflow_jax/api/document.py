"""Documents of the Python interface: strings, Pillow images and gaps."""

import dataclasses
import os
import pathlib
from collections.abc import Sequence

import numpy as np
import PIL.Image

from oneflow_jax.api import markdown, markup, output_path
from oneflow_jax.data import document as inner
from oneflow_jax.data import image_shapes, prompt
from oneflow_jax.data.document import Gap
from oneflow_jax.data.edits import Edit
from oneflow_jax.errors import UserError, check_integer
from oneflow_jax.viewer import document_image

Part = str | PIL.Image.Image | Gap

IMAGE = Gap("image")
"""Gap for one generated square image."""

TEXT = Gap("text")
"""Gap for generated text whose length the model chooses."""

DOCUMENT = Gap("document")
"""Gap for any number of generated texts and images.

With oneflow and mask_flow, it must be the last part of a prompt: a layout of the training documents
is drawn for it.
"""


def text(tokens: int) -> Gap:
    """Return a gap for generated text of exactly `tokens` tokens.

    For the gap `TEXT`, in contrast, the model chooses the number of tokens.

    Raises:
        UserError: `tokens` is not a positive integer.

    Examples:
        >>> (document,) = model.generate(["a picture of", of.text(2), of.IMAGE], steps=4)
    """
    check_integer("text: tokens", tokens, 1)
    return Gap("text", tokens)


def image(aspect_ratio: str) -> Gap:
    """Return a gap for one generated image of an aspect ratio, width to height, such as "3:2".

    `Model.info().aspect_ratios` lists those of a model.

    Raises:
        UserError: the aspect ratio is malformed.

    Examples:
        >>> document = of.Document(["a tiger:", of.image("3:2")])
        >>> str(document)
        'a tiger: <image 3:2>'
    """
    return Gap("image", aspect_ratio=aspect_ratio)


@dataclasses.dataclass(frozen=True)
class Document:
    """Text and images in reading order, optionally with gaps.

    Two documents are equal if their parts are equal. In a prompt, the strings of a `Document` are
    taken literally: "<" has no special meaning.

    Attributes:
        parts: strings, Pillow images and gaps; uint8 arrays `[height width 3]` are converted to
            images.
        nfe: number of forward passes that generated the document; 0 if it was not generated.
        truncated: whether some insertions were dropped because the document had no room for them.

    Raises:
        UserError: a part has none of these types, or an array has another shape or dtype.

    Examples:
        >>> document = of.Document(["a tiger:", np.zeros((24, 24, 3), np.uint8)])
        >>> str(document)
        'a tiger: <image:24x24>'
    """

    parts: tuple[Part, ...]
    nfe: int = dataclasses.field(default=0, compare=False)
    truncated: bool = dataclasses.field(default=False, compare=False)

    def __post_init__(self) -> None:
        parts = self.parts if isinstance(self.parts, list | tuple) else [self.parts]
        object.__setattr__(self, "parts", tuple(map(_check_part, parts)))

    @property
    def text(self) -> str:
        """All strings, joined by single spaces."""
        return " ".join(part for part in self.parts if isinstance(part, str))

    @property
    def images(self) -> tuple[PIL.Image.Image, ...]:
        """The images, in reading order."""
        return tuple(part for part in self.parts if isinstance(part, PIL.Image.Image))

    def save(self, path: str | os.PathLike[str]) -> pathlib.Path:
        """Write the document to a file, create missing folders, and return the file's path.

        The ending of the path selects the format:

            .html   one self-contained page
            .png    one image of the whole document
            .md     Markdown; its images are PNG files in a folder beside it, NAME_images

        Raises:
            UserError: the path has another ending.
        """
        path = output_path.prepare(
            path,
            (".html", ".png", ".md"),
            "TrajectoryViewer(list(model.stream(prompt))).save writes animations (.gif, .webp).",
        )
        if path.suffix == ".html":
            page = markup.render_page(self.text, markup.render_parts(self.parts))
            path.write_text(page, encoding="utf-8")
        elif path.suffix == ".png":
            document_image.write_document_image(path, self.parts)
        else:
            markdown.write(path, self.parts)
        return path

    def __str__(self) -> str:
        """Return one line in prompt syntax, with `<image:WIDTHxHEIGHT>` for each image."""
        return " ".join(map(_format_part, self.parts))

    def _repr_html_(self) -> str:
        """Return the HTML that notebooks show."""
        return markup.render_parts(self.parts)


@dataclasses.dataclass(frozen=True)
class EditResult(Document):
    """A document after editing.

    Attributes:
        edits: the changes in reading order. Each change has the content before (`old`) and after
            (`new`) the edit; `str(change)` describes it in one line.
    """

    edits: tuple[Edit, ...] = dataclasses.field(default=(), compare=False)


Prompt = Document | prompt.PromptPart | Sequence[prompt.PromptPart]
"""A prompt: a string in prompt syntax such as "a tiger: <image>", an image, a gap, a `Document`, or
a list of strings, images and gaps. A list must have at least one image or gap."""


def to_internal(
    user_prompt: Prompt, pixels: int, crop_sizes: Sequence[image_shapes.Size] = ()
) -> inner.Document:
    """Convert a prompt to a document of `oneflow_jax.data`, with images resized.

    `pixels` and `crop_sizes` are as in `image_io.resize`.

    Raises:
        UserError: the prompt is empty or invalid, see `data.prompt.parse`.
    """
    if not isinstance(user_prompt, Document):
        return prompt.parse(user_prompt, pixels, crop_sizes)
    if not user_prompt.parts:
        raise UserError("The document is empty. Give it text, an image or a gap.")
    return inner.Document(
        tuple(_to_internal_part(part, pixels, crop_sizes) for part in user_prompt.parts)
    )


def to_public(parts: Sequence[inner.Part]) -> tuple[Part, ...]:
    """Convert the parts of a finished document to strings and Pillow images; drop empty text."""
    converted = [
        part.text if isinstance(part, inner.Text) else PIL.Image.fromarray(part.pixels)
        for part in parts
    ]
    return tuple(part for part in converted if part != "")


def _check_part(part: object) -> Part:
    if isinstance(part, np.ndarray):
        return PIL.Image.fromarray(prompt.validate_image(part))
    if not isinstance(part, Part):
        raise UserError(
            f"Document: the part {part!r} is a {type(part).__name__}. Parts must be strings, "
            "Pillow images, uint8 arrays or gaps."
        )
    return part


def _to_internal_part(
    part: Part, pixels: int, crop_sizes: Sequence[image_shapes.Size]
) -> inner.Part:
    if isinstance(part, str):
        return inner.Text(part)
    if isinstance(part, Gap):
        return part
    return inner.Image(prompt.prepare_image(part, pixels, crop_sizes))


def _format_part(part: Part) -> str:
    if isinstance(part, PIL.Image.Image):
        return f"<image:{part.width}x{part.height}>"
    return prompt.escape(part) if isinstance(part, str) else str(part)
