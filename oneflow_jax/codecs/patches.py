"""Pictures as patches: each square of pixels is one latent, nothing is lost."""

import dataclasses

import numpy as np
from einops import reduce

from oneflow_jax.codecs import base, grids
from oneflow_jax.errors import UserError


@dataclasses.dataclass(frozen=True)
class PatchCodec:
    """Squares of `patch` x `patch` pixels, scaled to zero mean and unit variance.

    Attributes:
        pixels: height and width of a picture.
        patch: height and width of a square; divides `pixels`.
        colors: 3, or 1 for pictures in grey.
        mean, deviation: of the data's pixel values, themselves between -1 and 1.
    """

    pixels: int
    patch: int
    colors: int
    mean: float
    deviation: float
    codes = 0

    def __post_init__(self) -> None:
        """Refuses sizes that do not fit.

        Raises:
            UserError: as said.
        """
        if self.patch < 1 or self.pixels % self.patch:
            raise UserError(f"codec.patch={self.patch} does not divide codec.pixels={self.pixels}.")
        if self.colors not in (1, 3):
            raise UserError(f"codec.colors={self.colors} is neither 1 (grey) nor 3 (RGB).")

    @property
    def grid(self) -> tuple[int, int]:
        """Rows and columns of patches."""
        return (self.pixels // self.patch,) * 2

    @property
    def channels(self) -> int:
        """Numbers in a patch."""
        return self.colors * self.patch**2

    def encode(self, pixels: np.ndarray) -> np.ndarray:
        """Patches, float32 `[N C]`, of a uint8 picture `[H W 3]`.

        Raises:
            UserError: the picture has another size.
        """
        base.check_image_size(pixels, self.pixels)
        values = pixels.astype(np.float32) / 127.5 - 1
        if self.colors == 1:
            values = reduce(values, "h w c -> h w 1", "mean")
        return self.arrange(values)

    def arrange(self, values: np.ndarray) -> np.ndarray:
        """Patches, float32 `[N C]`, of pixel values from -1 to 1, `[H W colors]`."""
        return grids.to_patches((values - self.mean) / self.deviation, self.patch)

    def decode(self, latents: np.ndarray) -> np.ndarray:
        """Pictures, uint8 `[... H W 3]`, of patches `[... N C]`."""
        values = grids.from_patches(np.asarray(latents, np.float32), self.grid, self.patch)
        values = values * self.deviation + self.mean
        pixels = np.clip(np.rint((values + 1) * 127.5), 0, 255).astype(np.uint8)
        return np.repeat(pixels, 3 // self.colors, axis=-1)
