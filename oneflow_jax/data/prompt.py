r"""Prompt syntax: text, given images, and gaps that the model fills.

A backslash escapes "<": `1 \< 2` is the text "1 < 2". A literal backslash right before "<" or `\<`
must be doubled. All other backslashes stand for themselves.
"""

import dataclasses
import re
from collections.abc import Sequence

import numpy as np
import PIL.Image

from oneflow_jax import errors
from oneflow_jax.data import characters, color_conversion, document, image_io, image_shapes

TAGS = (
    ("<image>", "an image to generate"),
    ("<image 3:2>", "an image of another aspect ratio, width to height"),
    ("<image:path/to.png>", "a given image"),
    ("<text>", "text to generate"),
    ("<text:5>", "text of 5 tokens to generate"),
    ("<document>", "any number of texts and images to generate"),
    (r"\<", "the character <"),
)

_MAX_COUNT_DIGITS = 9

PromptPart = str | np.ndarray | PIL.Image.Image | document.Gap
"""Text with tags, a given image (an array is uint8 `[height width 3]`), or a gap."""

_TAG = re.compile(r"<(document|image|text)(?::([^<>]*)| +([^<>]*))?>")


@dataclasses.dataclass(frozen=True)
class ImageTag:
    """Tag of a prompt that gives the path of an image."""

    path: str


def parse(
    prompt: PromptPart | Sequence[PromptPart],
    pixels: int,
    crop_sizes: Sequence[image_shapes.Size] = (),
) -> document.Document:
    """Parse a prompt and return the document that it describes.

    Args:
      prompt: text with tags (`TAGS`), such as "a tiger <image:tiger.png> and <text:2>"; an image;
        a gap; or a list of these. A list of several items must contain an image or a gap.
      pixels: width and height to which given images are resized, with white margins.
      crop_sizes: sizes (height, width) to which given images are cropped instead; see
        `image_io.resize`.

    Raises:
      UserError: the prompt is empty, is a list of several strings, holds something that is not a
        `PromptPart`, has a '<' that does not begin a tag, has a count that is not a positive
        integer, or names an image that cannot be read.
    """
    _check_single(prompt)
    pieces = prompt if isinstance(prompt, list | tuple) else [prompt]
    parts: list[document.Part] = []
    for piece in pieces:
        match piece:
            case str():
                parts.extend(_load_part(part, pixels, crop_sizes) for part in split(piece))
            case document.Gap():
                parts.append(piece)
            case _:
                parts.append(document.Image(prepare_image(piece, pixels, crop_sizes)))
    if not parts:
        raise errors.UserError(f"prompt {prompt!r} is empty. Give text or a tag. {_syntax_help()}")
    return document.Document(tuple(parts))


def format(document_: document.Document) -> str:
    """Format a document as a one-line prompt that shows the size of each given image."""
    return " ".join(map(_format_part, document_.parts))


def split(text: str) -> list[str | ImageTag | document.Gap]:
    """Split a prompt at its tags. In the returned texts, escapes and extra spaces are removed.

    Raises:
      UserError: a '<' does not begin a tag, or a count is not a positive integer.
    """
    parts: list[str | ImageTag | document.Gap] = []
    literal: list[str] = []
    at = 0
    while (bracket := text.find("<", at)) >= 0:
        plain = text[at:bracket].rstrip("\\")
        backslashes = bracket - at - len(plain)
        literal += [plain, "\\" * (backslashes // 2)]
        if backslashes % 2:
            literal.append("<")
            at = bracket + 1
            continue
        tag = _TAG.match(text, bracket)
        if tag is None:
            unknown_tag = text[bracket : bracket + 60].strip()
            raise errors.UserError(f"prompt: {unknown_tag!r} is not a known tag. {_syntax_help()}")
        parts += [*_clean_text(literal), _parse_tag(tag)]
        literal, at = [], tag.end()
    return [*parts, *_clean_text([*literal, text[at:]])]


def escape(text: str) -> str:
    """Escape a text for use in a prompt. `split` undoes the escapes."""
    *before, last = text.split("<")
    escaped = (f"{each}{each[len(each.rstrip(chr(92))) :]}\\<" for each in before)
    return "".join(escaped) + last


def prepare_image(
    image: np.ndarray | PIL.Image.Image, pixels: int, crop_sizes: Sequence[image_shapes.Size] = ()
) -> np.ndarray:
    """Return the pixels of a given image, resized as in `image_io.resize`.

    Raises:
      UserError: the image cannot be read, or the argument is not an image.
    """
    if isinstance(image, PIL.Image.Image):
        if 0 in image.size:
            raise errors.UserError(f"prompt: an image of {image.size} pixels is empty. Replace it.")
        try:
            image_io.warn_of_profile(image, "prompt: an image")
            return image_io.to_size(image, pixels, crop_sizes)
        except color_conversion.UNCONVERTIBLE as error:
            raise errors.UserError(f"prompt: an image cannot be used: {error}.") from error
        except image_io.READ_ERRORS as error:
            raise errors.UserError(f"prompt: an image cannot be read ({error})") from error
    if not isinstance(image, np.ndarray):
        raise errors.UserError(
            f"prompt: {repr(image)[:80]} is a {type(image).__name__}. Give strings, Pillow images, "
            "NumPy arrays, or gaps. For several prompts, use generate_batch."
        )
    return image_io.resize(validate_image(image), pixels, crop_sizes)


def validate_image(image: np.ndarray) -> np.ndarray:
    """Check that an array is an image, and return it.

    Raises:
      UserError: the array is not uint8 `[height width 3]`, or is empty.
    """
    if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3 or not image.size:
        description = f"{image.dtype} {list(image.shape)}"
        raise errors.UserError(
            f"prompt: an image must be a uint8 array [height width 3], not {description}. Scale "
            "its values to the range 0 to 255, and convert it to uint8 with three channels."
        )
    return image


def _check_single(prompt: PromptPart | Sequence[PromptPart]) -> None:
    """Raise an error if a prompt is a list of only strings: the user may mean several prompts."""
    several = isinstance(prompt, list | tuple) and len(prompt) > 1
    if several and all(isinstance(piece, str) for piece in prompt):
        raise errors.UserError(
            f"prompt: a list of {len(prompt)} strings may be one prompt or several. For one, join "
            "the strings; for several, use generate_batch."
        )


def _load_part(
    part: str | ImageTag | document.Gap, pixels: int, crop_sizes: Sequence[image_shapes.Size]
) -> document.Part:
    match part:
        case str():
            return document.Text(part)
        case ImageTag(path):
            return document.Image(image_io.load(path, pixels, crop_sizes))
        case _:
            return part


def _parse_tag(tag: re.Match[str]) -> ImageTag | document.Gap:
    if tag[3] is not None:
        if tag[1] != "image":
            raise errors.UserError(f"prompt: {tag[0][:60]!r} is not a known tag. {_syntax_help()}")
        return document.Gap("image", aspect_ratio=tag[3].strip())
    match tag[1], tag[2]:
        case kind, None:
            return document.Gap(kind)
        case "document", _:
            raise errors.UserError(f"prompt: {tag[0][:60]!r} takes no argument. Write <document>.")
        case "image", path:
            return ImageTag(path)
        case _, count:
            if not re.fullmatch(f"0*[1-9][0-9]{{0,{_MAX_COUNT_DIGITS - 1}}}", count):
                raise errors.UserError(
                    f"prompt: {tag[0][:60]!r} needs a positive integer of at most "
                    f"{_MAX_COUNT_DIGITS} digits, as in <text:5>."
                )
            return document.Gap("text", int(count))


def _clean_text(pieces: Sequence[str]) -> list[str]:
    """Join the pieces, with single spaces; return a list of this text, or [] if it is blank."""
    text = characters.clean_spaces("".join(pieces))
    return [text] if text else []


def _format_part(part: document.Part) -> str:
    match part:
        case document.Text(words):
            return escape(words)
        case document.Image(pixels):
            return f"<image:{pixels.shape[1]}x{pixels.shape[0]}>"
        case document.Gap():
            return str(part)


def _syntax_help() -> str:
    return "Tags: " + "; ".join(f"{tag} = {meaning}" for tag, meaning in TAGS)
