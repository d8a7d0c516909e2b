"""Builds the network of an `Architecture`, and lists the shapes of its parameters."""

import jax
import jax.numpy as jnp
from jax.typing import DTypeLike

from oneflow_jax.codecs.autoencoder.config import Architecture
from oneflow_jax.codecs.autoencoder.kl import AutoencoderKL
from oneflow_jax.codecs.autoencoder.vq import VQModel
from oneflow_jax.shapes import PyTree

Model = AutoencoderKL | VQModel


def make_model(architecture: Architecture, dtype: DTypeLike = jnp.float32) -> Model:
    """Return a linen module that has the architecture and computes in `dtype`."""
    kinds = {"AutoencoderKL": AutoencoderKL, "VQModel": VQModel}
    return kinds[architecture.kind](architecture, dtype)


def param_shapes(architecture: Architecture) -> PyTree:
    """Return the shape and the data type of each parameter, without allocating memory."""
    side = architecture.downscale_factor  # The smallest image has one latent.
    pixels = jax.ShapeDtypeStruct((1, side, side, architecture.in_channels), jnp.float32)
    return jax.eval_shape(make_model(architecture).init, jax.random.key(0), pixels)["params"]
