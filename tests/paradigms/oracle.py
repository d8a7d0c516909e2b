"""A network that predicts a known canvas, and helpers for OneFlow's tests."""

import jax
import jax.numpy as jnp

from oneflow_jax.canvas import EmbeddingTable
from oneflow_jax.training import update
from tests import tiny

SEED = 7
TABLE = EmbeddingTable(
    embedding=jax.random.normal(jax.random.key(8), (tiny.VOCAB, tiny.EMBED)),
    mask_embedding=jax.random.normal(jax.random.key(9), (tiny.EMBED,)),
)


def row_keys(seed, rows):
    return update.per_row_keys(jax.random.key(seed), rows)


def oracle(paradigm, canvas, table=TABLE):
    """Return the network whose x1 prediction is `canvas` at every time and state."""
    rows = paradigm.objective.prepare_table(table).embedding

    def apply(view):
        copies = view.time.shape[0] // canvas.ids.shape[0]
        ids, latents = (jnp.repeat(x, copies, axis=0) for x in (canvas.ids, canvas.latents))
        remaining = jnp.maximum(1 - view.time, 1e-6)[..., None]
        return {
            "text_logits": 1e4 * jax.nn.one_hot(ids, tiny.VOCAB),
            "text_velocity": (rows[ids] - view.embeds) / remaining,
            "image": latents
            if paradigm.image_prediction == tiny.IMAGE_PREDICTIONS["x1"]
            else (latents - view.latents) / remaining,
        }

    return apply
