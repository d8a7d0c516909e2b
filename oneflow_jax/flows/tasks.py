"""Which: the slots of each document that are corrupted in training.

An edit flow starts from a corrupted version of the document, not from noise alone. One trained
model serves every task because each training document draws which part of itself it must make:

    joint           all of it                              words and pictures at once
    text_to_image   its pictures                           the words are given
    image_to_text   its words                              the pictures are given
    spans           some of its text runs and pictures     interleaved documents with holes
    scattered       some tokens and pictures               infilling and revision

What is not corrupted is shown clean, with clock t=1, and is not scored. For classifier-free
guidance some documents of `text_to_image` have their words *dropped*: shown at t=0, as pure
noise, and not scored; and some of `image_to_text` their pictures.
"""

import dataclasses

import flax.struct
import jax
import jax.numpy as jnp

from oneflow_jax.canvas import Canvas
from oneflow_jax.shapes import Array, Bool, Float, Int, Key

NAMES = ("joint", "text_to_image", "image_to_text", "spans", "scattered")


@flax.struct.dataclass
class TaskDraw:
    """What one training row must make; `scored` and `dropped` never hold together.

    Attributes:
        scored: True where the slot is corrupted and its clean content is asked for.
        clock: time of every slot: the document's where scored, 0 where dropped, else 1.
        task: of each slot's document, its place in `NAMES`.
    """

    scored: Bool[Array, "*b L"]
    clock: Float[Array, "*b L"]
    task: Int[Array, "*b L"]


@dataclasses.dataclass(frozen=True)
class TaskMixture:
    """How often each task is drawn.

    Attributes:
        shares: probability of each of `NAMES`, in that order; they add up to 1.
        drop: share of `text_to_image` whose words, and of `image_to_text` whose pictures, are
            dropped.
    """

    shares: tuple[float, ...]
    drop: float

    def draw(self, key: Key[Array, ""], t: Float[Array, "L"], canvas: Canvas) -> TaskDraw:
        """The task of each document of one row, at the times `t` of its slots."""
        key_task, key_drop, key_share, key_span, key_slot = jax.random.split(key, 5)
        task = sample_per_group(key_task, self.shares, canvas.segment)
        share = uniform_per_group(key_share, canvas.segment)
        by_span = uniform_per_group(key_span, canvas.span) < share
        by_slot = jax.random.uniform(key_slot, t.shape) < share
        chosen = jnp.select(
            [task == NAMES.index(name) for name in NAMES],
            [
                jnp.ones_like(canvas.is_text),
                canvas.is_image,
                canvas.is_text,
                by_span,
                jnp.where(canvas.is_text, by_slot, by_span),
            ],
            default=False,  # The default default is 0, and would make the mask one of integers.
        )
        scored = canvas.free & chosen
        condition = (canvas.is_text & (task == NAMES.index("text_to_image"))) | (
            canvas.is_image & (task == NAMES.index("image_to_text"))
        )
        dropped = (
            canvas.free & condition & (uniform_per_group(key_drop, canvas.segment) < self.drop)
        )
        clock = jnp.where(dropped, 0.0, jnp.where(scored, t, 1.0))
        return TaskDraw(scored=scored, clock=clock, task=task)


ALL_TARGETS = TaskMixture(shares=(1.0, 0.0, 0.0, 0.0, 0.0), drop=0.0)
"""Everything is the model's to make."""


def sample_per_group(
    key: Key[Array, ""], probs: tuple[float, ...], group_ids: Int[Array, "L"]
) -> Int[Array, "L"]:
    """One choice, with these shares, for all slots that bear the same document or span number."""
    return jnp.searchsorted(
        jnp.cumsum(jnp.array(probs[:-1])), uniform_per_group(key, group_ids), "right"
    )


def uniform_per_group(key: Key[Array, ""], group_ids: Int[Array, "L"]) -> Float[Array, "L"]:
    """One uniform number for all slots that bear the same document or span number."""
    # Numbers run from 0 to at most L, so L + 1 draws serve any row.
    return jax.random.uniform(key, (group_ids.shape[0] + 1,))[group_ids]
