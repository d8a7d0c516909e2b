"""What comes next: the targets of models that write from left to right."""

import jax.numpy as jnp

from oneflow_jax.canvas import Canvas
from oneflow_jax.shapes import Array, Bool, Int


def next_text_targets(canvas: Canvas) -> tuple[Int[Array, "L"], Bool[Array, "L"]]:
    """For each slot the token of the next one, and whether that is a word that is to be learned.

    The row lies in reading order. The last slot of a picture tells the word after it; what comes
    after the slot before a picture is no word.
    """
    return jnp.roll(canvas.ids, -1), _next_is_scored(canvas, canvas.is_text)


def next_image_token_mask(canvas: Canvas) -> Bool[Array, "L"]:
    """For each slot whether the next one is a picture's code that is to be learned."""
    return _next_is_scored(canvas, canvas.is_image)


def _next_is_scored(canvas: Canvas, candidates: Bool[Array, "L"]) -> Bool[Array, "L"]:
    """True where the next slot is of this kind, of the same document, and not given."""
    last = jnp.arange(canvas.ids.shape[0]) == canvas.ids.shape[0] - 1
    same = canvas.segment == jnp.roll(canvas.segment, -1)
    return jnp.roll(candidates & canvas.free, -1) & same & ~last
