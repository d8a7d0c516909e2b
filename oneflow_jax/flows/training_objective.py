"""Interface of what training needs of a paradigm: corruption and loss of one row."""

from typing import Protocol

from clu import metrics

from oneflow_jax.canvas import Canvas, EmbeddingTable, NoisyCanvas
from oneflow_jax.flows import tasks
from oneflow_jax.shapes import Array, Float, Key, Outputs, PyTree, Sums


class TrainingObjective(Protocol):
    """Corruption and loss of one family of models.

    `paradigms.base.Paradigm` extends it by what sampling needs. Implementations are frozen,
    hashable dataclasses without arrays: static under jit. All methods work on one row.
    """

    @property
    def weights(self) -> tuple[tuple[str, float], ...]:
        """The weight of each loss term, by name; the main text term comes first."""

    @property
    def task_mixture(self) -> tasks.TaskMixture:
        """The training tasks and their probabilities; a field that `dataclasses.replace` sets."""

    @property
    def at_shared_time(self) -> "TrainingObjective":
        """Copy of this objective in which all slots of a document have the same time, t = u.

        The copy is for measuring the loss as a function of t. Sampling gives all slots one time
        too.
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
            table: the token embeddings, which the loss trains through the result.
        """

    def loss(self, outputs: Outputs, targets: PyTree) -> dict[str, metrics.Average]:
        """Return the total of each loss term of one row and the number of slots in the total."""
