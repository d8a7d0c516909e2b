"""A learned codec: an autoencoder's latents, scaled and cut into slots."""

import dataclasses

import numpy as np

from oneflow_jax.autoencoders.trained import Autoencoder
from oneflow_jax.codecs import grids
from oneflow_jax.errors import UserError


@dataclasses.dataclass(frozen=True, eq=False)
class Learned:
    """Squares of `patch` x `patch` latents, scaled to zero mean and a deviation of 1 / `deviation`.

    Attributes:
        autoencoder: what makes latents of pictures, and pictures of latents.
        pixels: height and width of a picture.
        patch: latents that a slot is high and wide.
        mean, scale: mean and deviation of the data's latents, by channel.
        deviation: how much fainter than unit variance latents are to be: 2 halves them.
    """

    autoencoder: Autoencoder
    pixels: int
    patch: int
    mean: tuple[float, ...]
    scale: tuple[float, ...]
    deviation: float

    def __post_init__(self) -> None:
        """Refuses sizes that do not fit.

        Raises:
            UserError: as said.
        """
        shape = self.autoencoder.shape
        if (shape.in_channels, shape.out_channels) != (3, 3):
            raise UserError(
                f"codec.path: that autoencoder has in_channels={shape.in_channels} and "
                f"out_channels={shape.out_channels}; pictures have 3 colors."
            )
        unit = shape.factor * self.patch
        if self.patch < 1 or self.pixels % unit:
            raise UserError(
                f"codec.pixels={self.pixels} is no multiple of {unit}, the pixels of a slot: "
                f"{shape.factor} to a latent of the autoencoder, and codec.patch="
                f"{self.patch} latents."
            )

    @property
    def grid(self) -> tuple[int, int]:
        """Rows and columns of slots."""
        return (self.pixels // (self.autoencoder.shape.factor * self.patch),) * 2

    @property
    def channels(self) -> int:
        """Numbers in a slot."""
        return self.autoencoder.shape.channels * self.patch**2

    def encode(self, pixels: np.ndarray) -> np.ndarray:
        """Slots, float32 `[N C]`, of a uint8 picture `[H W 3]`.

        Raises:
            UserError: the picture has another size.
        """
        if pixels.shape != (self.pixels, self.pixels, 3):
            raise UserError(
                f"A picture of shape {pixels.shape} does not fit the codec, which wants "
                f"{(self.pixels, self.pixels, 3)}: set codec.pixels, or resize it."
            )
        return self.arrange(self.autoencoder.encode(pixels[None])[0])

    def arrange(self, values: np.ndarray) -> np.ndarray:
        """Slots, float32 `[N C]`, of the autoencoder's latents `[h w c]`."""
        scaled = (values - np.float32(self.mean)) / (np.float32(self.scale) * self.deviation)
        return grids.cut(scaled.astype(np.float32), self.patch)

    def decode(self, latents: np.ndarray) -> np.ndarray:
        """Pictures, uint8 `[... H W 3]`, of slots `[... N C]`."""
        values = grids.joined(np.asarray(latents, np.float32), self.grid, self.patch)
        values = values * np.float32(self.scale) * self.deviation + np.float32(self.mean)
        flat = values.reshape(-1, *values.shape[-3:]).astype(np.float32)
        pictures = self.autoencoder.decode(flat)
        return pictures.reshape(*values.shape[:-3], *pictures.shape[1:])
