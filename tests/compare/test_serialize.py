"""Tests of the JSON round trip of measurements."""

import json
from types import SimpleNamespace

import numpy as np
from etils import epath

from configs import compare
from oneflow_jax.compare import measure, page, serialize
from oneflow_jax.compare.serialize import Measurement, RunMeasurements
from oneflow_jax.data.document import Document, Image, Text
from oneflow_jax.runtime import renamed_keys


def test_measurements_round_trip():
    pixels = np.random.default_rng(0).integers(0, 256, (8, 8, 3), np.uint8)
    bars = [page.TimelineBar("text", "a fox", 0, 1), page.TimelineBar("image", "picture", 1, 2)]
    measurements = RunMeasurements(
        metrics={
            "kid_efficientnet": Measurement(0.25, (0.125, 0.5)),
            "parameters": Measurement(10.0),
        },
        curves={"kid_efficientnet": [page.CurvePoint(8, 0.5, 0.25)]},
        samples=[Document((Text("a fox"), Image(pixels), Text("again")))],
        timeline=page.Timeline(2, 0.5, bars),
    )
    again = serialize.from_json(json.loads(json.dumps(serialize.to_json(measurements))))
    assert again.metrics == measurements.metrics
    assert again.curves == measurements.curves
    assert again.timeline == measurements.timeline
    (document,) = again.samples
    assert document.text() == "a fox again"
    np.testing.assert_array_equal(document.images()[0], pixels)
    assert [type(part) for part in document.parts] == [Text, Image, Text]


LOSSES = {
    "heldout_text": "eval_loss_text",
    "heldout_image": "eval_loss_image",
    "heldout_z": "eval_loss_z_loss",
    "heldout_tokens": "eval_loss_insert_token",
    "heldout_count": "eval_loss_insert_count",
    "heldout_empty": "eval_loss_insert_zero",
    "heldout_fate": "eval_loss_edit_op",
    "heldout_words": "eval_loss_substitute",
}
"""Current and old names of held-out losses."""


def test_measurements_of_earlier_versions_get_the_current_names_of_metrics():
    measurement = {"value": 0.25, "draws": [0.125, 0.5], "share": True}
    saved = {
        "figures": dict.fromkeys((*renamed_keys.RENAMED_METRICS, *LOSSES, "cider"), measurement),
        "curves": {"kid": [[8, 0.5, 0.25]], "text_to_image": [[8, 0.5, 0.75]]},
        "samples": [],
        "timeline": {"passes": 2, "seconds": 0.5, "parts": []},
    }
    loaded = serialize.from_json(saved)
    assert set(loaded.metrics) == {
        *renamed_keys.RENAMED_METRICS.values(), *LOSSES.values(), "cider",
    }  # fmt: skip
    assert loaded.metrics["nfe"] == Measurement(0.25, (0.125, 0.5), True)
    assert loaded.curves == {
        "kid_efficientnet": [page.CurvePoint(8, 0.5, 0.25)],
        "text_to_image": [page.CurvePoint(8, 0.5, 0.75)],
    }
    assert not set(renamed_keys.RENAMED_METRICS) & set(loaded.metrics)


def test_measurements_of_earlier_versions_are_read_instead_of_measured_again(tmp_path, monkeypatch):
    config = compare.get_config("smoke")
    run_config = config.models.oneflow
    finished_run = SimpleNamespace(
        run=SimpleNamespace(name="oneflow", folder=epath.Path(tmp_path)),
        system=SimpleNamespace(config=run_config),
    )
    key = measure.cache_key(finished_run, config)
    key["run"]["batch"] = key["run"].pop("batch_size")  # "batch" is the old name.
    measurements = RunMeasurements({}, {}, [], page.Timeline(2, 0.5, []))
    saved = {"key": key, "measures": serialize.to_json(measurements)}
    (tmp_path / measure.MEASUREMENTS_FILE).write_text(json.dumps(saved))
    monkeypatch.delattr(measure, "_run_measurements")
    assert measure.measure(finished_run, config).timeline == measurements.timeline
