"""The language of prompts: words, pictures that are given, and gaps to be filled."""

import re
from collections.abc import Sequence

import numpy as np
import PIL.Image

from oneflow_jax import errors
from oneflow_jax.data import document, pictures

TAGS = (
    ("<image>", "a picture to be made"),
    ("<image:path/to.png>", "a given picture"),
    ("<text>", "words to be made"),
    ("<text:5>", "words to be made, in 5 tokens"),
    ("<document>", "words and pictures to be made, as many as the model sees fit (edit_flow)"),
)

PromptPart = str | np.ndarray | PIL.Image.Image | document.Gap
"""Words with tags in them, a given picture (an array is uint8 `[height width 3]`), or a gap."""

_TAG = re.compile(r"<(document|image|text)(?::([^<>]*))?>")


def parse(prompt: PromptPart | Sequence[PromptPart], pixels: int) -> document.Document:
    """Returns the document that a prompt describes.

    Args:
      prompt: words with tags in them (`TAGS`), such as "a tiger <image:tiger.png> and <text:2>", a
        picture, a gap, or a list of them.
      pixels: given pictures are brought to this width and height.

    Raises:
      UserError: nothing in the prompt or something that is no `PromptPart`, a '<' that begins no
          tag, a
        count that is no whole number above 0, or a picture that cannot be read.
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
        raise errors.UserError(f"prompt {prompt!r} is empty; give words or a tag. {_syntax_help()}")
    return document.Document(tuple(parts))


def format(document_: document.Document) -> str:
    """Returns a document as one line in the language of prompts; given pictures lose their path."""
    return " ".join(map(_format_part, document_.parts))


def prepare_image(image: np.ndarray | PIL.Image.Image, pixels: int) -> np.ndarray:
    """Returns the pixels of a given picture, brought to this width and height.

    Raises:
      UserError: it cannot be read, or is no picture at all.
    """
    if isinstance(image, PIL.Image.Image):
        if 0 in image.size:
            raise errors.UserError(f"prompt: a picture of {image.size} pixels is empty")
        try:
            return pictures.to_square(image, pixels)
        except pictures.READ_ERRORS as error:
            raise errors.UserError(f"prompt: a picture cannot be read ({error})") from error
    if not isinstance(image, np.ndarray):
        raise errors.UserError(
            f"prompt: {image!r} is a {type(image).__name__}; give strings, pictures of "
            "Pillow's or NumPy's, and gaps"
        )
    return pictures.resize(validate_image(image), pixels)


def validate_image(image: np.ndarray) -> np.ndarray:
    """Returns an array that is a picture.

    Raises:
      UserError: it is not.
    """
    if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3 or not image.size:
        found = f"{image.dtype} {list(image.shape)}"
        raise errors.UserError(f"prompt: a picture must be uint8 [height width 3], not {found}")
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
            raise errors.UserError(f"prompt: {tag[0]!r} takes nothing after its name: <document>")
        case "image", path:
            return document.Image(pictures.load(path, pixels))
        case _, count:
            if not re.fullmatch("[0-9]+", count) or int(count) == 0:
                message = f"prompt: {tag[0]!r} needs a whole number above 0, as in <text:5>"
                raise errors.UserError(message)
            return document.Gap("text", int(count))


def _text_parts(text: str) -> list[document.Part]:
    """Returns the words as one part with single spaces, or nothing if there are none."""
    if "<" in text:
        message = f"prompt: {text[text.index('<') :].strip()!r} begins no known tag"
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
