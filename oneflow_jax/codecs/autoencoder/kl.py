"""`AutoencoderKL`, the VAE of the Stable Diffusion family: each latent is a Gaussian.

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
    """An independent normal distribution for each latent."""

    mean: Float[Array, "B h w C"]
    log_variance: Float[Array, "B h w C"]

    def sample(self, key: Key[Array, ""]) -> Float[Array, "B h w C"]:
        """Draw a sample."""
        noise = jax.random.normal(key, self.mean.shape, self.mean.dtype)
        return self.mean + jnp.exp(0.5 * self.log_variance) * noise

    def kl(self) -> Float[Array, "B h w C"]:
        """Return KL(this || N(0, 1)) of each latent, in nats."""
        variance = jnp.exp(self.log_variance)
        return 0.5 * (self.mean**2 + variance - 1 - self.log_variance)


class AutoencoderKL(nn.Module):
    """Variational autoencoder with a KL penalty.

    Attributes:
        architecture: architecture of the network.
        dtype: data type of the computation; parameters are float32.
    """

    architecture: Architecture
    dtype: DTypeLike = jnp.float32

    def setup(self) -> None:
        """Create the submodules, named as in diffusers."""
        channels = self.architecture.latent_channels
        self.encoder = encoder_decoder.Encoder(self.architecture, 2 * channels, self.dtype)
        self.decoder = encoder_decoder.Decoder(self.architecture, self.dtype)
        if self.architecture.use_quant_conv:
            self.quant_conv = layers.conv(2 * channels, self.dtype, None, kernel_size=1)
        if self.architecture.use_post_quant_conv:
            self.post_quant_conv = layers.conv(channels, self.dtype, None, kernel_size=1)

    def encode(self, pixels: Float[Array, "B H W 3"]) -> DiagonalGaussian:
        """Encode pixels in [-1, 1] as a distribution over latents."""
        moments = self.encoder(pixels)
        if self.architecture.use_quant_conv:
            moments = self.quant_conv(moments)
        mean, log_variance = jnp.split(moments.astype(jnp.float32), 2, axis=-1)
        return DiagonalGaussian(mean=mean, log_variance=jnp.clip(log_variance, -30.0, 20.0))

    def decode(self, latents: Float[Array, "B h w C"]) -> Float[Array, "B H W 3"]:
        """Decode unnormalized latents, e.g. a sample of `encode`, to pixels near [-1, 1]."""
        if self.architecture.use_post_quant_conv:
            latents = self.post_quant_conv(latents)
        return self.decoder(latents).astype(jnp.float32)

    def to_latents(self, pixels: Float[Array, "B H W 3"]) -> Float[Array, "B h w C"]:
        """Encode pixels in [-1, 1] as the mean of the latents.

        If the architecture has `latents_mean` and `latents_std`, the latents are normalized:
        (z - mean) * scaling / std.
        """
        latents = self.encode(pixels).mean
        if self.architecture.latents_mean is None:
            return latents
        mean, std = self._latent_statistics()
        return (latents - mean) * self.architecture.scaling_factor / std

    def from_latents(self, latents: Float[Array, "B h w C"]) -> Float[Array, "B H W 3"]:
        """Decode the latents of `to_latents`. The pixels are approximately in [-1, 1]."""
        if self.architecture.latents_mean is not None:
            mean, std = self._latent_statistics()
            latents = latents * std / self.architecture.scaling_factor + mean
        return self.decode(latents)

    def _latent_statistics(self) -> tuple[Float[Array, "1 1 1 C"], Float[Array, "1 1 1 C"]]:
        mean, std = self.architecture.latents_mean, self.architecture.latents_std
        return jnp.float32(mean).reshape(1, 1, 1, -1), jnp.float32(std).reshape(1, 1, 1, -1)

    def __call__(self, pixels: Float[Array, "B H W 3"]) -> Float[Array, "B H W 3"]:
        """Reconstruct images from the mean of their latents."""
        return self.from_latents(self.to_latents(pixels))
