"""Held-out losses on a fixed batch of documents, with the same noise at every evaluation."""

import functools
from collections.abc import Sequence

import jax
import jax.numpy as jnp
from clu import metrics

from oneflow_jax.data import streams
from oneflow_jax.flows.training_objective import TrainingObjective
from oneflow_jax.nn.model import Model
from oneflow_jax.runtime import distributed
from oneflow_jax.shapes import PyTree
from oneflow_jax.training import step, update
from oneflow_jax.training.update import Metrics


class EvalLosses:
    """Losses on one batch of documents, by loss term and by time.

    Every call uses the same documents, noise and times. So two calls with equal parameters return
    equal losses.
    """

    def __init__(
        self,
        batches: streams.BatchStreams,
        model: Model,
        paradigm: TrainingObjective,
        time_bins: int,
        seed: int,
    ) -> None:
        """Load the documents.

        Args:
            batches: batches of documents. Only the first batch is used.
            model: the model to evaluate.
            paradigm: the paradigm that corrupts the documents and defines the loss.
            time_bins: number of evenly spaced times u.
            seed: RNG seed of the noise.
        """
        data = iter(batches)
        self._canvas = next(data)
        data.close()
        self._times: Sequence[float] = [(i + 0.5) / time_bins for i in range(time_bins)]
        self._key = jax.random.key(seed)
        losses = functools.partial(step.eval_step, model=model, paradigm=paradigm)
        self._eval_step = jax.jit(lambda *args: update.sum_leading(losses(*args)))

    def __call__(self, params: PyTree) -> dict[str, float]:
        """Return mean losses by name: `eval/loss_text`, and `eval/loss_text/t=0.1` at one time.

        The number in a name is u, the uniform number from which the time sampler computes t. With a
        uniform time sampler, u equals t.
        """
        by_time = [self.at_time(params, u) for u in self._times]
        scored: dict[str, metrics.Average] = {}
        for u, terms in zip(self._times, by_time, strict=True):
            scored |= {f"eval/loss_{name}/t={u:.2f}": term for name, term in terms.items()}
        for name in by_time[0]:
            averages = [terms[name] for terms in by_time]
            scored[f"eval/loss_{name}"] = functools.reduce(lambda a, b: a.merge(b), averages)
        # A term without scored slots has no mean.
        return {name: float(term.compute()) for name, term in scored.items() if term.count > 0}

    def at_time(self, params: PyTree, u: float) -> Metrics:
        """Return loss totals and numbers of scored slots by term, with all documents at time u."""
        return distributed.to_host(self._eval_step(params, self._key, jnp.float32(u), self._canvas))
