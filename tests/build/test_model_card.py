"""Tests of the model card of an export."""

import json

import yaml
from etils import epath

from oneflow_jax.build import model_card
from oneflow_jax.data import emoji_concepts
from oneflow_jax.runtime import workdir
from tests import runs


def make_run(tmp_path):
    run, output = epath.Path(tmp_path / "run"), epath.Path(tmp_path / "export")
    run.mkdir()
    output.mkdir()
    return run, output


def test_a_card_has_the_metrics_and_sizes_of_its_run(tmp_path):
    run, output = make_run(tmp_path)
    (run / workdir.EVALUATION).write_text(json.dumps({"joint@16": 0.9375, "joint@4": 0.5}))
    config = runs.make_config()
    model_card.write(config, run, output, 1_234_567)
    text = (output / model_card.FILE).read_text()
    front = yaml.safe_load(text.split("---\n")[1])
    assert front["library_name"] == "oneflow_jax"
    assert "| joint@16 | 0.9375 |" in text
    assert "| parameters | 1,234,567 |" in text
    assert f"| training | {config.steps:,} steps of {config.batch_size} rows |" in text


def test_a_card_names_authors_and_license_of_a_known_data_set():
    config = runs.make_config().copy_and_resolve_references().unlock()
    config.source = {"name": "emoji"}
    text = model_card.format_card(config, 1, {})
    assert emoji_concepts.ATTRIBUTION in text
    assert "was not evaluated" in text
    config.source = {"name": "own"}
    assert "add them here" in model_card.format_card(config, 1, {})


def test_the_next_export_replaces_a_written_card_and_keeps_that_of_a_person(tmp_path):
    run, output = make_run(tmp_path)
    path = output / model_card.FILE
    model_card.write(runs.make_config(), run, output, 1)
    model_card.write(runs.make_config(), run, output, 2)
    assert "| parameters | 2 |" in path.read_text()
    path.write_text("# By hand\n")
    model_card.write(runs.make_config(), run, output, 3)
    assert path.read_text() == "# By hand\n"
