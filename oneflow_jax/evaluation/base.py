"""What evaluation asks of a data set: prompts, and how good the answers are."""

import dataclasses
import functools
from collections.abc import Callable, Mapping, Sequence

import numpy as np
from scipy import stats

from oneflow_jax.data.document import Document
from oneflow_jax.evaluation import bootstrap

Cell = tuple[np.ndarray, str, str]
"""A picture, its caption, and "right" or "wrong": one cell of a contact sheet."""


Draws = Mapping[str, np.ndarray]
"""Of figures by name the values `[D]` that they would have with other documents (`intervals`)."""


def _unknown(seed: int) -> Draws:
    del seed
    return {}


@dataclasses.dataclass(frozen=True)
class Score:
    """How good some documents are.

    Attributes:
        figures: of merit by name, 0 to 1.
        cells: what was scored, where there is something to see.
        numbers: other figures, of any range.
        spread: what the figures, and numbers, would be with other documents, by a seed; of those
            that can tell.
    """

    figures: Mapping[str, float]
    cells: tuple[Cell, ...] = ()
    numbers: Mapping[str, float] = dataclasses.field(default_factory=dict)
    spread: Callable[[int], Draws] = _unknown


def shares(right: Mapping[str, Sequence[bool]], cells: tuple[Cell, ...] = ()) -> Score:
    """The score whose figures are shares: of each, what is right."""

    def spread(seed: int) -> Draws:
        return {
            name: bootstrap.drawn(functools.partial(_share_of, each), len(each), seed)
            for name, each in right.items()
            if len(each)
        }

    return Score({name: share(each) for name, each in right.items()}, cells, spread=spread)


def _share_of(right: Sequence[bool], numbers: np.ndarray) -> float:
    return float(np.asarray(right)[numbers].mean())


def together(*scores: Score) -> Score:
    """All figures of several scores of the same documents."""

    def spread(seed: int) -> Draws:
        return {name: values for one in scores for name, values in one.spread(seed).items()}

    return Score(
        figures={name: x for one in scores for name, x in one.figures.items()},
        cells=tuple(cell for one in scores for cell in one.cells),
        numbers={name: x for one in scores for name, x in one.numbers.items()},
        spread=spread,
    )


@dataclasses.dataclass(frozen=True)
class Task:
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
    score: Callable[[Sequence[Document]], Score]
    births: bool = False
    revises: bool = False
    captions: bool = False


@dataclasses.dataclass(frozen=True)
class Suite:
    """All tasks of a data set; and figures of the judge's own, whatever the model."""

    tasks: tuple[Task, ...]
    constants: Mapping[str, float]


def variety(made: Sequence[str], kinds: int) -> float:
    """How many of `kinds` there would be if all that come came equally often, as a share.

    exp(entropy) / kinds: 1 if all come equally often, 1 / kinds if always the same; 0 of none.
    """
    _, counts = np.unique(made, return_counts=True)
    return float(np.exp(stats.entropy(counts)) / kinds) if len(made) else 0.0


def distance(made: Sequence[int], real: Sequence[int]) -> float:
    """Total variation between how often each number comes: 0 if equally, 1 if none is in both."""
    upto = max([*made, *real], default=0) + 1
    shares = [np.bincount(one, minlength=upto) / max(1, len(one)) for one in (made, real)]
    return float(np.abs(shares[0] - shares[1]).sum() / 2)


def share(right: Sequence[bool]) -> float:
    """How many of them are right, 0 to 1; 0 of none."""
    return float(np.mean(right)) if len(right) else 0.0
