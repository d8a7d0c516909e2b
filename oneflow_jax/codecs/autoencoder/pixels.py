"""Converts pixels between uint8, 0 to 255, and the range of autoencoders, -1 to 1."""

import jax.numpy as jnp

from oneflow_jax.shapes import Array, Float, UInt8


def from_uint8(images: UInt8[Array, "*b H W 3"]) -> Float[Array, "*b H W 3"]:
    """Convert uint8 pixels to float32 in [-1, 1]."""
    return jnp.asarray(images, jnp.float32) / 127.5 - 1


def to_uint8(values: Float[Array, "*b H W 3"]) -> UInt8[Array, "*b H W 3"]:
    """Convert pixels in [-1, 1] to uint8, and clip values outside of this range."""
    return jnp.clip(jnp.round((values + 1) * 127.5), 0, 255).astype(jnp.uint8)
