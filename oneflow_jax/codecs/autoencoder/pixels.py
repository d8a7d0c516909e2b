"""Pixels as autoencoders see them, from -1 to 1, and as people do, from 0 to 255."""

import jax.numpy as jnp

from oneflow_jax.shapes import Array, Float, UInt8


def from_uint8(images: UInt8[Array, "*b H W 3"]) -> Float[Array, "*b H W 3"]:
    """Pixels from -1 to 1."""
    return jnp.asarray(images, jnp.float32) / 127.5 - 1


def to_uint8(values: Float[Array, "*b H W 3"]) -> UInt8[Array, "*b H W 3"]:
    """Pixels from 0 to 255 of such as `from_uint8` gives; what is beyond is clipped."""
    return jnp.clip(jnp.round((values + 1) * 127.5), 0, 255).astype(jnp.uint8)
