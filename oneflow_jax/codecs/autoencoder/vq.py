"""`VQModel`: pictures as grids of codes from a learned codebook.

Van den Oord et al., Neural Discrete Representation Learning, 2017; Esser et al., Taming
Transformers for High-Resolution Image Synthesis, 2021, section 3.1.
"""

import flax.linen as nn
import jax.numpy as jnp
from jax.typing import DTypeLike

from oneflow_jax.codecs.autoencoder import encoder_decoder, layers
from oneflow_jax.codecs.autoencoder.config import Architecture
from oneflow_jax.shapes import Array, Float, Int


class Codebook(nn.Module):
    """The codes as vectors.

    Attributes:
        codes: how many, K.
        width: numbers in each, C.
    """

    codes: int
    width: int

    def setup(self) -> None:
        """The parameters: `embedding`, `[K C]`."""
        start = nn.initializers.variance_scaling(1.0, "fan_out", "uniform")
        self.embedding = nn.Embed(self.codes, self.width, embedding_init=start)

    def nearest(self, vectors: Float[Array, "B h w C"]) -> Int[Array, "B h w"]:
        """The code at the least Euclidean distance from each vector."""
        table = self.embedding.embedding
        # |v - e|^2 up to |v|^2, which is the same for all codes.
        scores = vectors @ table.T - 0.5 * jnp.sum(table**2, axis=-1)[None, None, None]
        return jnp.argmax(scores, axis=-1)

    def __call__(self, codes: Int[Array, "B h w"]) -> Float[Array, "B h w C"]:
        """The vector of each code."""
        return self.embedding(codes)


class VQModel(nn.Module):
    """Encoder, codebook and decoder.

    Attributes:
        shape: its architecture.
        dtype: to compute in; parameters and distances are float32.
    """

    shape: Architecture
    dtype: DTypeLike = jnp.float32

    def setup(self) -> None:
        """The parameters, named as diffusers names them."""
        shape = self.shape
        self.encoder = encoder_decoder.Encoder(shape, shape.latent_channels, self.dtype)
        self.decoder = encoder_decoder.Decoder(shape, self.dtype)
        self.quantize = Codebook(shape.num_vq_embeddings, shape.channels)
        self.quant_conv = layers.conv(shape.channels, self.dtype, None, kernel_size=1)
        self.post_quant_conv = layers.conv(shape.latent_channels, self.dtype, None, kernel_size=1)

    def vectors(self, pixels: Float[Array, "B H W 3"]) -> Float[Array, "B h w C"]:
        """What is to be replaced by the nearest code; pixels are from -1 to 1."""
        return self.quant_conv(self.encoder(pixels)).astype(jnp.float32)

    def nearest(self, vectors: Float[Array, "B h w C"]) -> Int[Array, "B h w"]:
        """The code at the least distance from each vector."""
        return self.quantize.nearest(vectors)

    def encode(self, pixels: Float[Array, "B H W 3"]) -> Int[Array, "B h w"]:
        """The codes of pictures."""
        return self.nearest(self.vectors(pixels))

    def lookup(self, codes: Int[Array, "B h w"]) -> Float[Array, "B h w C"]:
        """The vectors of codes."""
        return self.quantize(codes)

    def decode(self, vectors: Float[Array, "B h w C"]) -> Float[Array, "B H W 3"]:
        """Pixels, about -1 to 1, of the vectors of codes."""
        return self.decoder(self.post_quant_conv(vectors)).astype(jnp.float32)

    def encoded(self, pixels: Float[Array, "B H W 3"]) -> Float[Array, "B h w C"]:
        """The vectors of a picture's codes."""
        return self.lookup(self.encode(pixels))

    def decoded(self, latents: Float[Array, "B h w C"]) -> Float[Array, "B H W 3"]:
        """The pictures of vectors, each drawn to its nearest code."""
        return self.decode(self.lookup(self.nearest(latents)))

    def __call__(self, pixels: Float[Array, "B H W 3"]) -> Float[Array, "B H W 3"]:
        """The picture that its codes decode to."""
        return self.decode(self.encoded(pixels))
