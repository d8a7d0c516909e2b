"""What evaluation asks of a data set: prompts, and how good the answers are."""

import dataclasses
from collections.abc import Callable, Mapping, Sequence

import numpy as np
from scipy import stats

from oneflow_jax.data.document import Document

Cell = tuple[np.ndarray, str, str]
"""A picture, its caption, and "right" or "wrong": one cell of a contact sheet."""


@dataclasses.dataclass(frozen=True)
class Score:
    """Figures of merit by name, 0 to 1; and, where there is something to see, what was scored."""

    figures: Mapping[str, float]
    cells: tuple[Cell, ...] = ()


@dataclasses.dataclass(frozen=True)
class Task:
    """Documents with gaps or mistakes, and the judge of those that a model makes of them.

    Attributes:
        name: of the task, for files.
        prompts: documents with gaps, or with mistakes.
        score: judges the finished documents, one for each prompt and in their order.
        births: whether pictures may be born on the way, which takes up to twice the passes.
        revises: whether the prompts are to be revised.
    """

    name: str
    prompts: tuple[Document, ...]
    score: Callable[[Sequence[Document]], Score]
    births: bool = False
    revises: bool = False


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
