"""How likely held-out words are to a model: -log p in nats a document, or an upper bound on it.

    nats a document = 1/N · sum over N documents of E_u [ the term `text` of its scorer ]

u is stratified over the batches, by multiples of the golden ratio. Which paradigms have a scorer,
and which value or bound it stands for: `paradigms/likelihood.py`. Nats are told by the document and
not by the token, since paradigms disagree on what tokens there are: some end documents with one.
"""

import functools
from collections.abc import Iterator

import jax
import jax.numpy as jnp
import numpy as np

from oneflow_jax import processes, step
from oneflow_jax.canvas import Canvas
from oneflow_jax.data import streams
from oneflow_jax.flows import clocks
from oneflow_jax.nn.model import Model
from oneflow_jax.paradigms.base import Paradigm
from oneflow_jax.shapes import PyTree

DOCUMENTS = 256
"""At least so many are scored."""

TIMES = 32
"""That each of them is scored at, where the scorer's term depends on the time."""


class Likelihood:
    """Scores the first documents of a split, in the same way at every call."""

    def __init__(
        self,
        batches: streams.Batches,
        model: Model,
        paradigm: Paradigm,
        times: int,
        seed: int,
    ) -> None:
        """Loads the documents.

        Args:
            batches: of them the first.
            model: what is scored.
            paradigm: a scorer, of `paradigms.likelihood`.
            times: that each document is scored at.
            seed: of what is hidden or deleted.
        """
        self._canvases = list(_first(batches))
        self._times = times
        self._key = jax.random.key(seed)
        self._step = jax.jit(functools.partial(step.eval_step, model=model, paradigm=paradigm))

    def __call__(self, params: PyTree) -> list[float]:
        """Nats a document, of each batch."""
        found = []
        for n, (canvas, documents) in enumerate(self._canvases):
            times = (np.arange(self._times) + n * clocks.GOLDEN % 1) / self._times
            totals = [self._total(params, n, k, u, canvas) for k, u in enumerate(times)]
            found.append(float(np.mean(totals)) / documents)
        return found

    def _total(self, params: PyTree, n: int, k: int, u: float, canvas: Canvas) -> float:
        key = jax.random.fold_in(jax.random.fold_in(self._key, n), k)
        terms = processes.fetched(self._step(params, key, jnp.float32(u), canvas))
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
