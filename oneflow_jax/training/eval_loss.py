"""Held-out losses: one batch of documents, scored again and again in the same way."""

import functools
from collections.abc import Sequence

import jax
import jax.numpy as jnp
from clu import metrics

from oneflow_jax.data import streams
from oneflow_jax.nn.model import Model
from oneflow_jax.paradigms.base import Paradigm
from oneflow_jax.runtime import distributed
from oneflow_jax.shapes import PyTree
from oneflow_jax.training import step, update
from oneflow_jax.training.update import Metrics


class EvalLosses:
    """Losses of one batch of documents, by term and by clock.

    The same documents, the same noise and the same times at every call, so that two calls differ
    by the parameters alone.
    """

    def __init__(
        self,
        batches: streams.BatchStreams,
        model: Model,
        paradigm: Paradigm,
        clocks: int,
        seed: int,
    ) -> None:
        """Loads the documents.

        Args:
            batches: of them the first.
            model: what is scored.
            paradigm: how.
            clocks: how many times u, evenly spread.
            seed: of the noise.
        """
        data = iter(batches)
        self._canvas = next(data)
        data.close()
        self._clocks: Sequence[float] = [(i + 0.5) / clocks for i in range(clocks)]
        self._key = jax.random.key(seed)
        losses = functools.partial(step.eval_step, model=model, paradigm=paradigm)
        self._step = jax.jit(lambda *shown: update.sum_leading(losses(*shown)))

    def __call__(self, params: PyTree) -> dict[str, float]:
        """Mean loss by name: `heldout/text`, and `heldout/text/u=0.1` for one time.

        u is the document's time before any change of distribution; it is the clock itself where
        the paradigm's clock is uniform.
        """
        by_clock = [self.at(params, u) for u in self._clocks]
        scored: dict[str, metrics.Average] = {}
        for u, terms in zip(self._clocks, by_clock, strict=True):
            scored |= {f"heldout/{name}/u={u:.2f}": term for name, term in terms.items()}
        for name in by_clock[0]:
            every = [terms[name] for terms in by_clock]
            scored[f"heldout/{name}"] = functools.reduce(lambda a, b: a.merge(b), every)
        # What nothing was scored for has no mean.
        return {name: float(term.compute()) for name, term in scored.items() if term.count > 0}

    def at(self, params: PyTree, u: float) -> Metrics:
        """Totals and numbers of scored slots by term, with all documents at the same u."""
        return distributed.to_host(self._step(params, self._key, jnp.float32(u), self._canvas))
