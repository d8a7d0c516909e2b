"""Measures of a training, and how they are kept: as JSON, with pictures as PNG."""

import base64
import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

from oneflow_jax.compare import page
from oneflow_jax.data import pictures
from oneflow_jax.data.document import Document, Image, Part, Text


@dataclasses.dataclass(frozen=True)
class Estimate:
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
class Measures:
    """All that was measured of one training.

    Attributes:
        figures: with the contestant's number of passes.
        curves: values by figure, (passes, seconds a document in batches, value).
        samples: documents made from nothing.
        timeline: how one of them came about.
    """

    figures: Mapping[str, Estimate]
    curves: Mapping[str, Sequence[page.Point]]
    samples: Sequence[Document]
    timeline: page.Timeline


def plain(found: Measures) -> dict[str, Any]:
    """What JSON can hold of them: all."""
    return {
        "figures": {name: dataclasses.asdict(one) for name, one in found.figures.items()},
        "curves": {
            name: [list(point) for point in points] for name, points in found.curves.items()
        },
        "samples": [[_part(part) for part in document.parts] for document in found.samples],
        "timeline": dataclasses.asdict(found.timeline),
    }


def measures(kept: Mapping[str, Any]) -> Measures:
    """The measures of what `plain` has made."""
    bars = [page.Bar(**bar) for bar in kept["timeline"]["parts"]]
    return Measures(
        figures={
            name: Estimate(one["value"], tuple(one["draws"]), one["share"])
            for name, one in kept["figures"].items()
        },
        curves={
            name: [page.Point(*point) for point in points]
            for name, points in kept["curves"].items()
        },
        samples=[Document(tuple(map(_read, parts))) for parts in kept["samples"]],
        timeline=page.Timeline(**{**kept["timeline"], "parts": bars}),
    )


def _part(part: Part) -> dict[str, str]:
    if isinstance(part, Text):
        return {"text": part.text}
    return {"png": base64.b64encode(pictures.to_png(part.pixels)).decode("ascii")}


def _read(kept: Mapping[str, str]) -> Part:
    if "text" in kept:
        return Text(kept["text"])
    return Image(pictures.from_png(base64.b64decode(kept["png"])))
