"""Interface of codecs, which convert between images and the content of slots."""

from typing import Protocol

import numpy as np

from oneflow_jax.errors import UserError


class Codec(Protocol):
    """Converts images to sequences of codes, or of latents with about unit variance, and back."""

    @property
    def grid(self) -> tuple[int, int]:
        """Rows and columns of latents in a square image; N is the product of both."""

    @property
    def channels(self) -> int:
        """Number of values in one latent, C; 1 for codes."""

    @property
    def pixels(self) -> int:
        """Height and width of square images, in pixels."""

    @property
    def num_codes(self) -> int:
        """The size of the codebook, or 0 for a codec without codes."""

    def encode(self, pixels: np.ndarray) -> np.ndarray:
        """Encode a uint8 image `[H W 3]` as latents, float32 `[N C]`, or codes, int `[N]`.

        Height and width are multiples of the pixels of one latent or code, `pixels / grid[0]`.

        The N latents or codes are in reading order: row by row, from left to right.
        """

    def from_stored(self, values: np.ndarray) -> np.ndarray:
        """Convert the stored form of an image, `[h w c]`, to the result of `encode`."""

    def decode(self, latents: np.ndarray, grid: tuple[int, int] | None = None) -> np.ndarray:
        """Decode latents `[... N C]` or codes `[... N]` to uint8 images `[... H W 3]`, clipped.

        `grid` is the rows and columns of latents of these images; None for square images.
        """


def check_image_size(image: np.ndarray, unit: int) -> None:
    """Check that height and width of an RGB image are multiples of `unit` pixels.

    Raises:
        UserError: the image has another shape.
    """
    height, width, colors = image.shape
    if not height or not width or height % unit or width % unit or colors != 3:
        raise UserError(
            f"An image has shape {image.shape}, but the codec needs RGB images whose height and "
            f"width are multiples of {unit} pixels. Set codec.pixels, or resize the image."
        )
