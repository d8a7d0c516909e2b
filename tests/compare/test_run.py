"""Tests of a small comparison: files, resuming and error messages."""

import dataclasses
import functools
import json
import pathlib

import jax
import pytest
from etils import epath

from configs import compare
from oneflow_jax.autoencoder_training import run as autoencoder_run
from oneflow_jax.compare import aggregate, captions, measure, page, rooflines, run, serialize
from oneflow_jax.compare import runs as runs_lib
from oneflow_jax.costs import generation
from oneflow_jax.errors import UserError
from oneflow_jax.evaluation import image_name_judge
from oneflow_jax.runtime import workdir
from oneflow_jax.training import loop
from tests import runs
from tests.data import small_style_packages

PARADIGMS = ("dalle", "lmfusion", "oneflow")
"""One paradigm of each family, to keep the comparison small."""


def make_smoke_config(**changes):
    config = compare.get_config("smoke")
    config.models_shown = PARADIGMS
    config.update_from_flattened_dict({k.replace("__", "."): v for k, v in changes.items()})
    return config.lock()


@pytest.fixture(scope="module")
def finished_comparison(tmp_path_factory):
    folder = epath.Path(tmp_path_factory.mktemp("compared"))
    config = make_smoke_config()
    run.run(config, folder)
    return config, folder


def test_metrics_file_is_next_to_the_page(finished_comparison):
    config, folder = finished_comparison
    figures = json.loads((folder / run.METRICS_FILE).read_text())
    assert set(figures) == set(PARADIGMS)
    for name, metrics in figures.items():
        for figure in (
            "nfe",
            "seconds_per_document",
            "kid_efficientnet",
            "fd_efficientnet",
            "interleaved_score",
            "template_validity",
        ):
            assert metrics[figure]["low"] <= metrics[figure]["high"], (name, figure)
        assert metrics["train_flops"]["value"] == pytest.approx(config.train_flops, rel=0.1)
        assert ("image_to_text" in metrics) == (name != "dalle")
        assert ("nats_per_document" in metrics) == (name != "oneflow")


def test_the_page_shows_every_paradigm(finished_comparison):
    _, folder = finished_comparison
    page = (folder / run.PAGE_FILE).read_text()
    assert all(title in page for title in ("DALL-E", "LMFusion", "OneFlow"))
    assert "TPU v4" in page
    assert "DALL-E, OneFlow 0.012; LMFusion 0.006" in page
    tables = (folder / run.TABLES_FILE).read_text()
    assert tables.count("| LMFusion |") >= 2


def test_flows_take_the_reported_nfe_and_codes_one_pass_each(finished_comparison):
    _, folder = finished_comparison
    figures = json.loads((folder / run.METRICS_FILE).read_text())
    assert figures["oneflow"]["nfe"]["value"] <= compare.HEADLINE["oneflow"]
    assert figures["dalle"]["nfe"]["value"] > compare.HEADLINE["dalle"]


@pytest.fixture
def full_xla_optimization():
    """Run with XLA's optimizations enabled, as users do; other tests disable them."""
    jax.config.update("jax_disable_most_optimizations", False)
    yield
    jax.config.update("jax_disable_most_optimizations", True)


def test_finished_runs_are_skipped(finished_comparison, full_xla_optimization, monkeypatch):
    config, folder = finished_comparison
    before = (folder / run.METRICS_FILE).read_text()

    def fail(*_):
        raise AssertionError("measured again")

    monkeypatch.setattr(loop, "run", fail)
    monkeypatch.setattr(autoencoder_run, "train_autoencoder", fail)
    monkeypatch.setattr(measure, "_run_measurements", fail)
    monkeypatch.setattr(measure, "TimedGenerator", fail)
    (folder / run.METRICS_FILE).unlink()
    run.run(config, folder)
    assert (folder / run.METRICS_FILE).read_text() == before
    # `run.run` applies `config.compile_fast`, also if all runs are finished.
    assert jax.config.read("jax_disable_most_optimizations")


def test_lmfusion_text_loss_equals_that_of_its_text_model(finished_comparison):
    config, folder = finished_comparison
    text = runs_lib.make_text_model_run(config, folder, 0)
    (fused,) = (one for one in runs_lib.iter_runs(config, folder) if one.name == "lmfusion")
    before, after = runs_lib.measure_text_losses(
        runs_lib.train_one(text), runs_lib.train_one(fused)
    )
    assert before == after
    assert before > 0
    figures = json.loads((folder / run.METRICS_FILE).read_text())["lmfusion"]
    assert figures["text_loss_pretrained"] == figures["text_loss_finetuned"]


def test_emoji_in_styles_are_compared(tmp_path, monkeypatch):
    quick = functools.partial(image_name_judge.Judge.train, copies=1, steps=5)
    monkeypatch.setattr(image_name_judge.Judge, "train", quick)
    config = compare.get_config("styles_smoke")
    config.models_shown = ("oneflow",)
    config.models.oneflow.source.update({"styles": small_style_packages.STYLES, "min_styles": 3})
    config.models.oneflow.source.path = str(small_style_packages.write(tmp_path / "packages"))
    config.models.oneflow.data.dir = str(tmp_path / "data")
    folder = epath.Path(tmp_path)
    run.run(config, folder)
    figures = json.loads((folder / run.METRICS_FILE).read_text())["oneflow"]
    assert {
        "composition",
        "composition_style",
        "composition_kid",
        "composition_judge_name",
        "heldout_concept_accuracy",
        "image_to_text",
        "interleaved_score",
        "styled",
    } <= set(figures)
    tables = (folder / run.TABLES_FILE).read_text()
    (row,) = (line for line in tables.splitlines() if line.startswith("| Composition"))
    _, _, model, real, shuffled, _ = (cell.strip() for cell in row.split("|"))
    assert model != real != "" == shuffled
    page = (folder / run.PAGE_FILE).read_text()
    assert "noto by Google" in page
    assert "one image for each name: the metrics" not in page


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"train_flops": 0.0}, "train_flops=0"),
        ({"text_pretrain_fraction": 1.0}, "text_pretrain_fraction=1"),
        ({"seeds": (0, 0)}, "seeds="),
        ({"reported_nfe__oneflow": 3}, "reported_nfe.oneflow=3"),
        ({"models__oneflow__evaluation__suite": "none"}, "evaluation.suite"),
        (
            {"models__dalle__evaluation__full_metrics": False},
            "dalle.evaluation.full_metrics=False",
        ),
        ({"seeds": ("a",)}, r"seeds\[0\]='a': not a whole number"),
        ({"models_shown": ("dalle", "dalle")}, "models_shown=.*each only once"),
        (
            {"models_shown": ("dalle", "gpt")},
            "models_shown=.*give one or more of chameleon, dalle, .*, each only once",
        ),
    ],
)
def test_errors_are_reported_before_training(changes, message, tmp_path):
    with pytest.raises(UserError, match=message):
        run.run(make_smoke_config(**changes), epath.Path(tmp_path))
    assert not list(pathlib.Path(tmp_path).iterdir())


def test_runs_are_ordered_by_seed_and_model(tmp_path):
    config = make_smoke_config(seeds=(3, 5), models_shown=("lmfusion", "oneflow"))
    all_runs = list(runs_lib.iter_runs(config, epath.Path(tmp_path)))
    assert [(one.name, one.seed, one.config.seed) for one in all_runs] == [
        (name, seed, seed) for seed in (3, 5) for name in ("lmfusion", "oneflow")
    ]
    assert [one.folder.name for one in all_runs[:2]] == ["lmfusion-3", "oneflow-3"]
    assert all_runs[2].config.init_from == str(tmp_path / "language-5")


def test_folder_holds_one_comparison(finished_comparison, tmp_path):
    _, folder = finished_comparison
    before = (folder / workdir.CONFIG).read_text()
    with pytest.raises(UserError, match=r"was started with train_flops=4e\+09\. Give the same"):
        run.run(make_smoke_config(train_flops=8e9), folder)
    assert (folder / workdir.CONFIG).read_text() == before
    with pytest.raises(UserError, match="holds a run of oneflow"):
        run.run(make_smoke_config(), folder / "oneflow-0")
    with pytest.raises(UserError, match="the folder holds a comparison"):
        workdir.check_config(folder, compare.paradigm_config("oneflow", smoke=True))


def test_codec_with_other_steps_is_reported(finished_comparison):
    _, folder = finished_comparison
    with pytest.raises(UserError, match=r"was started for 2 steps, but codec\.steps requires 3"):
        runs_lib.ensure_codec(make_smoke_config(codec__steps=3), folder)


def test_notes_mention_only_present_models(finished_comparison):
    config, _ = finished_comparison

    nothing = serialize.RunMeasurements({}, {}, (), None)

    def format_text(*names, seeds=(0,)):
        figures = dict.fromkeys(
            ("seconds_per_document", "seconds_per_document_8", "nfe"), page.Estimate(1, 1, 1)
        )
        comparison = page.ComparisonResult(
            models=[
                dataclasses.replace(aggregate.aggregate_model(name, [nothing], {}), metrics=figures)
                for name in names
            ],
            num_images=2, flops_budget=1.0, seeds=seeds, machine={}, data={},
        )  # fmt: skip
        return "\n".join(captions.make_notes(comparison, config.reported_nfe, "emoji"))

    assert "DALL-E" not in format_text("oneflow")
    assert "faster" not in format_text("oneflow")
    assert "OneFlow is faster is 1 in comparison with DALL-E" in format_text("oneflow", "dalle")
    assert "for each image" not in format_text("oneflow", "dalle")
    assert "means over" not in format_text("oneflow")
    assert "means over 3 training runs" in format_text("oneflow", seeds=(0, 1, 2))


def test_rooflines_cover_all_paradigms_and_sizes():
    tables = rooflines.make_tables()
    assert len(tables) == 6
    for rows in tables.values():
        assert {row[0] for row in rows[1:]} == {
            aggregate.model_info(name).title for name in compare.PASSES
        }


def test_full_comparison_configures_all_paradigms():
    for kind in compare.KINDS:
        config = compare.get_config(kind)
        run.validate(config)
        assert config.compile_fast == kind.endswith("smoke")
        data_sets = {one.source.name for one in (*config.models.values(), config.text_model)}
        assert data_sets == {"emoji_styles" if kind.startswith("styles") else "emoji"}
        assert config.codec.source.name == next(iter(data_sets))
        names = set(compare.PAIR if kind == "longer" else generation.PROFILES)
        assert set(config.models_shown) == set(config.models) == names


def test_command_resumes_in_its_folder_and_is_on_the_page(finished_comparison, cli):
    _, folder = finished_comparison
    file = runs.REPOSITORY / "configs" / "compare.py"
    cli(f"--config={file}:smoke", f"--workdir={folder}", f"--config.models_shown={PARADIGMS}")
    tables = (folder / run.TABLES_FILE).read_text()
    command = f'compare.py:smoke --config.models_shown="{PARADIGMS}"'
    assert command in tables.replace("\\", "")
    # The command also works with --workdir alone, without --config.
    (folder / run.TABLES_FILE).unlink()
    cli(f"--workdir={folder}")
    assert (folder / run.TABLES_FILE).read_text() == tables


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("--config.num_samples=0", "num_samples=0"),
        (
            "--config.models.oneflow.data.dir=gs://bucket/data",
            "models.oneflow.data.dir=gs://bucket/data: this folder must be local",
        ),
    ],
)
def test_command_reports_errors(arguments, message, cli, tmp_path):
    file = runs.REPOSITORY / "configs" / "compare.py"
    with pytest.raises(UserError, match=message):
        cli(f"--config={file}:smoke", f"--workdir={tmp_path / 'compared'}", arguments)
