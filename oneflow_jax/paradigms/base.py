"""What the training step and the sampler ask of a family of models.

One object owns corruption, loss and sampler, so that training and sampling cannot disagree.
"""

from typing import Protocol

import jax.numpy as jnp
from clu import metrics

from oneflow_jax.canvas import AttentionPattern, Canvas, EmbeddingTable, Head, NoisyCanvas
from oneflow_jax.errors import UserError
from oneflow_jax.samplers import guidance, token_sampling
from oneflow_jax.samplers.base import SampleOutput, SamplingPlan
from oneflow_jax.shapes import Array, Float, Key, Outputs, PyTree, Sums


def target_counts(canvas: Canvas) -> Sums:
    """How many slots of each kind are not given: what loss terms per slot are divided by."""
    return {
        "text": jnp.sum(canvas.free & canvas.is_text).astype(jnp.float32),
        "image": jnp.sum(canvas.free & canvas.is_image).astype(jnp.float32),
    }


def require_euler(name: str, plan: SamplingPlan) -> None:
    """Refuses other solvers than Euler's for a paradigm whose words jump at each step.

    Raises:
        UserError: the plan has another.
    """
    if plan.schedule.solver != "euler":
        raise UserError(
            f"sampling.solver={plan.schedule.solver!r}: {name} takes one forward pass a step, for "
            "words and pictures together; its solver is 'euler'."
        )


def validate_autoregressive(name: str, plan: SamplingPlan) -> None:
    """Refuses what a paradigm that writes from left to right cannot do.

    Raises:
        UserError: the plan is to revise, to remask, to read in another order, or to guide words.
    """
    if plan.revises:
        raise UserError(f"{name} writes from left to right, and cannot revise a document.")
    if (plan.words.order, plan.words.remask) != (token_sampling.TokenSampling().order, 0.0):
        raise UserError(
            f"sampling.order and remask are for mask_flow; {name} writes from left to right. "
            f"Given: {plan.words}."
        )
    if plan.text_guidance != 1.0:
        raise UserError(
            f"sampling.text_guidance={plan.text_guidance}: {name} has its pictures guided by words "
            "(sampling.guidance), but not words by pictures; give 1.0."
        )


class Paradigm(Protocol):
    """How one family of models corrupts, scores and samples a canvas.

    Implementations are frozen, hashable dataclasses without arrays: static under jit. `counts`,
    `corrupt` and `loss` see one row, `sample` a batch.
    """

    @property
    def heads(self) -> tuple[Head, ...]:
        """What the network must predict of every slot."""

    @property
    def attend(self) -> AttentionPattern:
        """What a slot may see."""

    @property
    def weights(self) -> tuple[tuple[str, float], ...]:
        """The weight of each loss term, by name; the words' own first."""

    @property
    def revises(self) -> bool:
        """Whether it can look over a finished document: sample from a plan that starts late."""

    @property
    def in_step(self) -> "Paradigm":
        """The same, showing all of a document at its time u: as sampling does, not training."""

    def counts(self, canvas: Canvas) -> Sums:
        """By what each term's total is divided: a function of the clean canvas alone."""

    def corrupt(
        self, key: Key[Array, ""], u: Float[Array, "L"], canvas: Canvas, table: EmbeddingTable
    ) -> tuple[NoisyCanvas, PyTree]:
        """What the network is shown, and the targets for `loss`.

        Args:
            key: the row's own randomness.
            u: a number in [0, 1) for each document, spread over its slots: its time, before any
                change of distribution.
            canvas: the clean row.
            table: the vocabulary as vectors, live: gradients flow into it.
        """

    def loss(self, outputs: Outputs, targets: PyTree) -> dict[str, metrics.Average]:
        """Totals and numbers of scored slots of each term, for one row."""

    def check(self, plan: SamplingPlan) -> None:
        """Refuses a plan that asks for what this paradigm cannot do.

        Raises:
            UserError: it does.
        """

    def evaluations(self, plan: SamplingPlan) -> int:
        """NFE: the forward passes that `sample` takes for one batch, as far as the plan has a say.

        0 where it has none; `Sample.passes` says how many there were.
        """

    def sample(
        self,
        apply: guidance.ApplyFn,
        table: EmbeddingTable,
        keys: Key[Array, "B"],
        canvas: Canvas,
        plan: SamplingPlan,
    ) -> SampleOutput:
        """Makes every slot that is not fixed, of all rows at once; a key for each row."""
