"""JSON of requests and events: pydantic models, and documents with base64 images."""

import base64
import binascii
import io
import json
from collections.abc import Mapping, Sequence
from typing import Any

import PIL.Image
import pydantic

from oneflow_jax.api.document import Document, EditResult
from oneflow_jax.api.model import Model
from oneflow_jax.api.options import SamplingOptions
from oneflow_jax.api.state import SamplingStep
from oneflow_jax.data import image_io
from oneflow_jax.data import prompt as prompts
from oneflow_jax.errors import UserError
from oneflow_jax.serving import events
from oneflow_jax.serving.limits import Limits
from oneflow_jax.viewer import trajectory

FORMATS = ("PNG", "JPEG", "WEBP")
"""Formats of given images, by their names in Pillow."""

KEEP_ALIVE, KEEP_ALIVE_S = ": keep-alive\n\n", 10.0
"""Comment that a stream sends after this number of seconds without an event.

It shows whether the connection is lost.
"""


class _Fields(pydantic.BaseModel):
    model_config = pydantic.ConfigDict(extra="forbid", strict=True)


class Part(_Fields):
    """One part of a document: a text, or an image as base64 of a PNG, JPEG or WebP file."""

    text: str | None = None
    image: str | None = None


class Options(_Fields):
    """Fields of every request; the options are those of `api.options.SamplingOptions`."""

    model: str | None = None
    stream: bool = False
    steps: int | None = None
    solver: str | None = None
    time_grid: str | None = None
    image_guidance_scale: float | None = None
    text_guidance_scale: float | None = None
    confidence_threshold: float | None = None
    temperature: float | None = None
    top_p: float | None = None
    top_k: int | None = None
    unmask_order: str | None = None
    remask_prob: float | None = None
    seed: int | None = None

    def sampling_options(self) -> SamplingOptions:
        """Return the options that the request gives."""
        names = SamplingOptions.__annotations__
        return {name: getattr(self, name) for name in names if getattr(self, name) is not None}


class GenerateRequest(Options):
    """Body of `/v1/generate`."""

    prompt: str
    images: dict[str, str] = {}
    samples: int = 1

    def read_prompt(self, limits: Limits) -> Document:
        """Convert the prompt to a document; `<image:NAME>` is the image `NAME` of the request.

        The function opens no file, because a client must not read the files of the machine.

        Raises:
            UserError: the prompt is empty, too long or wrong, or an image is missing or cannot be
                read.
        """
        _check_length("prompt", self.prompt, limits)
        if not self.prompt.strip():
            raise UserError("prompt='': empty. Write text, with <image> or <text> for gaps.")
        _check_count(len(self.images), limits)
        images = {name: read_image(name, data, limits) for name, data in self.images.items()}
        return Document([_fill_tag(part, images) for part in prompts.split(self.prompt)])


class EditRequest(Options):
    """Body of `/v1/edit`."""

    document: list[Part]
    start: float | None = None

    def read_document(self, limits: Limits) -> Document:
        """Convert the document.

        Raises:
            UserError: the document is too long, a part has no text and no image, or an image cannot
                be read.
        """
        _check_length("document", "".join(part.text or "" for part in self.document), limits)
        _check_count(sum(part.image is not None for part in self.document), limits)
        return Document([_read_part(n, part, limits) for n, part in enumerate(self.document)])


def read_image(name: str, data: str, limits: Limits) -> PIL.Image.Image:
    """Decode an image of a request; `name` is for messages.

    Raises:
        UserError: the data is not base64 of a PNG, JPEG or WebP file, or the image is too large.
    """
    field = f"images[{name!r}]"
    _, comma, after = data.partition(",")
    try:
        content = base64.b64decode(after if comma else data, validate=True)
    except (binascii.Error, ValueError) as error:
        raise UserError(f"{field}: not base64 ({error}). Give base64 of an image file.") from error
    try:
        image = PIL.Image.open(io.BytesIO(content), formats=FORMATS)
        if image.width * image.height > limits.image_pixels:
            raise UserError(
                f"{field}: {image.width} x {image.height} pixels are too many. Give an image of "
                f"{limits.image_pixels} pixels at most."
            )
        image.load()
    except image_io.READ_ERRORS as error:
        raise UserError(f"{field}: not an image ({error}). Give a PNG, JPEG or WebP.") from error
    return image


def write_image(image: PIL.Image.Image) -> str:
    """Encode an image as base64 of a PNG file."""
    file = io.BytesIO()
    image.save(file, "PNG")
    return base64.b64encode(file.getvalue()).decode()


def write_info(name: str, model: Model | None) -> dict[str, Any]:
    """Describe the model that the server calls `name`; `model` is None if it is not loaded."""
    if model is None:
        return {"name": name, "loaded": False}
    info = model.info()
    return {
        "name": name,
        "loaded": True,
        "run": info.name,
        "paradigm": info.paradigm,
        "parameters": info.parameters,
        "tasks": list(info.tasks),
        "pixels": info.pixels,
        "aspect_ratios": list(info.aspect_ratios),
        "image_slots": info.image_slots,
        "gap_tokens": info.gap_tokens,
        "slots": info.slots,
        "chooses_parts": info.chooses_parts,
        "can_edit": info.can_edit,
        "words": list(info.words),
        "names": list(info.names),
    }


def write_done(event: events.Done, warnings: Sequence[str]) -> dict[str, Any]:
    """Convert finished documents to the answer of `/v1/generate` or `/v1/edit`."""
    answer = {
        "documents": list(map(_write_document, event.documents)),
        "nfe": event.nfe,
        "seconds": round(event.seconds, 4),
        "warnings": list(warnings),
    }
    for document in event.documents:
        if isinstance(document, EditResult):
            answer["changes"] = list(map(str, document.edits))
    return answer


def format_event(event: events.Event, warnings: Sequence[str]) -> str:
    """Return an event of a request as the text of a server-sent event."""
    name, data = write_event(event, warnings)
    return f"event: {name}\ndata: {json.dumps(data)}\n\n"


def write_event(event: events.Event, warnings: Sequence[str]) -> tuple[str, dict[str, Any]]:
    """Return the name and the data of the server-sent event for an event of a request."""
    match event:
        case events.Queued(position):
            return "queued", {"position": position, "warnings": list(warnings)}
        case events.Compiling():
            return "compiling", {}
        case events.State(step, steps, documents):
            states = [{"parts": _write_state(state)} for state in documents]
            t = documents[0].t
            return "state", {"step": step, "steps": steps, "t": t, "documents": states}
        case events.Done():
            return "done", write_done(event, warnings)
        case events.Failed(message):
            return "error", {"message": message}


def _write_document(document: Document) -> dict[str, Any]:
    parts, markup, images = [], [], 0
    for part in document.parts:
        if isinstance(part, str):
            parts.append({"text": part})
            markup.append(prompts.escape(part))
        else:
            images += 1
            parts.append({"image": write_image(part)})
            markup.append(f"<image:{images}>")
    return {"parts": parts, "markup": " ".join(markup), "truncated": document.truncated}


def _write_state(state: SamplingStep) -> list[dict[str, Any]]:
    return list(map(_write_state_part, state.frame.parts))


def _write_state_part(part: trajectory.Part) -> dict[str, Any]:
    shared = {"key": part.key, "time": round(part.time, 4), "given": part.given}
    if isinstance(part, trajectory.TextSpan):
        tokens = [
            {
                "key": token.key,
                "text": token.text,
                "confidence": round(token.confidence, 4),
                "given": token.given,
            }
            for token in part.tokens
        ]
        return {"text": part.to_text(), **shared, "tokens": tokens}
    best = part.x_t if part.x1_hat is None or part.given else part.x1_hat
    noisy = None if part.given else write_image(PIL.Image.fromarray(part.x_t))
    return {"image": write_image(PIL.Image.fromarray(best)), "noisy_image": noisy, **shared}


def _fill_tag(part: object, images: Mapping[str, PIL.Image.Image]) -> object:
    if not isinstance(part, prompts.ImageTag):
        return part
    if part.path not in images:
        names = ", ".join(images) or "none"
        raise UserError(
            f"<image:{part.path}>: the request has no image with this name. Add it to images, "
            f"which has {names}."
        )
    return images[part.path]


def _read_part(number: int, part: Part, limits: Limits) -> str | PIL.Image.Image:
    if (part.text is None) == (part.image is None):
        raise UserError(f"document[{number}]: give either text or image.")
    if part.image is None:
        return part.text
    return read_image(str(number), part.image, limits)


def _check_length(field: str, text: str, limits: Limits) -> None:
    if len(text) > limits.characters:
        raise UserError(
            f"{field}: {len(text)} characters are too many. Give {limits.characters} at most."
        )


def _check_count(images: int, limits: Limits) -> None:
    if images > limits.images:
        raise UserError(f"images: {images} are too many. Give {limits.images} at most.")
