"""Training objectives for the text of `oneflow`: three that work, and a naive one that collapses.

cross_entropy  cross-entropy of the token; v from the expected clean embedding; E learned, with unit
               variance
likelihood     cross_entropy, with the log-likelihood of the token given its slot's own x_t added to
               the logits; the network has to learn only what the other slots tell about the token
velocity       squared error on v, as for images; E fixed
naive          squared error on v; E learned; x_0 is the clean text with a random subset of tokens
               masked. E collapses, because equal rows minimize the error. Sampling starts from a
               single point, so all documents get one text. docs/oneflow.md measures both failures.
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
    """Objective of the text slots in `oneflow`: noise x_0, type of prediction, and loss."""

    @property
    def head(self) -> Head:
        """The head for text slots."""

    def prepare_table(self, table: EmbeddingTable) -> EmbeddingTable:
        """Return the token embeddings after this objective's normalization, if it has one."""

    def sample_x0_train(
        self, key: Key[Array, ""], table: EmbeddingTable, ids: Int[Array, "L"]
    ) -> Float[Array, "L E"]:
        """Sample the noise x_0 of a training row whose clean tokens are `ids`."""

    def sample_x0(
        self, key: Key[Array, ""], table: EmbeddingTable, num_slots: int
    ) -> Float[Array, "L E"]:
        """Sample the noise x_0 of `num_slots` slots, from which generation starts."""

    def loss(
        self,
        output: Float[Array, "L n"],
        ids: Int[Array, "L"],
        x_0: Float[Array, "L E"],
        x_1: Float[Array, "L E"],
        t: Float[Array, "L"],
        scored: Bool[Array, "L"],
    ) -> metrics.Average:
        """Return the text loss of one row, as the sum over its scored slots and their number."""

    def to_x1(
        self,
        output: Float[Array, "*b L n"],
        x_t: Float[Array, "*b L E"],
        t: Float[Array, "*b L"],
        table: EmbeddingTable,
    ) -> tuple[Float[Array, "*b L E"], Float[Array, "*b L V"]]:
        """Return the x1 prediction, and the logits from which its tokens are decoded."""


@dataclasses.dataclass(frozen=True)
class CrossEntropyObjective:
    """Cross-entropy of the clean token; sampling uses v = (x̂_1 - x_t) / (1 - t)."""

    vocab_size: int

    @property
    def head(self) -> Head:
        """Logits of the token."""
        return Head("text_logits", self.vocab_size, "vocab")

    def prepare_table(self, table: EmbeddingTable) -> EmbeddingTable:
        """Return learned embeddings, normalized to norm sqrt(E)."""
        return table.normalize()

    def sample_x0_train(
        self, key: Key[Array, ""], table: EmbeddingTable, ids: Int[Array, "L"]
    ) -> Float[Array, "L E"]:
        """Sample noise around the mask embedding."""
        return self.sample_x0(key, table, ids.shape[0])

    def sample_x0(
        self, key: Key[Array, ""], table: EmbeddingTable, num_slots: int
    ) -> Float[Array, "L E"]:
        """Sample noise around the mask embedding."""
        return token_embeddings.masked_noise(key, table, num_slots)

    def loss(
        self,
        output: Float[Array, "L n"],
        ids: Int[Array, "L"],
        x_0: Float[Array, "L E"],
        x_1: Float[Array, "L E"],
        t: Float[Array, "L"],
        scored: Bool[Array, "L"],
    ) -> metrics.Average:
        """Return the total of -log p(id)."""
        del x_0, x_1, t
        return losses.cross_entropy(output, ids, scored)

    def to_x1(
        self,
        output: Float[Array, "*b L n"],
        x_t: Float[Array, "*b L E"],
        t: Float[Array, "*b L"],
        table: EmbeddingTable,
    ) -> tuple[Float[Array, "*b L E"], Float[Array, "*b L V"]]:
        """Return the expected embedding softmax(logits) E, and the logits."""
        del x_t, t
        return token_embeddings.expected_embedding(output, table), output


@dataclasses.dataclass(frozen=True)
class LikelihoodObjective(CrossEntropyObjective):
    """`CrossEntropyObjective`, with logits that start from the posterior of a single token.

    With r = x_t - (1 - t) m, the likelihood of x_t given the token is N(r; t E[id], (1 - t)^2 I).
    All embeddings have the same norm, so up to a constant

        log p(x_t | id) = t / (1 - t)^2 · r·E[id]

    (Plaid, 2023; LangFlow, 2026). The factor t / (1 - t)^2 diverges as t -> 1. So the code uses
    t = 1/2 in the factor at all later times, when the tokens are already decided.
    """

    @property
    def head(self) -> Head:
        """Logits of the token, to which the network adds the likelihood."""
        return Head("text_logits", self.vocab_size, "vocab", adds_token_likelihood=True)


@dataclasses.dataclass(frozen=True)
class VelocityObjective:
    """Squared error on v, with fixed embeddings."""

    embed_width: int

    @property
    def head(self) -> Head:
        """A velocity in the space of token embeddings."""
        return Head("text_velocity", self.embed_width, "embed")

    def prepare_table(self, table: EmbeddingTable) -> EmbeddingTable:
        """Return the embeddings normalized to norm sqrt(E), with a stopped gradient."""
        return jax.lax.stop_gradient(table.normalize())

    def sample_x0_train(
        self, key: Key[Array, ""], table: EmbeddingTable, ids: Int[Array, "L"]
    ) -> Float[Array, "L E"]:
        """Sample noise around the mask embedding."""
        return self.sample_x0(key, table, ids.shape[0])

    def sample_x0(
        self, key: Key[Array, ""], table: EmbeddingTable, num_slots: int
    ) -> Float[Array, "L E"]:
        """Sample noise around the mask embedding."""
        return token_embeddings.masked_noise(key, table, num_slots)

    def loss(
        self,
        output: Float[Array, "L n"],
        ids: Int[Array, "L"],
        x_0: Float[Array, "L E"],
        x_1: Float[Array, "L E"],
        t: Float[Array, "L"],
        scored: Bool[Array, "L"],
    ) -> metrics.Average:
        """Return the total of |v̂ - (x_1 - x_0)|^2."""
        del ids
        return predictions.VelocityPrediction().loss(output, x_0, x_1, t, scored)

    def to_x1(
        self,
        output: Float[Array, "*b L n"],
        x_t: Float[Array, "*b L E"],
        t: Float[Array, "*b L"],
        table: EmbeddingTable,
    ) -> tuple[Float[Array, "*b L E"], Float[Array, "*b L V"]]:
        """Return x_t + (1 - t) v̂, and its log-likelihood under each token."""
        x_1 = predictions.VelocityPrediction().to_x1(output, x_t, t)
        return x_1, token_embeddings.token_log_likelihood(x_1, table)


@dataclasses.dataclass(frozen=True)
class NaiveObjective:
    """Squared error on v with learned embeddings and an x_0 without noise.

    This objective does not work; docs/oneflow.md measures how it fails. In training, x_0 is a
    partly masked text without noise. Sampling starts from the mask embedding in every slot.
    """

    embed_width: int

    head = VelocityObjective.head
    loss = VelocityObjective.loss
    to_x1 = VelocityObjective.to_x1

    def prepare_table(self, table: EmbeddingTable) -> EmbeddingTable:
        """Return the learned embeddings unchanged."""
        return table

    def sample_x0_train(
        self, key: Key[Array, ""], table: EmbeddingTable, ids: Int[Array, "L"]
    ) -> Float[Array, "L E"]:
        """Return the mask embedding in a random subset of the slots, clean embeddings elsewhere."""
        key_share, key_slots = jax.random.split(key)
        share = jax.random.uniform(key_share)
        masked = jax.random.uniform(key_slots, ids.shape) < share
        return jnp.where(masked[:, None], table.mask_embedding[None], table.embedding[ids])

    def sample_x0(
        self, key: Key[Array, ""], table: EmbeddingTable, num_slots: int
    ) -> Float[Array, "L E"]:
        """Return the mask embedding in every slot."""
        del key
        return jnp.broadcast_to(table.mask_embedding, (num_slots, *table.mask_embedding.shape))
