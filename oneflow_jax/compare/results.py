"""What a comparison of paradigms found: plain data, ready to be shown."""

import dataclasses
import math
from collections.abc import Mapping, Sequence
from typing import Literal, NamedTuple

from oneflow_jax.data import document


@dataclasses.dataclass(frozen=True)
class Estimate:
    """A measured number with its 95 % interval; what has none has `low == high == value`."""

    value: float
    low: float
    high: float

    def __post_init__(self) -> None:
        if not all(map(math.isfinite, dataclasses.astuple(self))) or self.low > self.high:
            raise ValueError(f"{self} is not a finite number with an interval")

    @property
    def exact(self) -> bool:
        """Whether there is nothing to doubt, as in a count of parameters."""
        return self.low == self.high

    def overlaps(self, other: "Estimate") -> bool:
        """Whether the intervals have a point in common."""
        return self.low <= other.high and other.low <= self.high


class CurvePoint(NamedTuple):
    """A place on a curve: a value, and the passes and seconds a document, above 0, that it took."""

    passes: float
    seconds: float
    value: float


@dataclasses.dataclass(frozen=True)
class TimelineBar:
    """A text run or a picture of one document, begun and finished after so many forward passes."""

    kind: Literal["text", "image"]
    label: str
    started: float
    finished: float


@dataclasses.dataclass(frozen=True)
class Timeline:
    """How one document came about: its parts in reading order, and the whole."""

    passes: float
    seconds: float
    parts: Sequence[TimelineBar]

    def __post_init__(self) -> None:
        if self.passes <= 0:
            raise ValueError(f"a document takes more than {self.passes} passes")
        for part in self.parts:
            if not 0 <= part.started <= part.finished <= self.passes:
                raise ValueError(f"{part} is not within the {self.passes} passes of its document")


@dataclasses.dataclass(frozen=True, eq=False, kw_only=True)
class ModelResult:
    """One paradigm and all that was measured of it.

    Attributes:
        name: as configurations and commands call it: 'transfusion'.
        title: as people do: 'Transfusion'.
        family: the generation paradigm of the seed's second table: 'AR + flow'.
        mode: how it generates, as in the seed's first table: 'AR text + flow images'.
        figures: by name; `merits` says what each is.
        absent: why there is no such figure, by name: 'has no captions to write'.
        curves: figures by name, in order of passes; a paradigm without a choice has one point.
        samples: finished documents, of text and pixels.
        timeline: of one of them; None if it was not recorded.
    """

    name: str
    title: str
    family: str
    mode: str
    figures: Mapping[str, Estimate]
    absent: Mapping[str, str] = dataclasses.field(default_factory=dict)
    curves: Mapping[str, Sequence[CurvePoint]] = dataclasses.field(default_factory=dict)
    samples: Sequence[document.Document] = ()
    timeline: Timeline | None = None


@dataclasses.dataclass(frozen=True)
class LatencyResult:
    """Seconds from the prompt to all documents of a batch."""

    title: str
    batch: int
    seconds: Estimate


@dataclasses.dataclass(frozen=True, eq=False, kw_only=True)
class ComparisonResult:
    """All paradigms side by side, and how they were measured.

    Attributes:
        heading: a line.
        contestants: in the order in which tables and colors name them.
        bounds: figures by name of what is not generated: {'real data': ..., 'shuffled': ...}, the
            best that can be hoped for first.
        latency: in any order.
        roofline: tables by title; each has its columns' names as first row.
        notes: who wins where, a sentence each.
        definitions: what a figure is, by name, where `merits` says too little.
        pictures: how many generated pictures the image distances are of.
        budget: training FLOPs of each paradigm.
        seeds: of trainings and samples.
        machine: what was measured on, by name.
        data: what was trained and evaluated on, by name.
        attribution: of the pictures, a line each.
    """

    heading: str = "Words and pictures: one after another, or all at once"
    contestants: Sequence[ModelResult]
    bounds: Mapping[str, Mapping[str, Estimate]] = dataclasses.field(default_factory=dict)
    latency: Sequence[LatencyResult] = ()
    roofline: Mapping[str, Sequence[Sequence[str]]] = dataclasses.field(default_factory=dict)
    notes: Sequence[str] = ()
    definitions: Mapping[str, str] = dataclasses.field(default_factory=dict)
    pictures: int
    budget: float
    seeds: Sequence[int]
    machine: Mapping[str, str]
    data: Mapping[str, str]
    attribution: Sequence[str] = ()

    def __post_init__(self) -> None:
        names = [one.name for one in self.contestants]
        if not names or len(set(names)) < len(names):
            raise ValueError(f"contestants are to be one or more, each once: {names}")
