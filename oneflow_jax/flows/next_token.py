"""Next-token targets of autoregressive models."""

import jax.numpy as jnp

from oneflow_jax.canvas import Canvas
from oneflow_jax.shapes import Array, Bool, Int


def next_text_targets(canvas: Canvas) -> tuple[Int[Array, "L"], Bool[Array, "L"]]:
    """Return for each slot the token of the next slot, and a mask of slots that predict text.

    The row must be in reading order. The last slot of an image predicts the text token after the
    image. The slot before an image predicts a patch, so it is not in the mask.
    """
    return jnp.roll(canvas.ids, -1), _next_is_scored(canvas, canvas.is_text)


def next_image_token_mask(canvas: Canvas) -> Bool[Array, "L"]:
    """Return a mask of the slots whose next slot is an image token to be generated."""
    return _next_is_scored(canvas, canvas.is_image)


def _next_is_scored(canvas: Canvas, candidates: Bool[Array, "L"]) -> Bool[Array, "L"]:
    """Return a mask of slots whose next slot is a candidate, in the same document and not given."""
    last = jnp.arange(canvas.ids.shape[0]) == canvas.ids.shape[0] - 1
    same = canvas.segment == jnp.roll(canvas.segment, -1)
    return jnp.roll(candidates & canvas.to_generate, -1) & same & ~last
