"""Limits of one server on its requests; each field of `Limits` has a default."""

import dataclasses


@dataclasses.dataclass(frozen=True)
class Limits:
    """What a server accepts.

    Attributes:
        queue: requests that may wait; more are refused.
        rows: documents of one batch, at most; a request may have at most this many samples.
        steps: solver steps of a request, at most.
        characters: characters of the prompt or document of a request, at most.
        images: images of a request, at most.
        image_pixels: width times height of an image, at most.
        body_bytes: bytes of the body of a request, at most.
    """

    queue: int = 256
    rows: int = 8
    steps: int = 256
    characters: int = 20_000
    images: int = 16
    image_pixels: int = 16_000_000
    body_bytes: int = 32_000_000
