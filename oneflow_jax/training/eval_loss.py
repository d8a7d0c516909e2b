"""Held-out losses on a fixed batch of documents, with the same noise at every evaluation.

A model can learn to predict text from images without learning to predict images from text, and the
reverse. The losses at t = 0 show whether the model has learned both directions:
`eval/loss_text_given_image` and `eval/loss_image_given_text`.
"""

import dataclasses
import functools
from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
from clu import metrics

from oneflow_jax.canvas import Canvas
from oneflow_jax.data import streams
from oneflow_jax.flows import tasks
from oneflow_jax.flows.training_objective import TrainingObjective
from oneflow_jax.nn.model import Model
from oneflow_jax.runtime import distributed
from oneflow_jax.shapes import Array, Float, Key, PyTree
from oneflow_jax.training import conditioning, step, update
from oneflow_jax.training.update import Metrics

EvalStep = Callable[[PyTree, Array, Array, Canvas], Metrics]
"""Function from parameters, PRNG key, a number and clean rows to losses by term.

The number is u for the losses of a batch, and the dropout probability for conditional losses.
"""

HELDOUT_LOSS = "eval/loss"
"""Name of the held-out loss with the weights of training; the best checkpoint has the lowest."""

CONDITIONAL_LOSSES = (
    ("loss_text_given_image", "image_to_text", "text"),
    ("loss_image_given_text", "text_to_image", "image"),
)
"""Name of each conditional loss, its task, and its loss term."""


class EvalLosses:
    """Losses on one batch of documents, by loss term and by time.

    Every call uses the same documents, noise and times. So two calls with equal parameters return
    equal losses.
    """

    def __init__(
        self,
        batches: streams.BatchStreams,
        train_batches: streams.BatchStreams,
        model: Model,
        paradigm: TrainingObjective,
        time_bins: int,
        seed: int,
    ) -> None:
        """Load the documents.

        Args:
            batches: batches of documents. Only the first batch is used.
            train_batches: batches of training documents, for conditioning gains; likewise.
            model: the model to evaluate.
            paradigm: the paradigm that corrupts the documents and defines the loss.
            time_bins: number of evenly spaced times u at which the losses are measured.
            seed: RNG seed of the noise.
        """
        self._canvas, self._train_batches = _first_batch(batches), train_batches
        self._times: Sequence[float] = [(i + 0.5) / time_bins for i in range(time_bins)]
        self._key, self._weights = jax.random.key(seed), paradigm.weights
        self._eval_step = functools.partial(_eval_step, model=model, paradigm=paradigm)
        terms = {term for term, _ in paradigm.weights}
        self._seed = seed
        shared = paradigm.at_shared_time
        self._conditional_steps = {
            name: (
                term,
                functools.partial(
                    _conditional_rows,
                    model=model,
                    paradigm=dataclasses.replace(shared, task_mixture=tasks.single_task(task)),
                ),
            )
            for name, task, term in CONDITIONAL_LOSSES
            if term in terms
        }

    def __call__(self, params: PyTree) -> dict[str, float]:
        """Return mean losses by name, over all times and at each time.

        For example, `eval/loss_text` is the mean over all times, and `eval/loss_text/t=0.10` is the
        loss at one time. `eval/loss` is the sum of the terms, weighted as in training. The losses
        `eval/loss_text_given_image` and `eval/loss_image_given_text`
        are measured at u = 0, and the condition is clean. Both are missing if the batch has no
        images. Conditioning gains (`conditioning.all_metric_names`) compare them with the losses
        without the condition, also for training documents.

        The number in a name is u, the uniform number from which the time sampler computes t. With a
        uniform time sampler, u equals t.
        """
        by_time = [self.at_time(params, u) for u in self._times]
        scored: dict[str, metrics.Average] = {}
        gains: dict[str, float] = {}
        for u, terms in zip(self._times, by_time, strict=True):
            scored |= {f"eval/loss_{name}/t={u:.2f}": term for name, term in terms.items()}
        for name in by_time[0]:
            averages = [terms[name] for terms in by_time]
            scored[f"eval/loss_{name}"] = functools.reduce(lambda a, b: a.merge(b), averages)
        if "image" in by_time[0] and by_time[0]["image"].count > 0:
            for name, (term, rows) in self._conditional_steps.items():
                for split in conditioning.SPLITS:
                    shown, hidden = (
                        self._run(rows, params, drop, split)[term] for drop in (0.0, 1.0)
                    )
                    gains |= self._gain(term, split, shown, hidden)
                # The last split is that of held-out documents.
                scored[f"eval/{name}"] = metrics.Average(shown.total.sum(), shown.count.sum())
        # A term without scored slots has no mean.
        means = {name: float(term.compute()) for name, term in scored.items() if term.count > 0}
        weighted = [w * means.get(f"eval/loss_{term}", 0.0) for term, w in self._weights]
        return means | gains | {HELDOUT_LOSS: sum(weighted)}

    @functools.cached_property
    def _train_canvas(self) -> Canvas:
        # Only conditioning gains need training documents; learned time grids do without.
        return _first_batch(self._train_batches)

    def _gain(
        self, term: str, split: str, shown: metrics.Average, hidden: metrics.Average
    ) -> dict[str, float]:
        """Return the conditioning gain and its interval by name; {} if it is not defined."""
        gain = conditioning.measure_gain(shown.total, hidden.total, self._seed)
        if gain is None:
            return {}
        names = conditioning.metric_names(term, split)
        return dict(zip(names, dataclasses.astuple(gain), strict=True))

    def at_time(self, params: PyTree, u: float) -> Metrics:
        """Return loss totals and numbers of scored slots by term, with all documents at time u."""
        return self._run(self._eval_step, params, u)

    def _run(
        self, eval_step: EvalStep, params: PyTree, number: float, split: str = "heldout"
    ) -> Metrics:
        canvas = self._train_canvas if split == "train" else self._canvas
        return distributed.to_host(eval_step(params, self._key, jnp.float32(number), canvas))


def _first_batch(batches: streams.BatchStreams) -> Canvas:
    data = iter(batches)
    canvas = next(data)
    data.close()
    return canvas


@functools.partial(jax.jit, static_argnames=("model", "paradigm"))
def _eval_step(
    params: PyTree,
    key: Key[Array, ""],
    u: Float[Array, ""],
    canvas: Canvas,
    *,
    model: Model,
    paradigm: TrainingObjective,
) -> Metrics:
    """Return the loss totals of all rows; compiled once for equal models and paradigms."""
    rows = step.eval_step(params, key, u, canvas, model=model, paradigm=paradigm)
    return update.sum_leading(rows)


@functools.partial(jax.jit, static_argnames=("model", "paradigm"))
def _conditional_rows(
    params: PyTree,
    key: Key[Array, ""],
    cond_drop_prob: Float[Array, ""],
    canvas: Canvas,
    *,
    model: Model,
    paradigm: TrainingObjective,
) -> Metrics:
    """Return the loss totals of each row at u = 0, with the condition hidden with a probability."""
    mixture = dataclasses.replace(paradigm.task_mixture, cond_drop_prob=cond_drop_prob)
    paradigm = dataclasses.replace(paradigm, task_mixture=mixture)
    return step.eval_step(params, key, jnp.float32(0.0), canvas, model=model, paradigm=paradigm)
