"""A learned codec: an autoencoder's latents, scaled and cut into slots."""

import dataclasses

import numpy as np

from oneflow_jax.codecs import base, grids
from oneflow_jax.codecs.autoencoder.autoencoder import Autoencoder
from oneflow_jax.errors import UserError


@dataclasses.dataclass(frozen=True)
class TokenEncoder:
    """A VQModel that encodes pictures as numbers of codes, for storage: float32 `[n h w 1]`."""

    autoencoder: Autoencoder

    @property
    def fingerprint(self) -> str:
        """Another one than that of the same autoencoder's vectors."""
        return f"{self.autoencoder.fingerprint}_codes"

    def encode(self, pictures: np.ndarray) -> np.ndarray:
        """Codes of uint8 `[n H W 3]`; whole numbers below 2^24 are exact in float32."""
        return self.autoencoder.codes(pictures)[..., None].astype(np.float32)


@dataclasses.dataclass(frozen=True, eq=False)
class VQCodec:
    """A picture as codes, one in a slot.

    Attributes:
        autoencoder: a VQModel.
        pixels: height and width of a picture.
    """

    autoencoder: Autoencoder
    pixels: int
    channels = 1  # latents that nothing is put into

    def __post_init__(self) -> None:
        """Refuses what has no codes, and sizes that do not fit.

        Raises:
            UserError: as said.
        """
        shape = self.autoencoder.shape
        if shape.kind != "VQModel":
            raise UserError(f"codec.name='codes' wants a VQModel; codec.path holds a {shape.kind}.")
        if self.pixels % shape.factor:
            raise UserError(
                f"codec.pixels={self.pixels} is no multiple of {shape.factor}, a code's pixels."
            )

    @property
    def grid(self) -> tuple[int, int]:
        """Rows and columns of codes."""
        return (self.pixels // self.autoencoder.shape.factor,) * 2

    @property
    def codes(self) -> int:
        """How many different codes there are."""
        return self.autoencoder.shape.num_vq_embeddings

    def encode(self, pixels: np.ndarray) -> np.ndarray:
        """Codes, int `[N]`, of a uint8 picture `[H W 3]`.

        Raises:
            UserError: the picture has another size.
        """
        base.check_image_size(pixels, self.pixels)
        return self.autoencoder.codes(pixels[None])[0].reshape(-1)

    def arrange(self, values: np.ndarray) -> np.ndarray:
        """Codes, int `[N]`, of those that were stored as `[h w 1]`."""
        return np.rint(values).astype(np.int32).reshape(-1)

    def decode(self, codes: np.ndarray) -> np.ndarray:
        """Pictures, uint8 `[... H W 3]`, of codes `[... N]`."""
        flat = codes.reshape(-1, *self.grid)
        pictures = self.autoencoder.decode_codes(flat)
        return pictures.reshape(*codes.shape[:-1], *pictures.shape[1:])


@dataclasses.dataclass(frozen=True, eq=False)
class LatentCodec:
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
    codes = 0

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
        base.check_image_size(pixels, self.pixels)
        return self.arrange(self.autoencoder.encode(pixels[None])[0])

    def arrange(self, values: np.ndarray) -> np.ndarray:
        """Slots, float32 `[N C]`, of the autoencoder's latents `[h w c]`."""
        scaled = (values - np.float32(self.mean)) / (np.float32(self.scale) * self.deviation)
        return grids.to_patches(scaled.astype(np.float32), self.patch)

    def decode(self, latents: np.ndarray) -> np.ndarray:
        """Pictures, uint8 `[... H W 3]`, of slots `[... N C]`."""
        values = grids.from_patches(np.asarray(latents, np.float32), self.grid, self.patch)
        values = values * np.float32(self.scale) * self.deviation + np.float32(self.mean)
        flat = values.reshape(-1, *values.shape[-3:]).astype(np.float32)
        pictures = self.autoencoder.decode(flat)
        return pictures.reshape(*values.shape[:-3], *pictures.shape[1:])
