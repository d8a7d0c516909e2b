"""Interface of a paradigm: one family of models, with its corruption, loss and sampler.

One object has all three, so that training and sampling always use the same definitions. The
training step and the generator call the interface and do not depend on the paradigm.
"""

from typing import Protocol

import jax.numpy as jnp

from oneflow_jax.canvas import AttentionPattern, Canvas, EmbeddingTable, Head
from oneflow_jax.errors import UserError
from oneflow_jax.flows.training_objective import TrainingObjective
from oneflow_jax.samplers import guidance, token_sampling
from oneflow_jax.samplers.base import SamplingPlan
from oneflow_jax.samplers.steps import Sampler
from oneflow_jax.shapes import Array, Key, Sums


def target_counts(canvas: Canvas) -> Sums:
    """Count the text slots and the image slots to generate, the divisors of the loss totals."""
    return {
        "text": jnp.sum(canvas.to_generate & canvas.is_text).astype(jnp.float32),
        "image": jnp.sum(canvas.to_generate & canvas.is_image).astype(jnp.float32),
    }


def require_euler(name: str, plan: SamplingPlan) -> None:
    """Check that the solver is Euler's method, whose one forward pass per step samples tokens too.

    Raises:
        UserError: the plan has another solver.
    """
    if plan.schedule.solver != "euler":
        raise UserError(
            f"sampling.solver={plan.schedule.solver!r}: {name} takes one forward pass per step, "
            "for text and images together. Give 'euler'."
        )


def validate_autoregressive(name: str, plan: SamplingPlan) -> None:
    """Check that an autoregressive paradigm can follow the plan.

    Raises:
        UserError: the plan edits, remasks, unmasks in another order, guides text, or has a
            confidence threshold.
    """
    if plan.is_edit:
        raise UserError(
            f"{name} writes from left to right and cannot edit a document. Give a prompt with gaps."
        )
    if (plan.token_sampling.unmask_order, plan.token_sampling.remask_prob) != (
        token_sampling.TokenSampling().unmask_order,
        0.0,
    ):
        raise UserError(
            f"sampling.unmask_order and sampling.remask_prob are for mask_flow; {name} writes from "
            f"left to right. Leave both at their defaults. Given: {plan.token_sampling}."
        )
    if plan.text_guidance_scale != 1.0:
        raise UserError(
            f"sampling.text_guidance_scale={plan.text_guidance_scale}: {name} guides images by "
            "text (sampling.image_guidance_scale), but not text by images. Give 1.0."
        )
    if plan.confidence_threshold != 1.0:
        raise UserError(
            f"sampling.confidence_threshold={plan.confidence_threshold}: {name} never changes a "
            "token that it has written. Give 1.0."
        )


class Paradigm(TrainingObjective, Protocol):
    """Corruption, loss and sampler of one family of models.

    `TrainingObjective` has the members for training: `weights`, `at_shared_time`, `counts`,
    `corrupt` and `loss`. These methods work on one row, `sampler` on a batch.
    """

    @property
    def heads(self) -> tuple[Head, ...]:
        """The heads that the network needs for every slot."""

    @property
    def attention_pattern(self) -> AttentionPattern:
        """Which slots a slot may attend to."""

    @property
    def supports_editing(self) -> bool:
        """Whether the model can edit a finished document, with a plan that starts at t > 0."""

    @property
    def at_shared_time(self) -> "Paradigm":
        """Copy of this paradigm in which all slots of a document have the same time, t = u."""

    def validate(self, plan: SamplingPlan) -> None:
        """Check that the paradigm can follow a plan.

        Raises:
            UserError: the paradigm cannot follow the plan.
        """

    def nfe(self, plan: SamplingPlan) -> int:
        """Return the number of forward passes (NFE) that sampling takes for one batch.

        The result is 0 if the plan does not determine the NFE. `SampleOutput.nfe` is the number of
        passes that sampling actually took.
        """

    def sampler(
        self,
        apply: guidance.ApplyFn,
        table: EmbeddingTable,
        keys: Key[Array, "B"],
        canvas: Canvas,
        plan: SamplingPlan,
    ) -> Sampler:
        """Return the sampler that generates all slots that are not given, in all rows at once.

        `keys` has one PRNG key per row.
        """
