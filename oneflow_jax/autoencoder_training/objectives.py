"""How autoencoders are trained: what is lost between a picture and its reconstruction, and more.

Losses are totals over pictures with their number, by term; the step divides by the batch.
"""

import dataclasses
from typing import Protocol

import flax.struct
import jax
import jax.numpy as jnp
from clu import metrics

from oneflow_jax.autoencoder_training import codebook as codebook_lib
from oneflow_jax.autoencoder_training.loss_terms import LossTerm
from oneflow_jax.codecs.autoencoder import kl, vq
from oneflow_jax.shapes import Array, Float, Key, PyTree

LossSums = dict[str, metrics.Average]


class Objective(Protocol):
    """How one kind of autoencoder is trained."""

    @property
    def model(self) -> kl.AutoencoderKL | vq.VQModel:
        """The network."""

    @property
    def weights(self) -> tuple[tuple[str, float], ...]:
        """The weight of each term, by name."""

    def sums(
        self, params: PyTree, keys: Key[Array, "B"], pixels: Float[Array, "B H W 3"]
    ) -> tuple[LossSums, PyTree]:
        """Totals and numbers of pictures of each term; and what `tended` wants to see."""

    def post_update(
        self, params: PyTree, key: Key[Array, ""], seen: PyTree, left: Float[Array, ""]
    ) -> PyTree:
        """The parameters after an update, or their average, once more looked after.

        Args:
            params: after the optimizer's update.
            key: randomness.
            seen: what `sums` has given, of all microbatches, stacked.
            left: share of the training that is still to come.
        """


@dataclasses.dataclass(frozen=True, eq=False)
class KL:
    """Reconstruction from one draw of the latents, and their divergence from a standard normal.

    Attributes:
        model: the network.
        terms: distances between pictures.
        divergence: weight of the divergence, in nats summed over a picture's latents.
    """

    model: kl.AutoencoderKL
    terms: tuple[LossTerm, ...]
    divergence: float

    @property
    def weights(self) -> tuple[tuple[str, float], ...]:
        """Of the distances, and of `divergence`."""
        return (*_term_weights(self.terms), ("divergence", self.divergence))

    def sums(
        self, params: PyTree, keys: Key[Array, "B"], pixels: Float[Array, "B H W 3"]
    ) -> tuple[LossSums, tuple[()]]:
        """The distances and the divergence."""
        variables = {"params": params}
        latents = self.model.apply(variables, pixels, method="encode")
        drawn = jax.vmap(kl.DiagonalGaussian.sample)(latents, keys)
        made = self.model.apply(variables, drawn, method="decode")
        found = {term.name: term(made, pixels) for term in self.terms}
        found["divergence"] = jnp.sum(latents.divergence(), axis=(1, 2, 3))
        return _to_averages(found), ()

    def post_update(
        self, params: PyTree, key: Key[Array, ""], seen: tuple[()], left: Float[Array, ""]
    ) -> PyTree:
        """The parameters as they are."""
        del key, seen, left
        return params


@flax.struct.dataclass
class CodebookStats:
    """Of a microbatch: how often each code was chosen, and vectors that dead codes may take."""

    counts: Float[Array, "*b K"]
    vectors: Float[Array, "*b K C"]


@dataclasses.dataclass(frozen=True, eq=False)
class VQ:
    """Reconstruction through the nearest codes, and what draws codes and vectors together.

    The gradient of a code goes straight through to the vector that it replaces:
    q = v + sg(e - v); van den Oord et al., 2017, (3), whose terms are

        codebook    |sg(v) - e|^2       codes follow the vectors that chose them
        commitment  |v - sg(e)|^2       vectors stay by their codes

    and `entropy`, log K minus the entropy of the codes' mean probability, which is 0 when all are
    wanted equally often (`codebook.codebook_entropy_loss`). A code that no vector of the batch
    chose is given,
    with a small probability, the place of a vector that is badly served. Both depend on how many
    vectors are looked at together, and so, unlike all else, on the number of microbatches.

    Attributes:
        model: the network.
        terms: distances between pictures.
        codebook, commitment, entropy: weights.
        revival: probability in a step that an unchosen code is placed anew, at first; it falls to
            0 in a straight line, since late in training rare codes are worth keeping.
    """

    model: vq.VQModel
    terms: tuple[LossTerm, ...]
    codebook: float
    commitment: float
    entropy: float
    revival: float

    @property
    def weights(self) -> tuple[tuple[str, float], ...]:
        """Of the distances and of the three terms of the codebook."""
        own = ("codebook", "commitment", "entropy")
        return (*_term_weights(self.terms), *((name, getattr(self, name)) for name in own))

    def sums(
        self, params: PyTree, keys: Key[Array, "B"], pixels: Float[Array, "B H W 3"]
    ) -> tuple[LossSums, CodebookStats]:
        """The distances and the codebook's terms."""
        variables, hold = {"params": params}, jax.lax.stop_gradient
        vectors = self.model.apply(variables, pixels, method="vectors")
        codes = self.model.apply(variables, vectors, method="nearest")
        chosen = self.model.apply(variables, codes, method="lookup")
        through = vectors + hold(chosen - vectors)
        made = self.model.apply(variables, through, method="decode")
        places = (1, 2, 3)
        table = params["quantize"]["embedding"]["embedding"]
        found = {term.name: term(made, pixels) for term in self.terms}
        found["codebook"] = jnp.mean((hold(vectors) - chosen) ** 2, axis=places)
        found["commitment"] = jnp.mean((vectors - hold(chosen)) ** 2, axis=places)
        scarcity = codebook_lib.codebook_entropy_loss(
            hold(vectors).reshape(-1, table.shape[1]), table
        )
        found["entropy"] = jnp.full(pixels.shape[:1], scarcity)
        seen = CodebookStats(
            counts=codebook_lib.count_codes(codes, table.shape[0]),
            vectors=codebook_lib.sample_high_error_vectors(
                keys[0], hold(vectors), hold(chosen), table.shape[0]
            ),
        )
        return _to_averages(found), seen

    def post_update(
        self, params: PyTree, key: Key[Array, ""], seen: CodebookStats, left: Float[Array, ""]
    ) -> PyTree:
        """The parameters with some of the codes that nobody chose placed anew."""
        table = params["quantize"]["embedding"]["embedding"]
        # Any microbatch's vectors will do; the first one's are as random as all.
        table = codebook_lib.restart_dead_codes(
            key, table, jnp.sum(seen.counts, axis=0), seen.vectors[0], self.revival * left
        )
        return params | {"quantize": {"embedding": {"embedding": table}}}


def _term_weights(loss_terms: tuple[LossTerm, ...]) -> tuple[tuple[str, float], ...]:
    return tuple((term.name, term.weight) for term in loss_terms)


def _to_averages(losses: dict[str, Float[Array, "B"]]) -> LossSums:
    return {
        name: metrics.Average(total=jnp.sum(values), count=jnp.float32(values.shape[0]))
        for name, values in losses.items()
    }
