"""What evaluation asks of a data set: prompts, and how good the answers are."""

import dataclasses
import functools
from collections.abc import Callable, Mapping, Sequence

import numpy as np
from scipy import stats

from oneflow_jax.data.document import Document
from oneflow_jax.evaluation import bootstrap

GalleryCell = tuple[np.ndarray, str, str]
"""A picture, its caption, and "right" or "wrong": one cell of a contact sheet."""


BootstrapSamples = Mapping[str, np.ndarray]
"""Of figures by name the values `[D]` that they would have with other documents (`intervals`)."""


def _no_bootstrap(seed: int) -> BootstrapSamples:
    del seed
    return {}


@dataclasses.dataclass(frozen=True)
class MetricResult:
    """How good some documents are.

    Attributes:
        figures: of merit by name, 0 to 1.
        cells: what was scored, where there is something to see.
        numbers: other figures, of any range.
        spread: what the figures, and numbers, would be with other documents, by a seed; of those
            that can tell.
    """

    figures: Mapping[str, float]
    cells: tuple[GalleryCell, ...] = ()
    numbers: Mapping[str, float] = dataclasses.field(default_factory=dict)
    spread: Callable[[int], BootstrapSamples] = _no_bootstrap


def score_fractions(
    outcomes: Mapping[str, Sequence[bool]], gallery: tuple[GalleryCell, ...] = ()
) -> MetricResult:
    """The score whose figures are shares: of each, what is right."""

    def spread(seed: int) -> BootstrapSamples:
        return {
            name: bootstrap.resample(functools.partial(_fraction_of_subset, each), len(each), seed)
            for name, each in outcomes.items()
            if len(each)
        }

    return MetricResult(
        {name: fraction(each) for name, each in outcomes.items()}, gallery, spread=spread
    )


def _fraction_of_subset(outcomes: Sequence[bool], indices: np.ndarray) -> float:
    return float(np.asarray(outcomes)[indices].mean())


def merge(*results: MetricResult) -> MetricResult:
    """All figures of several scores of the same documents."""

    def spread(seed: int) -> BootstrapSamples:
        return {name: values for one in results for name, values in one.spread(seed).items()}

    return MetricResult(
        figures={name: x for one in results for name, x in one.figures.items()},
        cells=tuple(cell for one in results for cell in one.cells),
        numbers={name: x for one in results for name, x in one.numbers.items()},
        spread=spread,
    )


@dataclasses.dataclass(frozen=True)
class EvalTask:
    """Documents with gaps or mistakes, and the judge of those that a model makes of them.

    Attributes:
        name: of the task, for files.
        prompts: documents with gaps, or with mistakes.
        score: judges the finished documents, one for each prompt and in their order.
        births: whether pictures may be born on the way, which takes up to twice the passes.
        revises: whether the prompts are to be revised.
        captions: whether words are to be made for pictures that come before them.
    """

    name: str
    prompts: tuple[Document, ...]
    score: Callable[[Sequence[Document]], MetricResult]
    births: bool = False
    revises: bool = False
    captions: bool = False


@dataclasses.dataclass(frozen=True)
class EvalSuite:
    """All tasks of a data set; and figures of the judge's own, whatever the model."""

    tasks: tuple[EvalTask, ...]
    constants: Mapping[str, float]


def diversity(labels: Sequence[str], num_labels: int) -> float:
    """How many of `num_labels` there would be if all that come came equally often, as a share.

    exp(entropy) / kinds: 1 if all come equally often, 1 / kinds if always the same; 0 of none.
    """
    _, counts = np.unique(labels, return_counts=True)
    return float(np.exp(stats.entropy(counts)) / num_labels) if len(labels) else 0.0


def total_variation(generated: Sequence[int], real: Sequence[int]) -> float:
    """Total variation between how often each number comes: 0 if equally, 1 if none is in both."""
    upto = max([*generated, *real], default=0) + 1
    shares = [np.bincount(one, minlength=upto) / max(1, len(one)) for one in (generated, real)]
    return float(np.abs(shares[0] - shares[1]).sum() / 2)


def fraction(outcomes: Sequence[bool]) -> float:
    """How many of them are right, 0 to 1; 0 of none."""
    return float(np.mean(outcomes)) if len(outcomes) else 0.0
