"""Conversion of grids to sequences of patches, and a lossless codec whose latents are patches."""

import dataclasses

import numpy as np
from einops import rearrange, reduce

from oneflow_jax.codecs import base
from oneflow_jax.errors import UserError, check_one_of


def to_patches(values: np.ndarray, patch_size: int) -> np.ndarray:
    """Cut `[H W c]` into flattened patches in reading order, `[N patch_size*patch_size*c]`."""
    return rearrange(values, "(r p) (s q) c -> (r s) (p q c)", p=patch_size, q=patch_size)


def from_patches(patches: np.ndarray, grid: tuple[int, int], patch_size: int) -> np.ndarray:
    """Join flattened patches to `[... H W c]`, the inverse of `to_patches`.

    Args:
        patches: patches in reading order, `[... N patch_size*patch_size*c]`.
        grid: rows and columns of patches.
        patch_size: height and width of a patch.
    """
    return rearrange(
        patches,
        "... (r s) (p q c) -> ... (r p) (s q) c",
        r=grid[0],
        s=grid[1],
        p=patch_size,
        q=patch_size,
    )


@dataclasses.dataclass(frozen=True)
class PatchCodec:
    """Codec whose latents are patches of pixels, normalized to mean 0 and variance 1.

    Attributes:
        pixels: height and width of a square image, in pixels.
        patch_size: height and width of a patch, in pixels; a divisor of `pixels`.
        image_channels: 3 for RGB, or 1 for grayscale.
        mean, std: mean and standard deviation of the data set's pixel values in [-1, 1].
    """

    pixels: int
    patch_size: int
    image_channels: int
    mean: float
    std: float
    num_codes = 0

    def __post_init__(self) -> None:
        """Check the patch size and the number of channels.

        Raises:
            UserError: `patch_size` does not divide `pixels`, or `image_channels` is not 1 or 3.
        """
        if self.patch_size < 1 or self.pixels % self.patch_size:
            raise UserError(
                f"codec.patch_size={self.patch_size} does not divide codec.pixels={self.pixels}. "
                "Give a divisor."
            )
        check_one_of("codec.image_channels", self.image_channels, (1, 3))

    @property
    def grid(self) -> tuple[int, int]:
        """Rows and columns of patches of a square image."""
        return (self.pixels // self.patch_size,) * 2

    @property
    def channels(self) -> int:
        """The number of values in a patch."""
        return self.image_channels * self.patch_size**2

    def encode(self, pixels: np.ndarray) -> np.ndarray:
        """Encode a uint8 image `[H W 3]` as patches, float32 `[N C]`.

        Raises:
            UserError: height or width of the image is not a multiple of `patch_size`.
        """
        base.check_image_size(pixels, self.patch_size)
        values = pixels.astype(np.float32) / 127.5 - 1
        if self.image_channels == 1:
            values = reduce(values, "h w c -> h w 1", "mean")
        return self.from_stored(values)

    def from_stored(self, values: np.ndarray) -> np.ndarray:
        """Convert pixels in [-1, 1], `[H W image_channels]`, to patches, float32 `[N C]`."""
        return to_patches((values - self.mean) / self.std, self.patch_size)

    def decode(self, latents: np.ndarray, grid: tuple[int, int] | None = None) -> np.ndarray:
        """Decode patches `[... N C]` to images, uint8 `[... H W 3]`.

        `grid` is the rows and columns of patches; None for square images.
        """
        values = from_patches(np.asarray(latents, np.float32), grid or self.grid, self.patch_size)
        values = values * self.std + self.mean
        pixels = np.clip(np.rint((values + 1) * 127.5), 0, 255).astype(np.uint8)
        return np.repeat(pixels, 3 // self.image_channels, axis=-1)
