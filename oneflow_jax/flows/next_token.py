"""Next-token targets of autoregressive models."""

import jax.numpy as jnp

from oneflow_jax.canvas import Canvas
from oneflow_jax.shapes import Array, Bool, Int


def next_text_targets(canvas: Canvas) -> tuple[Int[Array, "L"], Bool[Array, "L"]]:
    """Return for each slot the next slot's token, and a mask of the scored text targets.

    The row must be in reading order. The target of the last slot of an image is the text token
    after the image. The slot before an image is not scored.
    """
    return jnp.roll(canvas.ids, -1), _next_is_scored(canvas, canvas.is_text)


def next_image_token_mask(canvas: Canvas) -> Bool[Array, "L"]:
    """Return a mask of the slots whose next slot is an image token that is scored."""
    return _next_is_scored(canvas, canvas.is_image)


def _next_is_scored(canvas: Canvas, candidates: Bool[Array, "L"]) -> Bool[Array, "L"]:
    """Return a mask of slots whose next slot is a candidate, not given and in the same document."""
    last = jnp.arange(canvas.ids.shape[0]) == canvas.ids.shape[0] - 1
    same = canvas.segment == jnp.roll(canvas.segment, -1)
    return jnp.roll(candidates & canvas.to_generate, -1) & same & ~last
