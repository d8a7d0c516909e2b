"""Files of a document that the page has: the drawing functions of the viewer, as bytes."""

import base64
import binascii
import dataclasses
import io
import pathlib
import tempfile
import zipfile
from collections.abc import Sequence
from typing import Literal

import numpy as np
import PIL.Image
import pydantic

from oneflow_jax.api.state import SamplingStep, from_frame
from oneflow_jax.data import image_io
from oneflow_jax.errors import UserError
from oneflow_jax.viewer import filmstrip, page, trajectory

MAX_PIXELS = 4_000_000
"""Maximum number of pixels of an image; those of models are far smaller."""

Format = Literal["png", "gif", "html", "zip", "frames"]
"""Formats: one image, an animation, a page with the viewer, Markdown with its images, and all
frames below one another in one PNG, from which the browser records a video."""

MEDIA_TYPES: dict[str, str] = {
    "png": "image/png",
    "gif": "image/gif",
    "html": "text/html; charset=utf-8",
    "zip": "application/zip",
    "frames": "image/png",
}


class Token(pydantic.BaseModel):
    """A token, as the events of `oneflow serve` have it."""

    key: int
    text: str
    confidence: float
    given: bool


class Part(pydantic.BaseModel):
    """A text with `tokens`, or an image as base64 of a PNG, with its x_t if it is not given."""

    key: int
    time: float
    given: bool
    tokens: list[Token] | None = None
    image: str | None = None
    noisy_image: str | None = None


class State(pydantic.BaseModel):
    """A document at time `t`."""

    t: float
    parts: list[Part]


class SaveRequest(pydantic.BaseModel):
    """Body of a request to save a document: all its states, the last one finished."""

    format: Format
    title: str = pydantic.Field(max_length=1_000)
    prompt: str = pydantic.Field(max_length=100_000)
    settings: dict[str, str]
    states: list[State] = pydantic.Field(min_length=1, max_length=1_000)


@dataclasses.dataclass(frozen=True)
class SavedFile:
    """Content of a file, its media type, and its number of frames."""

    content: bytes
    media_type: str
    num_frames: int


def save(request: SaveRequest) -> SavedFile:
    """Write a document in the format of the request.

    Raises:
        UserError: an image is not a PNG, or a time, a confidence or a key is not possible.
    """
    try:
        frames = [_read_frame(n, request.states) for n in range(len(request.states))]
        view = trajectory.TrajectoryView(request.title, request.prompt, tuple(frames))
    except (ValueError, *image_io.READ_ERRORS) as error:
        raise UserError(f"states: {error}. Generate the document again, then save it.") from error
    with tempfile.TemporaryDirectory() as folder:
        content = _write(pathlib.Path(folder), request, view)
    return SavedFile(content, MEDIA_TYPES[request.format], len(frames))


def _write(folder: pathlib.Path, request: SaveRequest, view: trajectory.TrajectoryView) -> bytes:
    match request.format:
        case "png":
            return _finished(view).document.save(folder / "document.png").read_bytes()
        case "gif":
            filmstrip.write_animation(folder / "document.gif", view.frames)
            return (folder / "document.gif").read_bytes()
        case "html":
            heading = view.to_text() or request.title
            page.write(folder / "document.html", [view], {}, request.settings, heading)
            return (folder / "document.html").read_bytes()
        case "zip":
            _finished(view).document.save(folder / "document" / "document.md")
            return _zip_folder(folder / "document")
        case "frames":
            return _stack(filmstrip.draw_frames(view.frames))


def _finished(view: trajectory.TrajectoryView) -> SamplingStep:
    return from_frame(view.frames[-1])


def _read_frame(number: int, states: Sequence[State]) -> trajectory.Frame:
    state, is_last = states[number], number == len(states) - 1
    return trajectory.Frame(state.t, tuple(_read_part(part, is_last) for part in state.parts))


def _read_part(part: Part, is_last: bool) -> trajectory.Part:
    if part.tokens is not None:
        tokens = tuple(trajectory.TokenView(**dict(token), final=is_last) for token in part.tokens)
        return trajectory.TextSpan(part.key, tokens, part.time, part.given)
    clean = _read_image(part.image)
    if part.noisy_image is None:
        return trajectory.ImageView(part.key, clean, None, part.time, part.given)
    noisy = _read_image(part.noisy_image)
    return trajectory.ImageView(part.key, noisy, clean, part.time, part.given)


def _read_image(data: str | None) -> np.ndarray:
    try:
        file = io.BytesIO(base64.b64decode(data or "", validate=True))
    except binascii.Error as error:
        raise ValueError(f"an image is not base64 ({error})") from error
    image = PIL.Image.open(file, formats=["PNG"])
    if image.width * image.height > MAX_PIXELS:
        raise ValueError(f"an image has {image.width} x {image.height} pixels")
    return np.asarray(image.convert("RGB"))


def _zip_folder(folder: pathlib.Path) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        for path in sorted(path for path in folder.rglob("*") if path.is_file()):
            archive.write(path, path.relative_to(folder))
    return file.getvalue()


def _stack(frames: Sequence[PIL.Image.Image]) -> bytes:
    """Return a PNG with frames of equal size below one another."""
    width, height = frames[0].size
    stack = PIL.Image.new("RGB", (width, height * len(frames)))
    for number, frame in enumerate(frames):
        stack.paste(frame, (0, number * height))
    file = io.BytesIO()
    stack.save(file, "PNG")
    return file.getvalue()
