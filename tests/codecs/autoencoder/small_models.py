"""Small autoencoders whose parameters are all nonzero."""

import functools

import jax
import jax.numpy as jnp
import numpy as np

from oneflow_jax.codecs.autoencoder import models
from oneflow_jax.codecs.autoencoder.autoencoder import Autoencoder
from oneflow_jax.codecs.autoencoder.config import Architecture

KL = Architecture(
    kind="AutoencoderKL", block_out_channels=(4, 8), norm_num_groups=2, latent_channels=3
)
VQ = Architecture(
    kind="VQModel",
    block_out_channels=(4, 8),
    norm_num_groups=2,
    latent_channels=3,
    num_vq_embeddings=11,
    vq_embed_dim=2,
)


def random_params(architecture, seed=0):
    """Return normally distributed parameters with std 0.3."""
    draws = np.random.default_rng(seed)
    return jax.tree.map(
        lambda leaf: jnp.asarray(0.3 * draws.standard_normal(leaf.shape), jnp.float32),
        models.param_shapes(architecture),
    )


def random_pixels(batch, height, width):
    return np.random.default_rng(1).uniform(-1, 1, (batch, height, width, 3)).astype(np.float32)


@functools.cache
def jit_method(architecture, name, dtype=jnp.float32):
    """Return the jitted method `name` of the model: (params, x) -> result."""
    module = models.make_model(architecture, dtype)
    return jax.jit(lambda params, x: module.apply({"params": params}, x, method=name))


@functools.cache
def random_autoencoder(architecture, seed=0):
    """Return a cached autoencoder with random parameters; callers must not modify it."""
    return Autoencoder(architecture, random_params(architecture, seed))


def random_images(count, height=8, width=8, seed=2):
    """Return random uint8 images."""
    draws = np.random.default_rng(seed)
    return draws.integers(0, 256, (count, height, width, 3)).astype(np.uint8)
