"""Classes of evaluation suites, their tasks and their results, and metrics that tasks share."""

import dataclasses
import functools
from collections.abc import Callable, Mapping, Sequence

import numpy as np

from oneflow_jax.data.document import Document
from oneflow_jax.evaluation import bootstrap

GalleryCell = tuple[np.ndarray, str, str]
"""One cell of a contact sheet: an image, its caption, and "right", "wrong" or "" (not scored)."""


BootstrapSamples = Mapping[str, np.ndarray]
"""Bootstrap values `[D]` of each metric, by name: one for each of D resampled document sets."""


def _no_bootstrap(seed: int) -> BootstrapSamples:
    del seed
    return {}


@dataclasses.dataclass(frozen=True)
class MetricResult:
    """Metrics of a set of documents.

    Attributes:
        metrics: metrics in the range 0 to 1, by name.
        gallery: scored images with their captions, for a contact sheet; may be empty.
        unbounded: metrics with other ranges, by name.
        bootstrap: function that maps an RNG seed to bootstrap values of `metrics` and `unbounded`.
            Metrics for which resampling is not implemented are absent from its result.
    """

    metrics: Mapping[str, float]
    gallery: tuple[GalleryCell, ...] = ()
    unbounded: Mapping[str, float] = dataclasses.field(default_factory=dict)
    bootstrap: Callable[[int], BootstrapSamples] = _no_bootstrap


def score_fractions(
    outcomes: Mapping[str, Sequence[bool]], gallery: tuple[GalleryCell, ...] = ()
) -> MetricResult:
    """Return a result with one metric per name in `outcomes`: the fraction of True values."""

    def bootstrap_fractions(seed: int) -> BootstrapSamples:
        return {
            name: bootstrap.resample(functools.partial(_fraction_of_subset, each), len(each), seed)
            for name, each in outcomes.items()
            if len(each)
        }

    return MetricResult(
        {name: fraction(each) for name, each in outcomes.items()},
        gallery,
        bootstrap=bootstrap_fractions,
    )


def _fraction_of_subset(outcomes: Sequence[bool], indices: np.ndarray) -> float:
    return float(np.asarray(outcomes)[indices].mean())


def merge(*results: MetricResult) -> MetricResult:
    """Merge several results for the same documents into one with the metrics of all."""

    def spread(seed: int) -> BootstrapSamples:
        return {name: values for one in results for name, values in one.bootstrap(seed).items()}

    return MetricResult(
        metrics={name: x for one in results for name, x in one.metrics.items()},
        gallery=tuple(cell for one in results for cell in one.gallery),
        unbounded={name: x for one in results for name, x in one.unbounded.items()},
        bootstrap=spread,
    )


@dataclasses.dataclass(frozen=True)
class EvalTask:
    """Prompts with gaps or errors, and a function that scores a model's answers.

    Attributes:
        name: name of the task, used in file names.
        prompts: documents with gaps to fill or errors to correct.
        score: function that scores the generated documents, one per prompt, in the same order.
        may_insert_images: whether the model may insert images during sampling, which takes up to
            twice the NFE.
        is_editing: whether the model corrects errors in the prompts instead of filling gaps.
        is_captioning: whether the model generates text for an image that comes before the text.
        noise_ids: for each prompt, a number that determines its noise together with the seed; ()
            for the prompt's index, so that all prompts have different noise.
    """

    name: str
    prompts: tuple[Document, ...]
    score: Callable[[Sequence[Document]], MetricResult]
    may_insert_images: bool = False
    is_editing: bool = False
    is_captioning: bool = False
    noise_ids: tuple[int, ...] = ()


@dataclasses.dataclass(frozen=True)
class Sheet:
    """A contact sheet of generated documents beside real ones.

    Attributes:
        headers: header of each column.
        cells: cells in reading order.
    """

    headers: tuple[str, ...]
    cells: tuple[GalleryCell, ...]


Documents = Sequence[Document]

DocumentsByTask = dict[str, Documents]
"""The generated documents of each task, by its name."""


def _no_sheet(generated: DocumentsByTask) -> None:
    del generated


@dataclasses.dataclass(frozen=True)
class EvalSuite:
    """All tasks of a data set.

    Attributes:
        tasks: the tasks.
        measure_reference: function that returns metrics of the data or of a classifier, by name.
            These metrics do not depend on the model. The function may take minutes, because it may
            train the classifier.
        make_sheet: function that maps the generated documents of each task, by its name, to a
            contact sheet, or to None.
    """

    tasks: tuple[EvalTask, ...]
    measure_reference: Callable[[], Mapping[str, float]] = dict
    make_sheet: Callable[[DocumentsByTask], Sheet | None] = _no_sheet


def diversity(labels: Sequence[str], num_labels: int) -> float:
    """Return the effective number of distinct labels, exp(entropy), divided by `num_labels`.

    The result is 1 if all labels are equally frequent, 1 / `num_labels` if all labels are the same,
    and 0 without labels.
    """
    if not len(labels):
        return 0.0
    _, counts = np.unique(labels, return_counts=True)
    frequencies = counts / len(labels)
    entropy = -np.sum(frequencies * np.log(frequencies))
    return float(np.exp(entropy) / num_labels)


def total_variation(generated: Sequence[int], real: Sequence[int]) -> float:
    """Return the total variation distance between the value frequencies of two lists, 0 to 1."""
    upto = max([*generated, *real], default=0) + 1
    shares = [np.bincount(one, minlength=upto) / max(1, len(one)) for one in (generated, real)]
    return float(np.abs(shares[0] - shares[1]).sum() / 2)


def fraction(outcomes: Sequence[bool]) -> float:
    """Return the fraction of true outcomes, 0 to 1; 0 without outcomes."""
    return float(np.mean(outcomes)) if len(outcomes) else 0.0
