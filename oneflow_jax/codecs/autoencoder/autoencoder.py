"""A trained autoencoder in use: pictures in, latents out, and back."""

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
"""Pictures at a time, at most; fewer are filled up to a power of 2, so that few programs do."""

MAX_PIXELS = 2**22
"""Pixels at a time, about: 64 pictures of 256 x 256, 16 of 512 x 512."""


class Autoencoder:
    """Architecture and parameters, on the host until they are needed; picklable."""

    def __init__(self, shape: Architecture, params: PyTree) -> None:
        """Keeps the parameters as numpy arrays: a process that only carries them uses no device."""
        self.shape = shape
        self.params = jax.tree.map(np.asarray, params)

    @classmethod
    def load(cls, folder: epath.Path) -> "Autoencoder":
        """The autoencoder in a folder in the layout of diffusers.

        Raises:
            UserError: there is none, or a file is wrong; see `diffusers_weights.load`.
        """
        return cls(*diffusers_weights.load(folder))

    def __getstate__(self) -> tuple[Architecture, PyTree]:
        # Programs are compiled anew by whoever unpickles.
        return self.shape, self.params

    def __setstate__(self, state: tuple[Architecture, PyTree]) -> None:
        self.shape, self.params = state

    @functools.cached_property
    def fingerprint(self) -> str:
        """What tells it from any other autoencoder."""
        return diffusers_weights.fingerprint(self.shape, self.params)

    def encode(self, pictures: UInt8[np.ndarray, "n H W 3"]) -> Float[np.ndarray, "n h w C"]:
        """The mean of a KL model's latents, or the vectors of a VQModel's codes; float32.

        Raises:
            UserError: height or width is no multiple of `shape.factor`.
        """

        def some(shown: UInt8[np.ndarray, "B H W 3"]) -> Array:
            values = pixels.from_uint8(shown)
            return tiling.encode(self._encoder, values, self.shape.factor, tiling.TILE_SIZE)

        return _map_batches(some, pictures, self._at_once(pictures.shape[1:3]))

    def decode(self, latents: Float[np.ndarray, "n h w C"]) -> UInt8[np.ndarray, "n H W 3"]:
        """The pictures of latents; vectors beside the codes of a VQModel are drawn to them."""

        def some(vectors: Float[np.ndarray, "B h w C"]) -> Array:
            values = jnp.asarray(vectors)
            values = tiling.decode(self._decoder, values, self.shape.factor, tiling.TILE_SIZE)
            return pixels.to_uint8(values)

        height, width = (self.shape.factor * side for side in latents.shape[1:3])
        return _map_batches(some, latents, self._at_once((height, width)))

    def codes(self, pictures: UInt8[np.ndarray, "n H W 3"]) -> Int[np.ndarray, "n h w"]:
        """The codes of a VQModel, each from 0 to `shape.num_vq_embeddings` - 1."""

        def some(shown: UInt8[np.ndarray, "B H W 3"]) -> Array:
            return self._coder(pixels.from_uint8(shown))

        return _map_batches(some, pictures, self._at_once(pictures.shape[1:3]))

    def decode_codes(self, codes: Int[np.ndarray, "n h w"]) -> UInt8[np.ndarray, "n H W 3"]:
        """The pictures of a VQModel's codes."""
        table = self.params["quantize"]["embedding"]["embedding"]
        return self.decode(table[codes])

    def _at_once(self, size: tuple[int, int]) -> int:
        """A power of 2 of pictures of that height and width."""
        return 1 << min(MAX_BATCH, max(1, MAX_PIXELS // (size[0] * size[1]))).bit_length() - 1

    @functools.cached_property
    def _device_params(self) -> PyTree:
        return jax.device_put(self.params)

    @functools.cached_property
    def _encoder(self) -> Callable[[Array], Array]:
        return self._jit_method("encoded")

    @functools.cached_property
    def _decoder(self) -> Callable[[Array], Array]:
        return self._jit_method("decoded")

    @functools.cached_property
    def _coder(self) -> Callable[[Array], Array]:
        return self._jit_method("encode")

    def _jit_method(self, method: str) -> Callable[[Array], Array]:
        run = jax.jit(functools.partial(_apply_method, models.make_model(self.shape), method))
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
