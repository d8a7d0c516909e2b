"""What the rest of the system asks of a codec."""

from typing import Protocol

import numpy as np

from oneflow_jax.errors import UserError


class Codec(Protocol):
    """Turns pictures into rows of latents, about unit variance, or of codes; and back."""

    @property
    def grid(self) -> tuple[int, int]:
        """Rows and columns of latents in one picture; N is their product."""

    @property
    def channels(self) -> int:
        """Numbers in one latent, C."""

    @property
    def pixels(self) -> int:
        """Height and width of the pictures, in pixels."""

    @property
    def codes(self) -> int:
        """How many codes there are, of a codec that makes codes; else 0."""

    def encode(self, pixels: np.ndarray) -> np.ndarray:
        """Latents, float32 `[N C]`, or codes, int `[N]`, in reading order, of a uint8 `[H W 3]`."""

    def arrange(self, values: np.ndarray) -> np.ndarray:
        """Latents, as `encode` gives them, of a picture that was turned into `[h w c]` before."""

    def decode(self, latents: np.ndarray) -> np.ndarray:
        """Pictures, uint8 `[... H W 3]`, of latents `[... N C]`, clipped; or of codes `[... N]`."""


def check_image_size(image: np.ndarray, pixels: int) -> None:
    """Refuses a picture that is not uint8 `[pixels pixels 3]`.

    Raises:
        UserError: as said.
    """
    wanted = (pixels, pixels, 3)
    if image.shape != wanted:
        raise UserError(
            f"A picture of shape {image.shape} does not fit the codec, which wants {wanted}: set "
            "codec.pixels, or resize it."
        )
