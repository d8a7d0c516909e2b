"""Measures as JSON come back as they were."""

import json

import numpy as np

from oneflow_jax.compare import page, serialize
from oneflow_jax.compare.serialize import Estimate, Measures
from oneflow_jax.data.document import Document, Image, Text


def test_measures_come_back():
    pixels = np.random.default_rng(0).integers(0, 256, (8, 8, 3), np.uint8)
    bars = [page.Bar("text", "a fox", 0, 1), page.Bar("image", "picture", 1, 2)]
    found = Measures(
        figures={"kid": Estimate(0.25, (0.125, 0.5)), "parameters": Estimate(10.0)},
        curves={"kid": [page.Point(8, 0.5, 0.25)]},
        samples=[Document((Text("a fox"), Image(pixels), Text("again")))],
        timeline=page.Timeline(2, 0.5, bars),
    )
    again = serialize.measures(json.loads(json.dumps(serialize.plain(found))))
    assert again.figures == found.figures
    assert again.curves == found.curves
    assert again.timeline == found.timeline
    (document,) = again.samples
    assert document.words() == "a fox again"
    np.testing.assert_array_equal(document.pictures()[0], pixels)
    assert [type(part) for part in document.parts] == [Text, Image, Text]
