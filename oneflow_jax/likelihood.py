"""How likely held-out words are to a model: -log p in nats a document, or an upper bound on it.

    nats a document = 1/N · sum over N documents of E_u [ the term `text` of its scorer ]

u is stratified within each batch, and its strata are shifted from batch to batch by multiples of
the golden ratio. Which paradigms have a scorer, and which value or bound it stands for:
`paradigms/scorers.py`. Nats are told by the document and not by the token, since paradigms disagree
on what tokens there are: some end documents with one.
"""

import dataclasses
import functools
from collections.abc import Iterator, Sequence

import jax
import jax.numpy as jnp
import numpy as np

from oneflow_jax import processes, step
from oneflow_jax.canvas import Canvas
from oneflow_jax.data import streams
from oneflow_jax.flows import clocks
from oneflow_jax.nn.model import Model
from oneflow_jax.paradigms.scorers import Scorer
from oneflow_jax.shapes import PyTree

DOCUMENTS = 1_024
"""At least so many are scored."""

TIMES = 8
"""That each of them is scored at, where the scorer's term depends on the time."""


@dataclasses.dataclass(frozen=True)
class Nats:
    """Of each batch its nats, and its number of documents."""

    total: Sequence[float]
    documents: Sequence[int]

    def mean(self, batches: Sequence[int] | None = None) -> float:
        """Nats a document: of all batches, or of some, which may come more than once."""
        chosen = range(len(self.total)) if batches is None else batches
        return sum(self.total[n] for n in chosen) / sum(self.documents[n] for n in chosen)


class Likelihood:
    """Scores the first documents of a split, in the same way at every call."""

    def __init__(self, batches: streams.Batches, model: Model, scorer: Scorer, seed: int) -> None:
        """Loads the documents.

        Args:
            batches: of them the first.
            model: what is scored.
            scorer: how.
            seed: of what is hidden.
        """
        self._canvases = list(_first(batches))
        self._times = 1 if scorer.exact else TIMES
        self._key = jax.random.key(seed)
        score = functools.partial(step.eval_step, model=model, paradigm=scorer.paradigm)
        self._step = jax.jit(score)

    def __call__(self, params: PyTree) -> Nats:
        """What each batch costs."""
        totals = [
            float(np.mean([self._at(params, n, k, canvas) for k in range(self._times)]))
            for n, (canvas, _) in enumerate(self._canvases)
        ]
        return Nats(totals, [documents for _, documents in self._canvases])

    def _at(self, params: PyTree, n: int, k: int, canvas: Canvas) -> float:
        key = jax.random.fold_in(jax.random.fold_in(self._key, n), k)
        u = jnp.float32((k + (n + 1) * clocks.GOLDEN % 1) / self._times)
        terms = processes.fetched(self._step(params, key, u, canvas))
        return float(terms["text"].total)


def _first(batches: streams.Batches) -> Iterator[tuple[Canvas, int]]:
    """Batches with their numbers of documents."""
    data, seen = iter(batches), 0
    while seen < DOCUMENTS:
        canvas = next(data)
        documents = int(processes.fetched(jnp.sum(jnp.max(canvas.segment, axis=1))))
        seen += documents
        yield canvas, documents
    data.close()
