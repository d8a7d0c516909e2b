"""Limits of one server on its requests; each field of `Limits` has a default."""

import dataclasses

from oneflow_jax.errors import UserError


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

    def check(self, samples: int, steps: int | None) -> None:
        """Check the size of a request; `steps` is None if the request gives none.

        Raises:
            UserError: there are too many samples or steps.
        """
        for field, value, most in (("samples", samples, self.rows), ("steps", steps, self.steps)):
            if value is not None and value > most:
                raise UserError(f"{field}={value}: too many for this server. Give {most} at most.")
