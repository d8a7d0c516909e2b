"""A language of few texts, and the network that is optimal for it."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np

from oneflow_jax.canvas import Canvas, EmbeddingTable, Modality

A, B = 6, 7
"""The language's two tokens: the first ids after the special ones."""

VOCAB = 8
ALLOWED_RANGES = ((A, VOCAB),)
CHANNELS = 2
TABLE = EmbeddingTable(embedding=jnp.eye(VOCAB), mask_embedding=jnp.full(VOCAB, -1.0))


@dataclasses.dataclass(frozen=True)
class Language:
    """A distribution over texts of one length."""

    texts: tuple[tuple[int, ...], ...]
    probs: tuple[float, ...]

    def canvas(self, rows: int) -> Canvas:
        """Return documents of BOS and one text to generate."""
        length = 1 + len(self.texts[0])
        order = jnp.tile(jnp.arange(length), (rows, 1))
        return Canvas(
            ids=jnp.where(order == 0, 1, 0),
            latents=jnp.zeros((rows, length, CHANNELS)),
            modality=jnp.full((rows, length), int(Modality.TEXT)),
            segment=jnp.ones((rows, length), int),
            span=jnp.where(order == 0, 1, 2),
            position=jnp.stack([order, order * 0, order * 0], axis=-1),
            is_given=order == 0,
            insertable=jnp.zeros_like(order),
        )

    def predict_masked(self, view):
        """Return log-probabilities of each masked token given the visible ones."""
        texts, shares = jnp.array(self.texts), jnp.array(self.probs)

        def row(embeds, clock):
            ids, hidden = jnp.argmax(embeds[1:], axis=-1), clock[1:] == 0
            fits = jnp.all(hidden[None] | (texts == ids[None]), axis=1)
            weights = shares * fits
            one_hot = jax.nn.one_hot(texts, VOCAB)
            marginal = jnp.einsum("m,mlv->lv", weights / jnp.sum(weights), one_hot)
            return jnp.log(jnp.concatenate([jnp.full((1, VOCAB), 1 / VOCAB), marginal]) + 1e-9)

        return {
            "text_logits": jax.vmap(row)(view.embeds, view.time),
            "image": jnp.zeros_like(view.latents),
        }

    def frequencies(self, ids) -> np.ndarray:
        """Return the frequency of each text in samples, and of all other texts together."""
        texts = np.asarray(ids)[:, 1:]
        hits = [np.mean((texts == np.array(text)).all(1)) for text in self.texts]
        return np.array([*hits, 1 - sum(hits)])


PARITY = Language(((A, A, A), (A, B, B), (B, A, B), (B, B, A)), (0.4, 0.3, 0.2, 0.1))
"""Any two tokens are dependent, so it matters which tokens are unmasked in the same step."""
