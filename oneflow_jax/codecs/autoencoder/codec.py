"""Codecs with an autoencoder: `LatentCodec` fills slots with latents, and `VQCodec` with codes."""

import dataclasses

import numpy as np

from oneflow_jax.codecs import base
from oneflow_jax.codecs.autoencoder.autoencoder import Autoencoder
from oneflow_jax.codecs.patches import from_patches, to_patches
from oneflow_jax.errors import UserError


@dataclasses.dataclass(frozen=True)
class TokenEncoder:
    """A VQModel that encodes images as float32 codes, the form in which the codes are stored."""

    autoencoder: Autoencoder

    @property
    def fingerprint(self) -> str:
        """Hash that names stored codes; `Autoencoder.fingerprint` names stored latents."""
        return f"{self.autoencoder.fingerprint}_codes"

    def encode(self, images: np.ndarray) -> np.ndarray:
        """Encode uint8 images `[n H W 3]` as codes `[n h w 1]`; float32 holds codes up to 2^24."""
        return self.autoencoder.encode_codes(images)[..., None].astype(np.float32)


@dataclasses.dataclass(frozen=True, eq=False)
class VQCodec:
    """Images as codes of a VQModel, one code per slot.

    Attributes:
        autoencoder: a VQModel.
        pixels: height and width of a square image, in pixels.
    """

    autoencoder: Autoencoder
    pixels: int
    channels = 1  # Every slot of a canvas has a latent, which stays unused in slots with codes.

    def __post_init__(self) -> None:
        """Check that the autoencoder has codes and that the image size fits it.

        Raises:
            UserError: the autoencoder is not a VQModel, or `pixels` is not a multiple of its
                downscale factor.
        """
        shape = self.autoencoder.architecture
        if shape.kind != "VQModel":
            raise UserError(
                f"codec.name='vq' needs a VQModel, but codec.path has an {shape.kind}. Set "
                "codec.name='vae', or give the folder of a VQModel."
            )
        if self.pixels % shape.downscale_factor:
            raise UserError(
                f"codec.pixels={self.pixels} is not a multiple of {shape.downscale_factor}, the "
                "autoencoder's downscale factor (pixels per code)."
            )

    @property
    def grid(self) -> tuple[int, int]:
        """Rows and columns of codes of a square image."""
        return (self.pixels // self.autoencoder.architecture.downscale_factor,) * 2

    @property
    def num_codes(self) -> int:
        """The size of the codebook."""
        return self.autoencoder.architecture.num_vq_embeddings

    def encode(self, pixels: np.ndarray) -> np.ndarray:
        """Encode a uint8 image `[H W 3]` as codes, int `[N]`.

        Raises:
            UserError: height or width of the image is not a multiple of the pixels of a slot.
        """
        base.check_image_size(pixels, self.pixels // self.grid[0])
        return self.autoencoder.encode_codes(pixels[None])[0].reshape(-1)

    def from_stored(self, values: np.ndarray) -> np.ndarray:
        """Convert stored codes, float32 `[h w 1]`, to int `[N]`."""
        return np.rint(values).astype(np.int32).reshape(-1)

    def decode(self, codes: np.ndarray, grid: tuple[int, int] | None = None) -> np.ndarray:
        """Decode codes `[... N]` to images, uint8 `[... H W 3]`.

        `grid` is the rows and columns of codes; None for square images.
        """
        flat = codes.reshape(-1, *(grid or self.grid))
        pictures = self.autoencoder.decode_codes(flat)
        return pictures.reshape(*codes.shape[:-1], *pictures.shape[1:])


@dataclasses.dataclass(frozen=True, eq=False)
class LatentCodec:
    """Images as patches of normalized latents: (latent - mean) / (std * divisor).

    Attributes:
        autoencoder: the model that encodes images and decodes latents.
        pixels: height and width of a square image, in pixels.
        patch_size: height and width of a slot, in latents.
        mean, std: mean and standard deviation of the data set's latents, per channel.
        divisor: additional divisor of normalized latents: 1 gives a std of 1, and 2 a std of 0.5.
    """

    autoencoder: Autoencoder
    pixels: int
    patch_size: int
    mean: tuple[float, ...]
    std: tuple[float, ...]
    divisor: float
    num_codes = 0

    def __post_init__(self) -> None:
        """Check that image, patch and autoencoder fit each other.

        Raises:
            UserError: the autoencoder does not have 3 channels, or `pixels` is not a multiple of
                the pixels in a slot.
        """
        shape = self.autoencoder.architecture
        if (shape.in_channels, shape.out_channels) != (3, 3):
            raise UserError(
                f"codec.path: the autoencoder has in_channels={shape.in_channels} and "
                f"out_channels={shape.out_channels}; images have 3 channels. Give another one."
            )
        unit = shape.downscale_factor * self.patch_size
        if self.patch_size < 1 or self.pixels % unit:
            raise UserError(
                f"codec.pixels={self.pixels} is not a multiple of {unit}, the pixels of a slot: "
                f"{shape.downscale_factor} pixels per latent of the autoencoder, times "
                f"codec.patch_size={self.patch_size}."
            )

    @property
    def grid(self) -> tuple[int, int]:
        """Rows and columns of slots of a square image."""
        return (
            self.pixels // (self.autoencoder.architecture.downscale_factor * self.patch_size),
        ) * 2

    @property
    def channels(self) -> int:
        """The number of values in a slot, C."""
        return self.autoencoder.architecture.channels * self.patch_size**2

    def encode(self, pixels: np.ndarray) -> np.ndarray:
        """Encode a uint8 image `[H W 3]` as slots, float32 `[N C]`.

        Raises:
            UserError: height or width of the image is not a multiple of the pixels of a slot.
        """
        base.check_image_size(pixels, self.pixels // self.grid[0])
        return self.from_stored(self.autoencoder.encode(pixels[None])[0])

    def from_stored(self, values: np.ndarray) -> np.ndarray:
        """Convert latents of the autoencoder, `[h w c]`, to slots, float32 `[N C]`."""
        scaled = (values - np.float32(self.mean)) / (np.float32(self.std) * self.divisor)
        return to_patches(scaled.astype(np.float32), self.patch_size)

    def decode(self, latents: np.ndarray, grid: tuple[int, int] | None = None) -> np.ndarray:
        """Decode slots `[... N C]` to images, uint8 `[... H W 3]`.

        `grid` is the rows and columns of slots; None for square images.
        """
        values = from_patches(np.asarray(latents, np.float32), grid or self.grid, self.patch_size)
        values = values * np.float32(self.std) * self.divisor + np.float32(self.mean)
        flat = values.reshape(-1, *values.shape[-3:]).astype(np.float32)
        pictures = self.autoencoder.decode(flat)
        return pictures.reshape(*values.shape[:-3], *pictures.shape[1:])
