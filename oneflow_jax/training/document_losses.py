"""Losses of single documents, of training and held out, with the same noise at every evaluation.

Each row has one document, so differences between losses have intervals over documents. Two
questions need them:

- Does the loss of held-out documents rise while that of training documents falls? (`overfitting`)
- Do texts and images belong together? The *shuffled gain* answers this question:

    gain = 1 - loss(images | text) / loss(images | text of another document)

Both losses are those at t = 0. The gain of text from images is defined in the same way. A gain of 0
means that the text of any other document predicts the images as well as their own text.
"""

import dataclasses
import functools
from collections.abc import Mapping

import jax
import jax.numpy as jnp
import numpy as np

from oneflow_jax.canvas import Canvas
from oneflow_jax.flows import tasks
from oneflow_jax.flows.training_objective import TrainingObjective
from oneflow_jax.nn.model import Model
from oneflow_jax.runtime import distributed
from oneflow_jax.shapes import Float, PyTree
from oneflow_jax.training import conditioning, eval_loss, step


@dataclasses.dataclass(frozen=True)
class DocumentRows:
    """Rows of one document each, of one split.

    Attributes:
        canvases: batches of rows, of equal shapes; the last one may have surplus rows.
        count: number of documents.
    """

    canvases: tuple[Canvas, ...]
    count: int


@dataclasses.dataclass(frozen=True)
class SplitRows:
    """The documents of one split, in four versions.

    Attributes:
        documents: all documents.
        originals: the documents that have exchanged parts with another one, unchanged.
        other_texts: the images of `originals`, each with the text of another document.
        other_images: the texts of `originals`, each with the images of another document.
    """

    documents: DocumentRows
    originals: DocumentRows
    other_texts: DocumentRows
    other_images: DocumentRows

    def with_other_condition(self, term: str) -> DocumentRows:
        """Return the rows whose condition for a loss term is that of another document."""
        return self.other_texts if term == "image" else self.other_images


def shuffled_gain_names(term: str, split: str) -> tuple[str, str, str]:
    """Return the names of a shuffled gain, and of the ends of its interval."""
    name = f"eval/shuffled_gain_{term}_{split}"
    return name, f"{name}_low", f"{name}_high"


def count_name(split: str) -> str:
    """Return the name of the number of documents that the shuffled gains of a split are from."""
    return f"eval/num_documents_{split}"


class DocumentLosses:
    """Losses of the documents of each split, and shuffled gains."""

    def __init__(
        self,
        splits: Mapping[str, SplitRows],
        model: Model,
        paradigm: TrainingObjective,
        time_bins: int,
        seed: int,
        constants: Mapping[str, float] | None = None,
    ) -> None:
        """Store the documents.

        Args:
            splits: documents of each split, on the devices.
            model: the model to evaluate.
            paradigm: the paradigm that corrupts the documents and defines the loss.
            time_bins: number of evenly spaced times u at which the losses are measured.
            seed: RNG seed of the noise.
            constants: metrics of the documents that do not depend on the model, by name.
        """
        self._constants = dict(constants or {})
        self._splits, self._seed, self._key = splits, seed, jax.random.key(seed)
        self._times = [(n + 0.5) / time_bins for n in range(time_bins)]
        self._losses = functools.partial(_row_losses, model=model, paradigm=paradigm)
        self._terms = [term for term, _ in paradigm.weights]
        shared = paradigm.at_shared_time
        self._conditional = {
            term: functools.partial(
                _row_losses,
                model=model,
                paradigm=dataclasses.replace(shared, task_mixture=tasks.single_task(task)),
            )
            for _, task, term in eval_loss.CONDITIONAL_LOSSES
            if term in self._terms
        }

    def __call__(self, params: PyTree) -> tuple[dict[str, float], dict[str, list[float]]]:
        """Measure the losses of all documents.

        Returns:
            Means and gains by name, and the loss of each document by "<term>_<split>", which is NaN
            for a document without scored slots.
        """
        scalars = dict(self._constants)
        by_document: dict[str, list[float]] = {}
        for split, rows in self._splits.items():
            scalars[count_name(split)] = float(rows.originals.count)
            for term, losses in self._mean_over_times(params, rows.documents).items():
                if np.isfinite(losses).any():
                    by_document[f"{term}_{split}"] = [float(f"{x:.5g}") for x in losses]
                    scalars[f"eval/document_loss_{term}_{split}"] = float(np.nanmean(losses))
            for term in self._conditional:
                scalars |= self._shuffled_gain(params, rows, term, split)
        return scalars, by_document

    def _mean_over_times(
        self, params: PyTree, rows: DocumentRows
    ) -> dict[str, Float[np.ndarray, "n"]]:
        """Return the loss of each document over all times, by term."""
        at_times = [
            self._run(self._losses, params, rows, u, number)
            for number, u in enumerate(self._times, 1)
        ]
        with np.errstate(divide="ignore", invalid="ignore"):
            return {
                term: sum(at[term][0] for at in at_times) / sum(at[term][1] for at in at_times)
                for term in at_times[0]
                if term in self._terms
            }

    def _shuffled_gain(
        self, params: PyTree, rows: SplitRows, term: str, split: str
    ) -> dict[str, float]:
        """Return the gain of a term and its interval, and the loss with the right condition."""
        if not rows.originals.count:
            return {}
        right, other = (
            self._run(self._conditional[term], params, each, 0.0, 0)[term]
            for each in (rows.originals, rows.with_other_condition(term))
        )
        gain = conditioning.measure_gain(right[0], other[0], self._seed)
        if gain is None:
            return {}
        names = shuffled_gain_names(term, split)
        mean = float(right[0].sum() / right[1].sum())
        return dict(zip(names, dataclasses.astuple(gain), strict=True)) | {
            f"eval/conditional_loss_{term}_{split}": mean
        }

    def _run(
        self,
        losses: functools.partial,
        params: PyTree,
        rows: DocumentRows,
        u: float,
        number: int,
    ) -> dict[str, tuple[Float[np.ndarray, "n"], Float[np.ndarray, "n"]]]:
        """Return loss total and number of scored slots of each document, by term."""
        found = [
            distributed.to_host(
                losses(
                    params,
                    jax.random.fold_in(self._key, number * len(rows.canvases) + index),
                    jnp.float32(u),
                    canvas,
                )
            )
            for index, canvas in enumerate(rows.canvases)
        ]
        return {
            term: tuple(
                np.concatenate([getattr(batch[term], name) for batch in found])[: rows.count]
                for name in ("total", "count")
            )
            for term in found[0]
        }


_row_losses = jax.jit(step.eval_step, static_argnames=("model", "paradigm"))
"""The losses of each row; compiled once for equal models, paradigms and shapes."""
