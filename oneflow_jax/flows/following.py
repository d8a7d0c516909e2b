"""What comes next: the targets of models that write from left to right."""

import jax.numpy as jnp

from oneflow_jax.canvas import Canvas
from oneflow_jax.shapes import Array, Bool, Int


def next_words(canvas: Canvas) -> tuple[Int[Array, "L"], Bool[Array, "L"]]:
    """For each slot the token of the next one, and whether that is a word that is to be learned.

    The row lies in reading order. The last slot of a picture tells the word after it; what comes
    after the slot before a picture is no word.
    """
    last = jnp.arange(canvas.ids.shape[0]) == canvas.ids.shape[0] - 1
    same = canvas.segment == jnp.roll(canvas.segment, -1)
    word = jnp.roll(canvas.is_text & canvas.free, -1)
    return jnp.roll(canvas.ids, -1), word & same & ~last
