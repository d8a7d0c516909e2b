"""Checked calls of a model, which wait until they run in a batch."""

import dataclasses
from collections.abc import Sequence

from oneflow_jax.data import document as inner
from oneflow_jax.samplers.base import SamplingPlan


@dataclasses.dataclass(frozen=True, eq=False)
class Call:
    """A checked call of `Model.generate` or `Model.edit`.

    Attributes:
        documents: one prompt for each document to generate, or the document to edit. The prompts
            differ if the model does not choose layouts (`generation.layout_choice`).
        plan: solver, times and guidance.
        seed: RNG seed.
        row_length: slots of the rows in which the call runs alone.
    """

    documents: Sequence[inner.Document]
    plan: SamplingPlan
    seed: int
    row_length: int

    @property
    def num_documents(self) -> int:
        """Number of documents to generate."""
        return len(self.documents)

    @property
    def num_steps(self) -> int:
        """Number of steps of the solver."""
        return len(self.plan.schedule.times)

    @property
    def batch_key(self) -> object:
        """What the calls of one batch have in common: the plan and the length of rows."""
        return self.plan, self.row_length
