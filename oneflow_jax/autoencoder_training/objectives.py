"""Training objectives of autoencoders.

An objective returns each loss term as its sum over images, with the number of images. The training
step divides the sum by the batch size.
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
    """Training objective of one kind of autoencoder."""

    @property
    def model(self) -> kl.AutoencoderKL | vq.VQModel:
        """The network to train."""

    @property
    def weights(self) -> tuple[tuple[str, float], ...]:
        """Name and weight of each loss term."""

    def loss_sums(
        self, params: PyTree, keys: Key[Array, "B"], pixels: Float[Array, "B H W 3"]
    ) -> tuple[LossSums, PyTree]:
        """Return the sum of each loss term over images, and statistics for `post_update`."""

    def post_update(
        self,
        params: PyTree,
        key: Key[Array, ""],
        stats: PyTree,
        remaining_fraction: Float[Array, ""],
    ) -> PyTree:
        """Change parameters after the optimizer's update; called for the parameters and their EMA.

        Args:
            params: parameters after the update.
            key: random key.
            stats: statistics that `loss_sums` returned, stacked over microbatches.
            remaining_fraction: fraction of the training that remains.
        """


@dataclasses.dataclass(frozen=True, eq=False)
class KL:
    """VAE objective: reconstruction from sampled latents, and KL divergence from a standard normal.

    Attributes:
        model: network to train.
        loss_terms: distances between images.
        kl_weight: weight of the KL divergence, which is in nats and summed over an image's latents.
    """

    model: kl.AutoencoderKL
    loss_terms: tuple[LossTerm, ...]
    kl_weight: float

    @property
    def weights(self) -> tuple[tuple[str, float], ...]:
        """Name and weight of each loss term."""
        return (*_term_weights(self.loss_terms), ("kl", self.kl_weight))

    def loss_sums(
        self, params: PyTree, keys: Key[Array, "B"], pixels: Float[Array, "B H W 3"]
    ) -> tuple[LossSums, tuple[()]]:
        """Return the sums of the reconstruction terms and of the KL divergence."""
        variables = {"params": params}
        latents = self.model.apply(variables, pixels, method="encode")
        drawn = jax.vmap(kl.DiagonalGaussian.sample)(latents, keys)
        reconstructed = self.model.apply(variables, drawn, method="decode")
        terms = {term.name: term(reconstructed, pixels) for term in self.loss_terms}
        terms["kl"] = jnp.sum(latents.kl(), axis=(1, 2, 3))
        return _to_averages(terms), ()

    def post_update(
        self,
        params: PyTree,
        key: Key[Array, ""],
        stats: tuple[()],
        remaining_fraction: Float[Array, ""],
    ) -> PyTree:
        """Return the parameters unchanged."""
        del key, stats, remaining_fraction
        return params


@flax.struct.dataclass
class CodebookStats:
    """Statistics of a microbatch: how often each code occurs, and replacements for dead codes."""

    counts: Float[Array, "*b K"]
    vectors: Float[Array, "*b K C"]


@dataclasses.dataclass(frozen=True, eq=False)
class VQ:
    """VQ objective: reconstruction through the nearest codes, and losses of the codebook.

    The gradient passes straight through the quantization, q = v + sg(e - v), where e is the code
    nearest to the vector v and sg stops the gradient. Two terms train the codebook (van den Oord et
    al., 2017, eq. 3):

        codebook    |sg(v) - e|^2       moves codes to the vectors that are assigned to them
        commitment  |v - sg(e)|^2       moves vectors to their codes

    A third term, `entropy`, is log K minus the entropy of the mean probabilities of the codes. It
    is 0 if all codes are equally likely (`codebook.codebook_entropy_loss`). After each step, a code
    that does not occur in the batch is moved, with a small probability, to a vector with a high
    quantization error.

    The entropy term and the restarts use the vectors of one microbatch. So, unlike the other terms,
    they depend on the number of microbatches.

    Attributes:
        model: network to train.
        loss_terms: distances between images.
        codebook_weight, commitment_weight, entropy_weight: loss weights of the three terms above.
        dead_code_restart_prob: probability per step of restarting a code that does not occur in
            the batch. It falls linearly to 0 over the training, since late in training a code that
            occurs rarely is worth keeping.
    """

    model: vq.VQModel
    loss_terms: tuple[LossTerm, ...]
    codebook_weight: float
    commitment_weight: float
    entropy_weight: float
    dead_code_restart_prob: float

    @property
    def weights(self) -> tuple[tuple[str, float], ...]:
        """Name and weight of each loss term."""
        own = ("codebook", "commitment", "entropy")
        return (
            *_term_weights(self.loss_terms),
            *((name, getattr(self, f"{name}_weight")) for name in own),
        )

    def loss_sums(
        self, params: PyTree, keys: Key[Array, "B"], pixels: Float[Array, "B H W 3"]
    ) -> tuple[LossSums, CodebookStats]:
        """Return the sum of each loss term over images, and statistics for restarts of codes."""
        variables, hold = {"params": params}, jax.lax.stop_gradient
        vectors = self.model.apply(variables, pixels, method="encode_continuous")
        codes = self.model.apply(variables, vectors, method="nearest_codes")
        chosen = self.model.apply(variables, codes, method="lookup")
        through = vectors + hold(chosen - vectors)
        reconstructed = self.model.apply(variables, through, method="decode")
        places = (1, 2, 3)
        table = params["quantize"]["embedding"]["embedding"]
        terms = {term.name: term(reconstructed, pixels) for term in self.loss_terms}
        terms["codebook"] = jnp.mean((hold(vectors) - chosen) ** 2, axis=places)
        terms["commitment"] = jnp.mean((vectors - hold(chosen)) ** 2, axis=places)
        scarcity = codebook_lib.codebook_entropy_loss(
            hold(vectors).reshape(-1, table.shape[1]), table
        )
        terms["entropy"] = jnp.full(pixels.shape[:1], scarcity)
        seen = CodebookStats(
            counts=codebook_lib.count_codes(codes, table.shape[0]),
            vectors=codebook_lib.sample_high_error_vectors(
                keys[0], hold(vectors), hold(chosen), table.shape[0]
            ),
        )
        return _to_averages(terms), seen

    def post_update(
        self,
        params: PyTree,
        key: Key[Array, ""],
        stats: CodebookStats,
        remaining_fraction: Float[Array, ""],
    ) -> PyTree:
        """Restart some of the codes that do not occur in the batch."""
        table = params["quantize"]["embedding"]["embedding"]
        # Each microbatch has sampled a replacement for every code. Those of the first microbatch
        # suffice, because images are assigned to microbatches at random.
        table = codebook_lib.restart_dead_codes(
            key,
            table,
            jnp.sum(stats.counts, axis=0),
            stats.vectors[0],
            self.dead_code_restart_prob * remaining_fraction,
        )
        return params | {"quantize": {"embedding": {"embedding": table}}}


def _term_weights(loss_terms: tuple[LossTerm, ...]) -> tuple[tuple[str, float], ...]:
    return tuple((term.name, term.weight) for term in loss_terms)


def _to_averages(losses: dict[str, Float[Array, "B"]]) -> LossSums:
    return {
        name: metrics.Average(total=jnp.sum(values), count=jnp.float32(values.shape[0]))
        for name, values in losses.items()
    }
