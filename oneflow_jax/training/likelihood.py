"""How likely held-out words are to a model: -log p in nats a document, or an upper bound on it.

    nats a document = 1/N · sum over N documents of E_u [ the term `text` of its scorer ]

u is stratified within each batch, and its strata are shifted from batch to batch by multiples of
the golden ratio. Which paradigms have a scorer, and which value or bound it stands for:
`paradigms/likelihood.py`. Nats are per document and not per token, since paradigms disagree on what
tokens there are: some end documents with one.
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
from oneflow_jax.nn.model import Model
from oneflow_jax.paradigms.likelihood import LikelihoodBound
from oneflow_jax.runtime import distributed
from oneflow_jax.shapes import Float, Int, PyTree
from oneflow_jax.training import step

MAX_DOCUMENTS = 1_024
"""So many are scored, or all that there are, but for what does not fill a batch."""

TIME_SAMPLES = 8
"""That each of them is scored at, where the scorer's term depends on the time."""


@dataclasses.dataclass(frozen=True)
class NatsPerDocument:
    """Of each row its nats, and its number of documents."""

    total: Float[np.ndarray, "rows"]
    documents: Int[np.ndarray, "rows"]

    def mean(self, rows: Int[np.ndarray, "some"] | slice = slice(None)) -> float:
        """Nats a document: of all rows, or of some, which may come more than once."""
        return float(self.total[rows].sum() / self.documents[rows].sum())


class Likelihood:
    """Scores the first documents of a split, in the same way at every call."""

    def __init__(
        self,
        batches: streams.BatchStreams,
        available: int,
        model: Model,
        scorer: LikelihoodBound,
        seed: int,
    ) -> None:
        """Loads the documents.

        Args:
            batches: of them the first.
            available: documents of the split: those after so many have come before.
            model: what is scored.
            scorer: how.
            seed: of what is hidden.
        """
        self._batches = list(_take(batches, min(MAX_DOCUMENTS, available)))
        self._times = 1 if scorer.exact else TIME_SAMPLES
        self._key = jax.random.key(seed)
        score = functools.partial(step.eval_step, model=model, paradigm=scorer.paradigm)
        self._step = jax.jit(score)

    def __call__(self, params: PyTree) -> NatsPerDocument:
        """What each row costs."""
        totals = [
            np.mean([self._at(params, n, k, canvas) for k in range(self._times)], axis=0)
            for n, (canvas, _) in enumerate(self._batches)
        ]
        documents = [documents for _, documents in self._batches]
        return NatsPerDocument(np.concatenate(totals), np.concatenate(documents))

    def _at(self, params: PyTree, n: int, k: int, canvas: Canvas) -> Float[np.ndarray, "B"]:
        key = jax.random.fold_in(jax.random.fold_in(self._key, n), k)
        u = jnp.float32((k + (n + 1) * time_samplers.GOLDEN_RATIO_CONJUGATE % 1) / self._times)
        terms = distributed.to_host(self._step(params, key, u, canvas))
        return np.asarray(terms["text"].total, np.float64)


def _take(
    batches: streams.BatchStreams, max_documents: int
) -> Iterator[tuple[Canvas, Int[np.ndarray, "B"]]]:
    """Batches with the numbers of documents of their rows: one, and more within `max_documents`."""
    data, seen = iter(batches), 0
    while True:
        canvas = next(data)
        documents = distributed.to_host(jnp.max(canvas.segment, axis=1))
        seen += int(documents.sum())
        if seen > max(max_documents, documents.sum()):
            break
        yield canvas, documents
    data.close()
