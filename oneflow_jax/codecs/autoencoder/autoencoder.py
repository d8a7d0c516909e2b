"""Inference with a trained autoencoder: numpy images to latents or codes, and back."""

import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from etils import epath
from jaxtyping import Float, Int, UInt8

from oneflow_jax.codecs.autoencoder import diffusers_weights, models, pixels, tiling
from oneflow_jax.codecs.autoencoder.config import Architecture
from oneflow_jax.shapes import Array, PyTree

MAX_BATCH = 64
"""Maximum number of images in a batch.

A smaller batch is padded to the next power of 2, so JAX compiles only a few programs.
"""

MAX_PIXELS = 2**22
"""Maximum number of pixels in a batch: 64 images of 256 x 256, or 16 of 512 x 512."""


class Autoencoder:
    """A trained autoencoder: architecture and parameters.

    The object can be pickled. The parameters are copied to the device at the first call.
    """

    def __init__(self, architecture: Architecture, params: PyTree) -> None:
        """Store the parameters as NumPy arrays, so unpickling does not use a device."""
        self.architecture = architecture
        self.params = jax.tree.map(np.asarray, params)

    @classmethod
    def load(cls, folder: epath.Path) -> "Autoencoder":
        """Load an autoencoder from a folder in the layout of diffusers.

        Raises:
            UserError: a file is missing or wrong; see `diffusers_weights.load`.
        """
        return cls(*diffusers_weights.load(folder))

    def save(self, folder: epath.Path) -> None:
        """Write the autoencoder to a folder in the layout of diffusers, which `load` reads."""
        diffusers_weights.save(folder, self.architecture, self.params)

    def __getstate__(self) -> tuple[Architecture, PyTree]:
        # Compiled programs are not pickled. The process that unpickles compiles them again.
        return self.architecture, self.params

    def __setstate__(self, state: tuple[Architecture, PyTree]) -> None:
        self.architecture, self.params = state

    @functools.cached_property
    def fingerprint(self) -> str:
        """A hash of the architecture and the parameters; see `diffusers_weights.fingerprint`."""
        return diffusers_weights.fingerprint(self.architecture, self.params)

    def encode(self, images: UInt8[np.ndarray, "n H W 3"]) -> Float[np.ndarray, "n h w C"]:
        """Encode images as latents, float32.

        Returns:
            The mean of the latents of an AutoencoderKL, or the code vectors of a VQModel.

        Raises:
            UserError: height or width is not a multiple of `architecture.downscale_factor`.
        """

        def encode_batch(batch: UInt8[np.ndarray, "B H W 3"]) -> Array:
            values = pixels.from_uint8(batch)
            return tiling.encode(
                self._encoder, values, self.architecture.downscale_factor, tiling.TILE_SIZE
            )

        return _map_batches(encode_batch, images, self._max_batch(images.shape[1:3]))

    def decode(self, latents: Float[np.ndarray, "n h w C"]) -> UInt8[np.ndarray, "n H W 3"]:
        """Decode latents to images. A VQModel first replaces each vector by its nearest code."""

        def decode_batch(vectors: Float[np.ndarray, "B h w C"]) -> Array:
            values = jnp.asarray(vectors)
            values = tiling.decode(
                self._decoder, values, self.architecture.downscale_factor, tiling.TILE_SIZE
            )
            return pixels.to_uint8(values)

        height, width = (self.architecture.downscale_factor * side for side in latents.shape[1:3])
        return _map_batches(decode_batch, latents, self._max_batch((height, width)))

    def encode_codes(self, images: UInt8[np.ndarray, "n H W 3"]) -> Int[np.ndarray, "n h w"]:
        """Encode images as codes of a VQModel, 0 to `architecture.num_vq_embeddings` - 1."""

        def encode_batch(batch: UInt8[np.ndarray, "B H W 3"]) -> Array:
            return self._code_encoder(pixels.from_uint8(batch))

        return _map_batches(encode_batch, images, self._max_batch(images.shape[1:3]))

    def decode_codes(self, codes: Int[np.ndarray, "n h w"]) -> UInt8[np.ndarray, "n H W 3"]:
        """Decode codes of a VQModel to images."""
        table = self.params["quantize"]["embedding"]["embedding"]
        return self.decode(table[codes])

    def _max_batch(self, image_size: tuple[int, int]) -> int:
        """Return the maximum batch size for images of this height and width, a power of 2."""
        return (
            1
            << min(MAX_BATCH, max(1, MAX_PIXELS // (image_size[0] * image_size[1]))).bit_length()
            - 1
        )

    @functools.cached_property
    def _device_params(self) -> PyTree:
        return jax.device_put(self.params)

    @functools.cached_property
    def _encoder(self) -> Callable[[Array], Array]:
        return self._jit_method("to_latents")

    @functools.cached_property
    def _decoder(self) -> Callable[[Array], Array]:
        return self._jit_method("from_latents")

    @functools.cached_property
    def _code_encoder(self) -> Callable[[Array], Array]:
        return self._jit_method("encode")

    def _jit_method(self, method: str) -> Callable[[Array], Array]:
        run = jax.jit(
            functools.partial(_apply_method, models.make_model(self.architecture), method)
        )
        return lambda x: run(self._device_params, x)


def _apply_method(model: models.Model, method: str, params: PyTree, x: Array) -> Array:
    return model.apply({"params": params}, x, method=method)


def _map_batches(
    function: Callable[[np.ndarray], Array], rows: np.ndarray, max_batch: int
) -> np.ndarray:
    pieces = []
    for first in range(0, len(rows), max_batch):
        chosen = rows[first : first + max_batch]
        size = 1 << (len(chosen) - 1).bit_length()
        filled = np.resize(chosen, (size, *chosen.shape[1:]))
        pieces.append(np.asarray(function(filled))[: len(chosen)])
    return np.concatenate(pieces)
