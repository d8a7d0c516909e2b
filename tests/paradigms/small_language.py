"""A toy language small enough to list, and the network that knows it exactly."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np

from oneflow_jax.canvas import Canvas, EmbeddingTable, Modality

A, B = 6, 7
"""The language's two tokens: the first that are not special."""

VOCAB = 8
ALLOWED_RANGES = ((A, VOCAB),)
CHANNELS = 2
TABLE = EmbeddingTable(rows=jnp.eye(VOCAB), mask=jnp.full(VOCAB, -1.0))


@dataclasses.dataclass(frozen=True)
class Language:
    """Texts of one length, and how often each comes."""

    texts: tuple[tuple[int, ...], ...]
    shares: tuple[float, ...]

    def canvas(self, rows: int) -> Canvas:
        """Documents of BOS and one free text."""
        length = 1 + len(self.texts[0])
        order = jnp.tile(jnp.arange(length), (rows, 1))
        return Canvas(
            ids=jnp.where(order == 0, 1, 0),
            latents=jnp.zeros((rows, length, CHANNELS)),
            kind=jnp.full((rows, length), int(Modality.TEXT)),
            segment=jnp.ones((rows, length), int),
            span=jnp.where(order == 0, 1, 2),
            position=jnp.stack([order, order * 0, order * 0], axis=-1),
            fixed=order == 0,
            opening=jnp.zeros_like(order),
        )

    def masked(self, view):
        """Log-probabilities of each hidden token given those that can be read."""
        texts, shares = jnp.array(self.texts), jnp.array(self.shares)

        def row(embeds, clock):
            ids, hidden = jnp.argmax(embeds[1:], axis=-1), clock[1:] == 0
            fits = jnp.all(hidden[None] | (texts == ids[None]), axis=1)
            weights = shares * fits
            one_hot = jax.nn.one_hot(texts, VOCAB)
            marginal = jnp.einsum("m,mlv->lv", weights / jnp.sum(weights), one_hot)
            return jnp.log(jnp.concatenate([jnp.full((1, VOCAB), 1 / VOCAB), marginal]) + 1e-9)

        return {
            "text_logits": jax.vmap(row)(view.embeds, view.clock),
            "image": jnp.zeros_like(view.latents),
        }

    def frequencies(self, ids) -> np.ndarray:
        """How often each text came; and last, how often something else did."""
        found = np.asarray(ids)[:, 1:]
        hits = [np.mean((found == np.array(text)).all(1)) for text in self.texts]
        return np.array([*hits, 1 - sum(hits)])


PARITY = Language(((A, A, A), (A, B, B), (B, A, B), (B, B, A)), (0.4, 0.3, 0.2, 0.1))
"""Any two tokens are dependent, so that what is read at once matters."""
