"""The network that knows the answer, and what OneFlow's tests share around it."""

import jax
import jax.numpy as jnp

from oneflow_jax.canvas import EmbeddingTable
from oneflow_jax.training import update
from tests import tiny

SEED = 7
TABLE = EmbeddingTable(
    rows=jax.random.normal(jax.random.key(8), (tiny.VOCAB, tiny.EMBED)),
    mask=jax.random.normal(jax.random.key(9), (tiny.EMBED,)),
)


def row_keys(seed, rows):
    return update.per_row_keys(jax.random.key(seed), rows)


def oracle(paradigm, canvas, table=TABLE):
    """The network that knows `canvas`, and believes what it is told of time and state."""
    rows = paradigm.objective.table(table).rows

    def apply(view):
        copies = view.clock.shape[0] // canvas.ids.shape[0]
        ids, latents = (jnp.repeat(x, copies, axis=0) for x in (canvas.ids, canvas.latents))
        remaining = jnp.maximum(1 - view.clock, 1e-6)[..., None]
        return {
            "text_logits": 1e4 * jax.nn.one_hot(ids, tiny.VOCAB),
            "text_velocity": (rows[ids] - view.embeds) / remaining,
            "image": latents
            if paradigm.image == tiny.IMAGE_PREDICTIONS["clean"]
            else (latents - view.latents) / remaining,
        }

    return apply
