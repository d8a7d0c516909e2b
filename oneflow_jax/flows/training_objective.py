"""The interface that training needs from a paradigm: corruption and loss of one row."""

from typing import Protocol

from clu import metrics

from oneflow_jax.canvas import Canvas, EmbeddingTable, NoisyCanvas
from oneflow_jax.flows import tasks
from oneflow_jax.shapes import Array, Float, Key, Outputs, PyTree, Sums


class TrainingObjective(Protocol):
    """Corruption and loss of one family of models.

    `paradigms.base.Paradigm` adds the members that sampling needs. Implementations are frozen,
    hashable dataclasses without arrays, so they can be static arguments of jit. All methods work on
    one row.
    """

    @property
    def weights(self) -> tuple[tuple[str, float], ...]:
        """The weight of each loss term, by name; the main text term comes first."""

    @property
    def task_mixture(self) -> tasks.TaskMixture:
        """The training tasks and their probabilities; a field, for `dataclasses.replace`."""

    @property
    def at_shared_time(self) -> "TrainingObjective":
        """Copy of this objective in which all slots of a document have the same time, t = u.

        The copy serves to measure the loss as a function of t, with equal times of all slots as in
        sampling.
        """

    def counts(self, canvas: Canvas) -> Sums:
        """Return the divisor of each loss term's total, counted on the clean canvas."""

    def corrupt(
        self, key: Key[Array, ""], u: Float[Array, "L"], canvas: Canvas, table: EmbeddingTable
    ) -> tuple[NoisyCanvas, PyTree]:
        """Corrupt a row; return the input of the network and the targets for `loss`.

        Args:
            key: random key of the row.
            u: uniform number in [0, 1) of each slot's document; the time sampler maps it to a time.
            canvas: the clean row.
            table: the token embeddings; the gradient of the loss reaches them through the result.
        """

    def loss(self, outputs: Outputs, targets: PyTree) -> dict[str, metrics.Average]:
        """Return the total of each loss term of one row and the number of slots in the total."""
