"""How `oneflow` learns to flow text: three objectives, two that work and the seed's printed one.

endpoint   cross-entropy of the token; v from the expected clean vector; E learned, unit norm
velocity   one squared error on v, as for pictures; E fixed
literal    the same with E learned and a random subset of tokens masked: it collapses, because
           equal rows of E make the error smallest, and starts from one point, so that every
           document gets the same text (docs/oneflow.md shows both)
"""

import dataclasses
from typing import Protocol

import jax
import jax.numpy as jnp
from clu import metrics

from oneflow_jax.canvas import EmbeddingTable, Head
from oneflow_jax.flows import losses, predictions, token_embeddings
from oneflow_jax.shapes import Array, Bool, Float, Int, Key


class TextObjective(Protocol):
    """What text slots start from, what is predicted of them, and how that is scored and read."""

    @property
    def head(self) -> Head:
        """What the network predicts of a text slot."""

    def table(self, table: EmbeddingTable) -> EmbeddingTable:
        """The vocabulary's vectors as this objective uses them."""

    def sample_x0_train(
        self, key: Key[Array, ""], table: EmbeddingTable, ids: Int[Array, "L"]
    ) -> Float[Array, "L E"]:
        """x_0 in training, for a row whose tokens are `ids`."""

    def start(self, key: Key[Array, ""], table: EmbeddingTable, slots: int) -> Float[Array, "L E"]:
        """x_0 in sampling."""

    def loss(
        self,
        output: Float[Array, "L n"],
        ids: Int[Array, "L"],
        x_0: Float[Array, "L E"],
        x_1: Float[Array, "L E"],
        t: Float[Array, "L"],
        scored: Bool[Array, "L"],
    ) -> metrics.Average:
        """The text term."""

    def clean(
        self,
        output: Float[Array, "*b L n"],
        x_t: Float[Array, "*b L E"],
        t: Float[Array, "*b L"],
        table: EmbeddingTable,
    ) -> tuple[Float[Array, "*b L E"], Float[Array, "*b L V"]]:
        """x̂_1, and the logits of the token that each slot reads as."""


@dataclasses.dataclass(frozen=True)
class CrossEntropyObjective:
    """Cross-entropy on the clean token; the state still moves by v = (x̂_1 - x_t) / (1 - t)."""

    vocab: int

    @property
    def head(self) -> Head:
        """Logits."""
        return Head("text_logits", self.vocab, "vocab")

    def table(self, table: EmbeddingTable) -> EmbeddingTable:
        """Rows of norm sqrt(E), learned."""
        return token_embeddings.normalize(table)

    def sample_x0_train(
        self, key: Key[Array, ""], table: EmbeddingTable, ids: Int[Array, "L"]
    ) -> Float[Array, "L E"]:
        """Noise around the mask."""
        return self.start(key, table, ids.shape[0])

    def start(self, key: Key[Array, ""], table: EmbeddingTable, slots: int) -> Float[Array, "L E"]:
        """Noise around the mask."""
        return token_embeddings.masked_noise(key, table, slots)

    def loss(
        self,
        output: Float[Array, "L n"],
        ids: Int[Array, "L"],
        x_0: Float[Array, "L E"],
        x_1: Float[Array, "L E"],
        t: Float[Array, "L"],
        scored: Bool[Array, "L"],
    ) -> metrics.Average:
        """-log p(id)."""
        del x_0, x_1, t
        return losses.cross_entropy(output, ids, scored)

    def clean(
        self,
        output: Float[Array, "*b L n"],
        x_t: Float[Array, "*b L E"],
        t: Float[Array, "*b L"],
        table: EmbeddingTable,
    ) -> tuple[Float[Array, "*b L E"], Float[Array, "*b L V"]]:
        """softmax(logits) E, and the logits."""
        del x_t, t
        return token_embeddings.expected_embedding(output, table), output


@dataclasses.dataclass(frozen=True)
class VelocityObjective:
    """Squared error on v, against fixed rows."""

    width: int

    @property
    def head(self) -> Head:
        """A velocity in the space of token vectors."""
        return Head("text_velocity", self.width, "embed")

    def table(self, table: EmbeddingTable) -> EmbeddingTable:
        """Rows of norm sqrt(E) that never change."""
        return jax.lax.stop_gradient(token_embeddings.normalize(table))

    def sample_x0_train(
        self, key: Key[Array, ""], table: EmbeddingTable, ids: Int[Array, "L"]
    ) -> Float[Array, "L E"]:
        """Noise around the mask."""
        return self.start(key, table, ids.shape[0])

    def start(self, key: Key[Array, ""], table: EmbeddingTable, slots: int) -> Float[Array, "L E"]:
        """Noise around the mask."""
        return token_embeddings.masked_noise(key, table, slots)

    def loss(
        self,
        output: Float[Array, "L n"],
        ids: Int[Array, "L"],
        x_0: Float[Array, "L E"],
        x_1: Float[Array, "L E"],
        t: Float[Array, "L"],
        scored: Bool[Array, "L"],
    ) -> metrics.Average:
        """|v̂ - (x_1 - x_0)|^2."""
        del ids
        return predictions.VelocityPrediction().loss(output, x_0, x_1, t, scored)

    def clean(
        self,
        output: Float[Array, "*b L n"],
        x_t: Float[Array, "*b L E"],
        t: Float[Array, "*b L"],
        table: EmbeddingTable,
    ) -> tuple[Float[Array, "*b L E"], Float[Array, "*b L V"]]:
        """x_t + (1 - t) v̂, and how close it is to each row."""
        x_1 = predictions.VelocityPrediction().clean(output, x_t, t)
        return x_1, token_embeddings.token_log_likelihood(x_1, table)


@dataclasses.dataclass(frozen=True)
class NaiveObjective:
    """The seed word for word: `VelocityObjective` with learned rows, from a partly masked text.

    Kept as an experiment that shows why it fails: there is no noise in the text, and sampling
    starts from the mask in every slot.
    """

    width: int

    head = VelocityObjective.head
    loss = VelocityObjective.loss
    clean = VelocityObjective.clean

    def table(self, table: EmbeddingTable) -> EmbeddingTable:
        """Rows as they are, learned."""
        return table

    def sample_x0_train(
        self, key: Key[Array, ""], table: EmbeddingTable, ids: Int[Array, "L"]
    ) -> Float[Array, "L E"]:
        """The mask in a random subset of the slots, the clean vectors elsewhere."""
        key_share, key_slots = jax.random.split(key)
        share = jax.random.uniform(key_share)
        masked = jax.random.uniform(key_slots, ids.shape) < share
        return jnp.where(masked[:, None], table.mask[None], table.rows[ids])

    def start(self, key: Key[Array, ""], table: EmbeddingTable, slots: int) -> Float[Array, "L E"]:
        """The mask everywhere."""
        del key
        return jnp.broadcast_to(table.mask, (slots, *table.mask.shape))
