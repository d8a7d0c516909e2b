"""What the rest of the system asks of a codec."""

from typing import Protocol

import numpy as np


class Codec(Protocol):
    """Turns pictures into rows of latents, about unit variance, and back."""

    @property
    def grid(self) -> tuple[int, int]:
        """Rows and columns of latents in one picture; N is their product."""

    @property
    def channels(self) -> int:
        """Numbers in one latent, C."""

    @property
    def pixels(self) -> int:
        """Height and width of the pictures, in pixels."""

    def encode(self, pixels: np.ndarray) -> np.ndarray:
        """Latents, float32 `[N C]` in reading order, of a uint8 picture `[H W 3]`."""

    def arrange(self, values: np.ndarray) -> np.ndarray:
        """Latents, as `encode` gives them, of a picture that was turned into `[h w c]` before."""

    def decode(self, latents: np.ndarray) -> np.ndarray:
        """Pictures, uint8 `[... H W 3]`, of latents `[... N C]`; out of range is clipped."""
