"""Measurements of a training run, and their conversion to and from JSON."""

import base64
import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

from oneflow_jax.compare import page
from oneflow_jax.data import image_io
from oneflow_jax.data.document import Document, Image, Part, Text
from oneflow_jax.runtime import renamed_keys


@dataclasses.dataclass(frozen=True)
class Measurement:
    """A metric of one training run.

    Attributes:
        value: value of the metric.
        draws: bootstrap values over documents; empty if the metric has none.
        share: whether the metric is a fraction, whose interval is clipped to [0, 1].
    """

    value: float
    draws: Sequence[float] = ()
    share: bool = False


@dataclasses.dataclass(frozen=True)
class RunMeasurements:
    """All measurements of a training run.

    Attributes:
        metrics: metrics at the model's `reported_nfe`, by name.
        curves: points at each number of forward passes, by name of the metric.
        samples: documents that were generated without a prompt.
        timeline: timeline of one document.
    """

    metrics: Mapping[str, Measurement]
    curves: Mapping[str, Sequence[page.CurvePoint]]
    samples: Sequence[Document]
    timeline: page.Timeline


def to_json(measurements: RunMeasurements) -> dict[str, Any]:
    """Convert measurements to values that JSON supports; images become base64 PNG."""
    return {
        "figures": {name: dataclasses.asdict(one) for name, one in measurements.metrics.items()},
        "curves": {
            name: [list(point) for point in points] for name, points in measurements.curves.items()
        },
        "samples": [
            [_part_to_json(part) for part in document.parts] for document in measurements.samples
        ],
        "timeline": dataclasses.asdict(measurements.timeline),
    }


def from_json(data: Mapping[str, Any]) -> RunMeasurements:
    """Convert a result of `to_json` back to measurements; old names of metrics are replaced."""
    bars = [page.TimelineBar(**bar) for bar in data["timeline"]["parts"]]
    return RunMeasurements(
        metrics={
            renamed_keys.upgrade_metric(name): Measurement(
                one["value"], tuple(one["draws"]), one["share"]
            )
            for name, one in data["figures"].items()
        },
        curves={
            renamed_keys.upgrade_metric(name): [page.CurvePoint(*point) for point in points]
            for name, points in data["curves"].items()
        },
        samples=[Document(tuple(map(_part_from_json, parts))) for parts in data["samples"]],
        timeline=page.Timeline(**{**data["timeline"], "parts": bars}),
    )


def _part_to_json(part: Part) -> dict[str, str]:
    if isinstance(part, Text):
        return {"text": part.text}
    return {"png": base64.b64encode(image_io.to_png(part.pixels)).decode("ascii")}


def _part_from_json(data: Mapping[str, str]) -> Part:
    if "text" in data:
        return Text(data["text"])
    return Image(image_io.from_png(base64.b64decode(data["png"])))
