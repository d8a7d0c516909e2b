"""Checked calls of a model, which wait until they run in a batch."""

import dataclasses

from oneflow_jax.data import document as inner
from oneflow_jax.samplers.base import SamplingPlan


@dataclasses.dataclass(frozen=True, eq=False)
class Call:
    """A checked call of `Model.generate` or `Model.edit`.

    Attributes:
        document: the prompt, or the document to edit.
        num_documents: number of documents to generate.
        plan: solver, times and guidance.
        seed: RNG seed.
        row_length: slots of the rows in which the call runs alone.
    """

    document: inner.Document
    num_documents: int
    plan: SamplingPlan
    seed: int
    row_length: int

    @property
    def num_steps(self) -> int:
        """Number of steps of the solver."""
        return len(self.plan.schedule.times)

    @property
    def batch_key(self) -> object:
        """What the calls of one batch have in common: the plan and the length of rows."""
        return self.plan, self.row_length
