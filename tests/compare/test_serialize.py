"""Measures as JSON come back as they were."""

import json

import numpy as np

from oneflow_jax.compare import page, serialize
from oneflow_jax.compare.serialize import Measurement, RunMeasurements
from oneflow_jax.data.document import Document, Image, Text


def test_measures_come_back():
    pixels = np.random.default_rng(0).integers(0, 256, (8, 8, 3), np.uint8)
    bars = [page.TimelineBar("text", "a fox", 0, 1), page.TimelineBar("image", "picture", 1, 2)]
    found = RunMeasurements(
        figures={"kid": Measurement(0.25, (0.125, 0.5)), "parameters": Measurement(10.0)},
        curves={"kid": [page.CurvePoint(8, 0.5, 0.25)]},
        samples=[Document((Text("a fox"), Image(pixels), Text("again")))],
        timeline=page.Timeline(2, 0.5, bars),
    )
    again = serialize.from_json(json.loads(json.dumps(serialize.to_json(found))))
    assert again.figures == found.figures
    assert again.curves == found.curves
    assert again.timeline == found.timeline
    (document,) = again.samples
    assert document.words() == "a fox again"
    np.testing.assert_array_equal(document.pictures()[0], pixels)
    assert [type(part) for part in document.parts] == [Text, Image, Text]
