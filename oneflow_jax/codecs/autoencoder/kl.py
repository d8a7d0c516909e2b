"""`AutoencoderKL`: pictures as Gaussians over latents, the Stable Diffusion family's codec.

Rombach et al., High-Resolution Image Synthesis with Latent Diffusion Models, 2022, section 3.1.
"""

import flax.linen as nn
import flax.struct
import jax
import jax.numpy as jnp
from jax.typing import DTypeLike

from oneflow_jax.codecs.autoencoder import encoder_decoder, layers
from oneflow_jax.codecs.autoencoder.config import Architecture
from oneflow_jax.shapes import Array, Float, Key


@flax.struct.dataclass
class DiagonalGaussian:
    """A normal distribution for each latent: its mean, and the logarithm of its variance."""

    mean: Float[Array, "B h w C"]
    log_variance: Float[Array, "B h w C"]

    def sample(self, key: Key[Array, ""]) -> Float[Array, "B h w C"]:
        """One draw."""
        noise = jax.random.normal(key, self.mean.shape, self.mean.dtype)
        return self.mean + jnp.exp(0.5 * self.log_variance) * noise

    def divergence(self) -> Float[Array, "B h w C"]:
        """KL(this || standard normal), in nats, latent by latent."""
        variance = jnp.exp(self.log_variance)
        return 0.5 * (self.mean**2 + variance - 1 - self.log_variance)


class AutoencoderKL(nn.Module):
    """Encoder, bottleneck and decoder.

    Attributes:
        shape: its architecture.
        dtype: to compute in; parameters are float32.
    """

    shape: Architecture
    dtype: DTypeLike = jnp.float32

    def setup(self) -> None:
        """The parameters, named as diffusers names them."""
        channels = self.shape.latent_channels
        self.encoder = encoder_decoder.Encoder(self.shape, 2 * channels, self.dtype)
        self.decoder = encoder_decoder.Decoder(self.shape, self.dtype)
        if self.shape.use_quant_conv:
            self.quant_conv = layers.conv(2 * channels, self.dtype, None, kernel_size=1)
        if self.shape.use_post_quant_conv:
            self.post_quant_conv = layers.conv(channels, self.dtype, None, kernel_size=1)

    def encode(self, pixels: Float[Array, "B H W 3"]) -> DiagonalGaussian:
        """What the latents may be; pixels are from -1 to 1."""
        moments = self.encoder(pixels)
        if self.shape.use_quant_conv:
            moments = self.quant_conv(moments)
        mean, log_variance = jnp.split(moments.astype(jnp.float32), 2, axis=-1)
        return DiagonalGaussian(mean=mean, log_variance=jnp.clip(log_variance, -30.0, 20.0))

    def decode(self, latents: Float[Array, "B h w C"]) -> Float[Array, "B H W 3"]:
        """Pixels, about -1 to 1, of latents as `encode` gives them, unscaled."""
        if self.shape.use_post_quant_conv:
            latents = self.post_quant_conv(latents)
        return self.decoder(latents).astype(jnp.float32)

    def encoded(self, pixels: Float[Array, "B H W 3"]) -> Float[Array, "B h w C"]:
        """The likeliest latents."""
        return self.encode(pixels).mean

    def decoded(self, latents: Float[Array, "B h w C"]) -> Float[Array, "B H W 3"]:
        """The pictures of latents."""
        return self.decode(latents)

    def __call__(self, pixels: Float[Array, "B H W 3"]) -> Float[Array, "B H W 3"]:
        """The picture that its likeliest latents decode to."""
        return self.decoded(self.encoded(pixels))
