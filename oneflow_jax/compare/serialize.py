"""Measures of a training, and how they are kept: as JSON, with pictures as PNG."""

import base64
import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

from oneflow_jax.compare import page
from oneflow_jax.data import pictures
from oneflow_jax.data.document import Document, Image, Part, Text


@dataclasses.dataclass(frozen=True)
class Measurement:
    """A figure of one training.

    Attributes:
        value: the figure.
        draws: what it would be with other documents; none if nobody can tell.
        share: whether it lies between 0 and 1, and with it its interval.
    """

    value: float
    draws: Sequence[float] = ()
    share: bool = False


@dataclasses.dataclass(frozen=True)
class RunMeasurements:
    """All that was measured of one training.

    Attributes:
        figures: with the contestant's number of passes.
        curves: values by figure, (passes, seconds a document in batches, value).
        samples: documents made from nothing.
        timeline: how one of them came about.
    """

    figures: Mapping[str, Measurement]
    curves: Mapping[str, Sequence[page.CurvePoint]]
    samples: Sequence[Document]
    timeline: page.Timeline


def to_json(measurements: RunMeasurements) -> dict[str, Any]:
    """What JSON can hold of them: all."""
    return {
        "figures": {name: dataclasses.asdict(one) for name, one in measurements.figures.items()},
        "curves": {
            name: [list(point) for point in points] for name, points in measurements.curves.items()
        },
        "samples": [
            [_part_to_json(part) for part in document.parts] for document in measurements.samples
        ],
        "timeline": dataclasses.asdict(measurements.timeline),
    }


def from_json(data: Mapping[str, Any]) -> RunMeasurements:
    """The measures of what `to_json` has made."""
    bars = [page.TimelineBar(**bar) for bar in data["timeline"]["parts"]]
    return RunMeasurements(
        figures={
            name: Measurement(one["value"], tuple(one["draws"]), one["share"])
            for name, one in data["figures"].items()
        },
        curves={
            name: [page.CurvePoint(*point) for point in points]
            for name, points in data["curves"].items()
        },
        samples=[Document(tuple(map(_part_from_json, parts))) for parts in data["samples"]],
        timeline=page.Timeline(**{**data["timeline"], "parts": bars}),
    )


def _part_to_json(part: Part) -> dict[str, str]:
    if isinstance(part, Text):
        return {"text": part.text}
    return {"png": base64.b64encode(pictures.to_png(part.pixels)).decode("ascii")}


def _part_from_json(data: Mapping[str, str]) -> Part:
    if "text" in data:
        return Text(data["text"])
    return Image(pictures.from_png(base64.b64decode(data["png"])))
