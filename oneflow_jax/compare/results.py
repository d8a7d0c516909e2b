"""Results of a comparison of paradigms, as plain data for tables, charts and pages."""

import dataclasses
import math
from collections.abc import Mapping, Sequence
from typing import Literal, NamedTuple

from oneflow_jax.data import document


@dataclasses.dataclass(frozen=True)
class Estimate:
    """A value with its 95 % interval [low, high]; an exact value has `low == high == value`."""

    value: float
    low: float
    high: float

    def __post_init__(self) -> None:
        if not all(map(math.isfinite, dataclasses.astuple(self))) or self.low > self.high:
            raise ValueError(f"{self}: all values must be finite, and low must not be above high")

    @property
    def exact(self) -> bool:
        """Whether the value has no uncertainty; for example, a number of parameters is exact."""
        return self.low == self.high

    def overlaps(self, other: "Estimate") -> bool:
        """Return whether the two intervals overlap."""
        return self.low <= other.high and other.low <= self.high


class CurvePoint(NamedTuple):
    """A point of a curve: a metric's value at a cost in forward passes and seconds per document."""

    nfe: float
    seconds: float
    value: float


@dataclasses.dataclass(frozen=True)
class TimelineBar:
    """A text span or image of a document, and the forward passes between which it is generated."""

    kind: Literal["text", "image"]
    label: str
    started: float
    finished: float


@dataclasses.dataclass(frozen=True)
class Timeline:
    """Forward passes that generated each part of a document; `parts` are in reading order."""

    passes: float
    seconds: float
    parts: Sequence[TimelineBar]

    def __post_init__(self) -> None:
        if self.passes <= 0:
            raise ValueError(f"Timeline.passes={self.passes} must be positive")
        for part in self.parts:
            if not 0 <= part.started <= part.finished <= self.passes:
                raise ValueError(f"{part} does not lie within Timeline.passes={self.passes}")


@dataclasses.dataclass(frozen=True, eq=False, kw_only=True)
class ModelResult:
    """A paradigm and all of its measurements.

    Attributes:
        name: name of the paradigm in configurations, such as 'transfusion'.
        title: display name, such as 'Transfusion'.
        family: family of the paradigm, such as 'AR + flow'.
        mode: how the paradigm generates, such as 'text left to right, images by flow matching'.
        metrics: estimates by name of the metric; see `compare.metrics`.
        absence_reasons: reason why a metric is missing, by name of the metric.
        curves: points in order of forward passes, by name of the metric. A paradigm whose number of
            forward passes cannot be chosen has a single point.
        samples: generated documents, with text and pixels.
        timeline: timeline of one document; None if it was not recorded.
    """

    name: str
    title: str
    family: str
    mode: str
    metrics: Mapping[str, Estimate]
    absence_reasons: Mapping[str, str] = dataclasses.field(default_factory=dict)
    curves: Mapping[str, Sequence[CurvePoint]] = dataclasses.field(default_factory=dict)
    samples: Sequence[document.Document] = ()
    timeline: Timeline | None = None


@dataclasses.dataclass(frozen=True)
class LatencyResult:
    """Latency of a model: seconds from the prompts to the last finished document of a batch."""

    title: str
    batch_size: int
    seconds: Estimate


@dataclasses.dataclass(frozen=True, eq=False, kw_only=True)
class ComparisonResult:
    """Results of all paradigms, and how they were measured.

    Attributes:
        heading: title of the page.
        models: results of each model, in the order of tables and colors.
        reference_bounds: metrics of reference data that no model generated, by title, such as
            {'real data': ..., 'shuffled': ...}; the upper bound comes first.
        latency: latency by model and batch size, in any order.
        roofline: tables of roofline estimates by title; the first row names the columns.
        notes: sentences about the results and the method.
        definitions: descriptions of metrics by name; they replace those in `compare.metrics`.
        num_images: number of generated images that the image distances are measured on.
        flops_budget: training FLOPs of each paradigm.
        seeds: RNG seeds of training runs and samples.
        machine: properties of the machine that ran the measurements, by name.
        data: properties of the training and evaluation data, by name.
        attribution: lines of attribution of the images.
    """

    heading: str = "Text and images: left to right, or all at once"
    models: Sequence[ModelResult]
    reference_bounds: Mapping[str, Mapping[str, Estimate]] = dataclasses.field(default_factory=dict)
    latency: Sequence[LatencyResult] = ()
    roofline: Mapping[str, Sequence[Sequence[str]]] = dataclasses.field(default_factory=dict)
    notes: Sequence[str] = ()
    definitions: Mapping[str, str] = dataclasses.field(default_factory=dict)
    num_images: int
    flops_budget: float
    seeds: Sequence[int]
    machine: Mapping[str, str]
    data: Mapping[str, str]
    attribution: Sequence[str] = ()

    def __post_init__(self) -> None:
        names = [one.name for one in self.models]
        if not names or len(set(names)) < len(names):
            raise ValueError(f"models={names}: give one or more, with unique names")
