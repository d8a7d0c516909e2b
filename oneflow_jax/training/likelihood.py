"""Likelihood of held-out text: -log p in nats per document, or an upper bound on -log p.

    nats per document = 1/N · Σ_n E_u [ text loss of document n at u ],   n = 1, ..., N

The text loss is the loss term `text` of the scorer, an objective that corrupts rows and computes
their loss. `paradigms/likelihood.py` defines the scorers, and says whether a scorer gives the exact
value or a bound. Some paradigms have no scorer. For each document, the number u, which sets the
time, takes evenly spaced values. They are shifted from batch to batch by multiples of the golden
ratio conjugate. The unit is nats per document and not nats per token, because paradigms have
different token sequences: some end every document with an END token.
"""

import dataclasses
import functools
from collections.abc import Iterator

import jax
import jax.numpy as jnp
import numpy as np

from oneflow_jax.canvas import Canvas
from oneflow_jax.data import streams
from oneflow_jax.flows import time_samplers
from oneflow_jax.flows.training_objective import TrainingObjective
from oneflow_jax.nn.model import Model
from oneflow_jax.runtime import distributed
from oneflow_jax.shapes import Float, Int, PyTree
from oneflow_jax.training import step

MAX_DOCUMENTS = 1_024
"""Maximum number of documents to score. An incomplete last batch is not scored."""

TIME_SAMPLES = 8
"""Number of times u at which each document is scored, if the scorer's loss depends on time."""

_eval_step = jax.jit(step.eval_step, static_argnames=("model", "paradigm"))


@dataclasses.dataclass(frozen=True)
class NatsPerDocument:
    """Negative log-likelihood of the text of each row in nats, and each row's document count."""

    total: Float[np.ndarray, "rows"]
    num_documents: Int[np.ndarray, "rows"]

    def mean(self, rows: Int[np.ndarray, "some"] | slice = slice(None)) -> float:
        """Return nats per document over all rows, or over the row indices `rows`, which may repeat.

        A row counts as often as its index occurs.
        """
        return float(self.total[rows].sum() / self.num_documents[rows].sum())


class Likelihood:
    """Text likelihood of the first documents of a split, with the same noise at every call."""

    def __init__(
        self,
        batches: streams.BatchStreams,
        num_documents: int,
        model: Model,
        scorer: TrainingObjective,
        is_exact: bool,
        seed: int,
    ) -> None:
        """Load the documents.

        Args:
            batches: endless batches of the split; the first batches are scored.
            num_documents: number of documents in the split. After this number, `batches` repeats
                documents.
            model: the model to evaluate.
            scorer: corrupts and scores rows; its loss term `text` gives -log p or the bound.
            is_exact: whether the term is -log p itself; then it does not depend on u.
            seed: RNG seed of the masking and of the noise.
        """
        self._batches = list(_take(batches, min(MAX_DOCUMENTS, num_documents)))
        self._num_times = 1 if is_exact else TIME_SAMPLES
        self._key = jax.random.key(seed)
        self._eval_step = functools.partial(_eval_step, model=model, paradigm=scorer)

    def __call__(self, params: PyTree) -> NatsPerDocument:
        """Return the nats of the text of each row, averaged over times, and its document count."""
        totals = [
            np.mean(
                [self._score_batch(params, n, k, canvas) for k in range(self._num_times)], axis=0
            )
            for n, (canvas, _) in enumerate(self._batches)
        ]
        documents = [documents for _, documents in self._batches]
        return NatsPerDocument(np.concatenate(totals), np.concatenate(documents))

    def _score_batch(
        self, params: PyTree, batch_index: int, time_index: int, canvas: Canvas
    ) -> Float[np.ndarray, "B"]:
        key = jax.random.fold_in(jax.random.fold_in(self._key, batch_index), time_index)
        u = jnp.float32(
            (time_index + (batch_index + 1) * time_samplers.GOLDEN_RATIO_CONJUGATE % 1)
            / self._num_times
        )
        terms = distributed.to_host(self._eval_step(params, key, u, canvas))
        return np.asarray(terms["text"].total, np.float64)


def _take(
    batches: streams.BatchStreams, max_documents: int
) -> Iterator[tuple[Canvas, Int[np.ndarray, "B"]]]:
    """Yield batches and their rows' document counts, up to `max_documents` documents in total.

    The first batch is always included.
    """
    data, seen = iter(batches), 0
    while True:
        canvas = next(data)
        documents = distributed.to_host(jnp.max(canvas.segment, axis=1))
        seen += int(documents.sum())
        if seen > max(max_documents, documents.sum()):
            break
        yield canvas, documents
    data.close()
