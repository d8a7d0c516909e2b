"""Prompt syntax: text, given images, and gaps that the model fills."""

import re
from collections.abc import Sequence

import numpy as np
import PIL.Image

from oneflow_jax import errors
from oneflow_jax.data import color_conversion, document, pictures

TAGS = (
    ("<image>", "an image to generate"),
    ("<image:path/to.png>", "a given image"),
    ("<text>", "text to generate"),
    ("<text:5>", "text of 5 tokens to generate"),
    ("<document>", "any number of texts and images to generate (edit_flow)"),
)

PromptPart = str | np.ndarray | PIL.Image.Image | document.Gap
"""Text with tags, a given image (an array is uint8 `[height width 3]`), or a gap."""

_TAG = re.compile(r"<(document|image|text)(?::([^<>]*))?>")


def parse(prompt: PromptPart | Sequence[PromptPart], pixels: int) -> document.Document:
    """Parse a prompt and return the document that it describes.

    Args:
      prompt: text with tags (`TAGS`), such as "a tiger <image:tiger.png> and <text:2>"; an image;
        a gap; or a list of these.
      pixels: width and height that given images are resized to.

    Raises:
      UserError: the prompt is empty, holds something that is not a `PromptPart`, has a '<' that
        does not begin a tag, has a count that is not a positive integer, or names an image that
        cannot be read.
    """
    pieces = prompt if isinstance(prompt, list | tuple) else [prompt]
    parts: list[document.Part] = []
    for piece in pieces:
        match piece:
            case str():
                parts.extend(_parse_text(piece, pixels))
            case document.Gap():
                parts.append(piece)
            case _:
                parts.append(document.Image(prepare_image(piece, pixels)))
    if not parts:
        raise errors.UserError(f"prompt {prompt!r} is empty. Give text or a tag. {_syntax_help()}")
    return document.Document(tuple(parts))


def format(document_: document.Document) -> str:
    """Format a document as a one-line prompt; given images appear as their size."""
    return " ".join(map(_format_part, document_.parts))


def prepare_image(image: np.ndarray | PIL.Image.Image, pixels: int) -> np.ndarray:
    """Return the pixels of a given image, resized to `pixels` x `pixels`.

    Raises:
      UserError: the image cannot be read, or the argument is not an image.
    """
    if isinstance(image, PIL.Image.Image):
        if 0 in image.size:
            raise errors.UserError(f"prompt: an image of {image.size} pixels is empty")
        pictures.warn_of_profile(image, "prompt: an image")
        try:
            return pictures.to_square(image, pixels)
        except color_conversion.UnknownRangeError as error:
            raise errors.UserError(f"prompt: an image cannot be used: {error}.") from error
        except pictures.READ_ERRORS as error:
            raise errors.UserError(f"prompt: an image cannot be read ({error})") from error
    if not isinstance(image, np.ndarray):
        raise errors.UserError(
            f"prompt: {image!r} is a {type(image).__name__}. Give strings, Pillow images, "
            "NumPy arrays, or gaps."
        )
    return pictures.resize(validate_image(image), pixels)


def validate_image(image: np.ndarray) -> np.ndarray:
    """Check that an array is an image, and return it.

    Raises:
      UserError: the array is not uint8 `[height width 3]`, or is empty.
    """
    if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3 or not image.size:
        found = f"{image.dtype} {list(image.shape)}"
        raise errors.UserError(
            f"prompt: an image must be uint8 [height width 3], not {found}. Scale its values to "
            "those from 0 to 255, and convert it."
        )
    return image


def _parse_text(text: str, pixels: int) -> list[document.Part]:
    parts: list[document.Part] = []
    end = 0
    for tag in _TAG.finditer(text):
        parts.extend(_text_parts(text[end : tag.start()]))
        parts.append(_parse_tag(tag, pixels))
        end = tag.end()
    return [*parts, *_text_parts(text[end:])]


def _parse_tag(tag: re.Match[str], pixels: int) -> document.Part:
    match tag[1], tag[2]:
        case kind, None:
            return document.Gap(kind)
        case "document", _:
            raise errors.UserError(f"prompt: {tag[0]!r} takes no argument. Write <document>.")
        case "image", path:
            return document.Image(pictures.load(path, pixels))
        case _, count:
            if not re.fullmatch("[0-9]+", count) or int(count) == 0:
                message = f"prompt: {tag[0]!r} needs a positive integer, as in <text:5>."
                raise errors.UserError(message)
            return document.Gap("text", int(count))


def _text_parts(text: str) -> list[document.Part]:
    """Return the text as one part with single spaces, or an empty list if it is blank."""
    if "<" in text:
        message = f"prompt: {text[text.index('<') :].strip()!r} is not a known tag"
        raise errors.UserError(f"{message}. {_syntax_help()}")
    text = " ".join(text.split())
    return [document.Text(text)] if text else []


def _format_part(part: document.Part) -> str:
    match part:
        case document.Text(words):
            return words
        case document.Image(pixels):
            return f"<image:{pixels.shape[1]}x{pixels.shape[0]}>"
        case document.Gap():
            return str(part)


def _syntax_help() -> str:
    return "Tags: " + "; ".join(f"{tag} = {meaning}" for tag, meaning in TAGS)
