"""`VQModel`, which encodes images as grids of codes from a learned codebook.

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
    """The learned vector of each code.

    Attributes:
        num_codes: number of codes, K.
        dim: number of channels of a vector, C.
    """

    num_codes: int
    dim: int

    def setup(self) -> None:
        """Create the parameter `embedding`, `[K C]`."""
        start = nn.initializers.variance_scaling(1.0, "fan_out", "uniform")
        self.embedding = nn.Embed(self.num_codes, self.dim, embedding_init=start)

    def nearest_codes(self, vectors: Float[Array, "B h w C"]) -> Int[Array, "B h w"]:
        """Return the code with the least Euclidean distance to each vector."""
        table = self.embedding.embedding
        # A score is -|v - e|^2 / 2 without its term in |v|^2, which is equal for all codes.
        scores = vectors @ table.T - 0.5 * jnp.sum(table**2, axis=-1)[None, None, None]
        return jnp.argmax(scores, axis=-1)

    def __call__(self, codes: Int[Array, "B h w"]) -> Float[Array, "B h w C"]:
        """Return the vector of each code."""
        return self.embedding(codes)


class VQModel(nn.Module):
    """Autoencoder with a vector-quantized bottleneck.

    Attributes:
        architecture: architecture of the network.
        dtype: data type of the computation; parameters and distances are float32.
    """

    architecture: Architecture
    dtype: DTypeLike = jnp.float32

    def setup(self) -> None:
        """Create the submodules, named as in diffusers."""
        shape = self.architecture
        self.encoder = encoder_decoder.Encoder(shape, shape.latent_channels, self.dtype)
        self.decoder = encoder_decoder.Decoder(shape, self.dtype)
        self.quantize = Codebook(shape.num_vq_embeddings, shape.channels)
        self.quant_conv = layers.conv(shape.channels, self.dtype, None, kernel_size=1)
        self.post_quant_conv = layers.conv(shape.latent_channels, self.dtype, None, kernel_size=1)

    def encode_continuous(self, pixels: Float[Array, "B H W 3"]) -> Float[Array, "B h w C"]:
        """Encode pixels in [-1, 1] as vectors before quantization."""
        return self.quant_conv(self.encoder(pixels)).astype(jnp.float32)

    def nearest_codes(self, vectors: Float[Array, "B h w C"]) -> Int[Array, "B h w"]:
        """Return the code with the least distance to each vector."""
        return self.quantize.nearest_codes(vectors)

    def encode(self, pixels: Float[Array, "B H W 3"]) -> Int[Array, "B h w"]:
        """Encode pixels in [-1, 1] as codes."""
        return self.nearest_codes(self.encode_continuous(pixels))

    def lookup(self, codes: Int[Array, "B h w"]) -> Float[Array, "B h w C"]:
        """Return the vector of each code."""
        return self.quantize(codes)

    def decode(self, vectors: Float[Array, "B h w C"]) -> Float[Array, "B H W 3"]:
        """Decode code vectors to pixels approximately in [-1, 1]."""
        return self.decoder(self.post_quant_conv(vectors)).astype(jnp.float32)

    def to_latents(self, pixels: Float[Array, "B H W 3"]) -> Float[Array, "B h w C"]:
        """Encode pixels in [-1, 1] as codes, and return the vector of each code."""
        return self.lookup(self.encode(pixels))

    def from_latents(self, latents: Float[Array, "B h w C"]) -> Float[Array, "B H W 3"]:
        """Replace each vector by the vector of its nearest code, and decode the result."""
        return self.decode(self.lookup(self.nearest_codes(latents)))

    def __call__(self, pixels: Float[Array, "B H W 3"]) -> Float[Array, "B H W 3"]:
        """Reconstruct images from their codes."""
        return self.decode(self.to_latents(pixels))
