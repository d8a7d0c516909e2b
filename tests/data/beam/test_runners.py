"""Tests of the options of runners, and of the messages if a runner cannot be used."""

import importlib
import importlib.util
import shutil

import pytest
from absl import flags as absl_flags

from oneflow_jax.cli import flags
from oneflow_jax.data.beam import engine, runners
from oneflow_jax.data.custom import manifest
from oneflow_jax.errors import UserError
from tests.data.beam import needs_beam
from tests.data.custom import examples

pytestmark = needs_beam


def test_options_pass_through():
    options = ["region=europe-west4", "temp_location=gs://bucket/a=b", "streaming"]
    values = runners.make_options("DirectRunner", options, 3).get_all_options()
    assert values["region"] == "europe-west4"
    assert values["temp_location"] == "gs://bucket/a=b"
    assert values["streaming"] is True
    assert values["direct_num_workers"] == 3
    assert values["direct_running_mode"] == "multi_processing"
    changed = runners.make_options("DirectRunner", ["direct_num_workers=5"], 3).get_all_options()
    assert changed["direct_num_workers"] == 5


@pytest.mark.parametrize(
    ("option", "message"),
    [
        ("--region=x", r"--runner_option=--region=x: not an option\. Give NAME=VALUE"),
        ("regoin=x", r"--runner_option=regoin: DirectRunner has no such option"),
        ("direct_num_workers=many", r"direct_num_workers=many: Beam does not accept a value"),
    ],
)
def test_wrong_options_are_refused(option, message):
    with pytest.raises(UserError, match=message):
        runners.make_options("DirectRunner", [option], 1)


def test_a_missing_beam_is_named(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(UserError, match=r"--runner=DirectRunner: .* requirements-beam\.txt"):
        runners.make_options("DirectRunner", [], 1)


def test_missing_packages_of_google_cloud_are_named(monkeypatch):
    def fail(name):
        raise ImportError("no apitools")

    monkeypatch.setattr(importlib, "import_module", fail)
    with pytest.raises(UserError, match=r"--runner=DataflowRunner: .*no apitools.*\[gcp\]"):
        runners.make_options("DataflowRunner", [], 1)


def test_dataflow_needs_data_in_a_bucket(monkeypatch, tmp_path):
    monkeypatch.setattr(importlib, "import_module", lambda name: None)
    with pytest.raises(UserError, match=r"--runner=DataflowRunner: .*temp_location=gs://"):
        runners.make_options("DataflowRunner", [], 1)
    dataflow = engine.BeamEngine("DataflowRunner", ["temp_location=gs://bucket/temp"])
    plan = manifest.Manifest(tmp_path, examples.settings(tmp_path), ())
    with pytest.raises(UserError, match=r"source\.path=.*cannot read a folder of this machine"):
        dataflow(plan)


def test_the_flag_has_the_names_of_all_runners():
    assert absl_flags.FLAGS["runner"].parser.enum_values == [flags.LOCAL, *runners.NAMES]


@pytest.mark.parametrize("runner", ["FlinkRunner", "SparkRunner"])
def test_a_missing_java_is_named(runner, monkeypatch):
    monkeypatch.setattr(shutil, "which", lambda name: None)
    with pytest.raises(UserError, match=rf"--runner={runner}: .*needs Java.*job_endpoint"):
        runners.make_options(runner, [], 1)
    options = runners.make_options(runner, ["job_endpoint=localhost:8099", "parallelism=4"], 1)
    assert options.get_all_options()["job_endpoint"] == "localhost:8099"
