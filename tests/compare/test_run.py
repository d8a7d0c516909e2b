"""A comparison, small: what it writes, that it goes on, and what it refuses."""

import dataclasses
import json
import pathlib

import jax
import pytest
from etils import epath

from configs import compare
from oneflow_jax.autoencoder_training import run as autoencoder_run
from oneflow_jax.compare import aggregate, captions, measure, page, rooflines, run, serialize
from oneflow_jax.compare import runs as runs_lib
from oneflow_jax.costs import ways
from oneflow_jax.errors import UserError
from oneflow_jax.runtime import workdir
from oneflow_jax.training import loop
from tests import runs

PARADIGMS = ("dalle", "lmfusion", "oneflow")
"""One of each family."""


def make_smoke_config(**changes):
    config = compare.get_config("smoke")
    config.order = PARADIGMS
    config.update_from_flattened_dict({k.replace("__", "."): v for k, v in changes.items()})
    return config.lock()


@pytest.fixture(scope="module")
def finished_comparison(tmp_path_factory):
    folder = epath.Path(tmp_path_factory.mktemp("compared"))
    config = make_smoke_config()
    run.run(config, folder)
    return config, folder


def test_the_figures_lie_beside_the_page(finished_comparison):
    config, folder = finished_comparison
    figures = json.loads((folder / run.METRICS_FILE).read_text())
    assert set(figures) == set(PARADIGMS)
    for name, found in figures.items():
        for figure in ("passes", "seconds_per_document", "kid", "fd", "interleaved", "text_valid"):
            assert found[figure]["low"] <= found[figure]["high"], (name, figure)
        assert found["train_flops"]["value"] == pytest.approx(config.flops, rel=0.1)
        assert ("image_to_text" in found) == (name != "dalle")
        assert ("text_nats" in found) == (name != "oneflow")


def test_the_page_shows_every_paradigm(finished_comparison):
    _, folder = finished_comparison
    page = (folder / run.PAGE_FILE).read_text()
    assert all(title in page for title in ("DALL-E", "LMFusion", "OneFlow"))
    assert "TPU v4" in page
    assert "DALL-E, OneFlow 0.012; LMFusion 0.006" in page
    tables = (folder / run.TABLES_FILE).read_text()
    assert tables.count("| LMFusion |") >= 2


def test_flows_take_the_passes_that_were_asked_for_and_codes_one_each(finished_comparison):
    _, folder = finished_comparison
    figures = json.loads((folder / run.METRICS_FILE).read_text())
    assert figures["oneflow"]["passes"]["value"] <= compare.HEADLINE["oneflow"]
    assert figures["dalle"]["passes"]["value"] > compare.HEADLINE["dalle"]


@pytest.fixture
def full_xla_optimization():
    """JAX as users have it: tests else compile fast."""
    jax.config.update("jax_disable_most_optimizations", False)
    yield
    jax.config.update("jax_disable_most_optimizations", True)


def test_what_is_finished_is_not_done_again(
    finished_comparison, full_xla_optimization, monkeypatch
):
    config, folder = finished_comparison
    before = (folder / run.METRICS_FILE).read_text()

    def refused(*_):
        raise AssertionError("done again")

    monkeypatch.setattr(loop, "run", refused)
    monkeypatch.setattr(autoencoder_run, "train_autoencoder", refused)
    monkeypatch.setattr(measure, "_run_measurements", refused)
    monkeypatch.setattr(measure, "TimedGenerator", refused)
    (folder / run.METRICS_FILE).unlink()
    run.run(config, folder)
    assert (folder / run.METRICS_FILE).read_text() == before
    # As `compile_fast` asks for.
    assert jax.config.read("jax_disable_most_optimizations")


def test_lmfusion_s_text_loss_is_that_of_its_text_model_exactly(finished_comparison):
    config, folder = finished_comparison
    text = runs_lib.make_text_model_run(config, folder, 0)
    (fused,) = (one for one in runs_lib.iter_runs(config, folder) if one.name == "lmfusion")
    before, after = runs_lib.measure_text_losses(
        runs_lib.train_one(text), runs_lib.train_one(fused)
    )
    assert before == after
    assert before > 0
    figures = json.loads((folder / run.METRICS_FILE).read_text())["lmfusion"]
    assert figures["text_loss_before"] == figures["text_loss_after"]


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"flops": 0.0}, "flops=0"),
        ({"language": 1.0}, "language=1"),
        ({"seeds": (0, 0)}, "seeds="),
        ({"headline__oneflow": 3}, "headline.oneflow=3"),
        ({"contestants__oneflow__evaluation__score": "none"}, "evaluation.score"),
        ({"contestants__dalle__evaluation__thorough": False}, "dalle.evaluation.thorough=False"),
        ({"seeds": ("a",)}, "seeds=.*whole numbers"),
        ({"order": ("dalle", "dalle")}, "order=.*each once"),
        ({"order": ("dalle", "gpt")}, "order=.*give some of chameleon, dalle, .*, each once"),
    ],
)
def test_mistakes_are_told_before_training(changes, told, tmp_path):
    with pytest.raises(UserError, match=told):
        run.run(make_smoke_config(**changes), epath.Path(tmp_path))
    assert not list(pathlib.Path(tmp_path).iterdir())


def test_all_seeds_of_all_that_are_in_order(tmp_path):
    config = make_smoke_config(seeds=(3, 5), order=("lmfusion", "oneflow"))
    every = list(runs_lib.iter_runs(config, epath.Path(tmp_path)))
    assert [(one.name, one.seed, one.config.seed) for one in every] == [
        (name, seed, seed) for seed in (3, 5) for name in ("lmfusion", "oneflow")
    ]
    assert [one.folder.name for one in every[:2]] == ["lmfusion-3", "oneflow-3"]
    assert every[2].config.start == str(tmp_path / "language-5")


def test_a_folder_is_of_one_comparison(finished_comparison, tmp_path):
    _, folder = finished_comparison
    before = (folder / workdir.CONFIG).read_text()
    with pytest.raises(UserError, match=r"was begun with flops=4e\+09: give the same"):
        run.run(make_smoke_config(flops=8e9), folder)
    assert (folder / workdir.CONFIG).read_text() == before
    with pytest.raises(UserError, match="holds a run of oneflow"):
        run.run(make_smoke_config(), folder / "oneflow-0")
    with pytest.raises(UserError, match="holds a comparison"):
        workdir.check_config(folder, compare.paradigm_config("oneflow", smoke=True))


def test_a_codec_of_other_steps_is_told(finished_comparison):
    _, folder = finished_comparison
    with pytest.raises(UserError, match=r"was begun for 2 steps, and codec\.steps asks for 3"):
        runs_lib.ensure_codec(make_smoke_config(codec__steps=3), folder)


def test_what_is_said_is_of_who_is_there(finished_comparison):
    config, _ = finished_comparison

    nothing = serialize.RunMeasurements({}, {}, (), None)

    def said(*names, seeds=(0,)):
        figures = dict.fromkeys(
            ("seconds_per_document", "seconds_per_document_8", "passes"), page.Estimate(1, 1, 1)
        )
        shown = page.ComparisonResult(
            contestants=[
                dataclasses.replace(aggregate.aggregate_model(name, [nothing], {}), figures=figures)
                for name in names
            ],
            pictures=2, budget=1.0, seeds=seeds, machine={}, data={},
        )  # fmt: skip
        return "\n".join(captions.make_notes(shown, config.headline))

    assert "DALL-E" not in said("oneflow")
    assert "faster" not in said("oneflow")
    assert "faster than DALL-E" in said("oneflow", "dalle")
    assert "for each picture" not in said("oneflow", "dalle")
    assert "means over" not in said("oneflow")
    assert "means over 3 trainings" in said("oneflow", seeds=(0, 1, 2))


def test_rooflines_are_of_all_paradigms_and_sizes():
    tables = rooflines.make_tables()
    assert len(tables) == 6
    for rows in tables.values():
        assert {row[0] for row in rows[1:]} == {
            aggregate.model_info(name).title for name in compare.PASSES
        }


def test_all_of_them_are_configured():
    for kind in ("full", "longer", "smoke"):
        config = compare.get_config(kind)
        run.validate(config)
        assert config.compile_fast == (kind == "smoke")
        every = set(compare.PAIR if kind == "longer" else ways.PROFILES)
        assert set(config.order) == set(config.contestants) == every


def test_the_command_goes_on_in_its_folder_and_is_told_with_its_settings(finished_comparison, cli):
    _, folder = finished_comparison
    file = runs.REPOSITORY / "configs" / "compare.py"
    cli(f"--config={file}:smoke", f"--workdir={folder}", f"--config.order={PARADIGMS}")
    told = (folder / run.TABLES_FILE).read_text()
    command = f'compare.py:smoke --config.order="{PARADIGMS}"'
    assert command in told.replace("\\", "")
    # Also by its folder alone.
    (folder / run.TABLES_FILE).unlink()
    cli(f"--workdir={folder}")
    assert (folder / run.TABLES_FILE).read_text() == told


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ("--config.samples=0", "samples=0 must be above 0"),
        (
            "--config.contestants.oneflow.data.dir=gs://bucket/data",
            "contestants.oneflow.data.dir=gs://bucket/data: give a folder of this machine",
        ),
    ],
)
def test_mistakes_are_told_by_the_command(given, told, cli, tmp_path):
    file = runs.REPOSITORY / "configs" / "compare.py"
    with pytest.raises(UserError, match=told):
        cli(f"--config={file}:smoke", f"--workdir={tmp_path / 'compared'}", given)
