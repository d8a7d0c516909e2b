import dataclasses
import json
import math

import jax
import numpy as np
import pytest

from oneflow_jax import evaluate
from oneflow_jax.build import evaluation, sampling
from oneflow_jax.build import system as system_lib
from oneflow_jax.data import prompt
from oneflow_jax.errors import UserError
from oneflow_jax.evaluation import base
from oneflow_jax.runtime import metric_writer, sharding, workdir
from oneflow_jax.training import conditioning, document_losses, likelihood, overfitting
from tests import runs


@pytest.fixture(scope="module")
def losses():
    system, _ = runs.trained_run()
    with sharding.mesh_context(system.mesh):
        yield system.eval_losses()


@pytest.fixture(scope="module")
def ema():
    return evaluate.load_ema_params(*runs.trained_run())


def test_losses_are_equal_at_every_call(losses, ema):
    first, second = losses(ema), losses(ema)
    weights = runs.trained_run()[0].paradigm.weights
    assert first == second
    assert set(first) == {
        f"eval/loss_{term}{clock}"
        for term in ("text", "image")
        for clock in ("", "/t=0.25", "/t=0.75")
    } | {"eval/loss", "eval/loss_text_given_image", "eval/loss_image_given_text"} | set(
        conditioning.all_metric_names()
    )
    weighted = [weight * first[f"eval/loss_{term}"] for term, weight in weights]
    assert first["eval/loss"] == pytest.approx(sum(weighted))
    assert all(math.isfinite(value) for value in first.values())


def test_losses_are_equal_for_a_new_instance(losses, ema):
    system, _ = runs.trained_run()
    with sharding.mesh_context(system.mesh):
        assert system.eval_losses()(ema) == losses(ema)


def test_losses_depend_on_the_parameters(losses, ema):
    other_losses = losses(jax.tree.map(lambda x: 1.5 * x, ema))
    assert all(other_losses[name] != value for name, value in losses(ema).items())


def test_loss_is_between_the_losses_of_the_time_bins(losses, ema):
    measured = losses(ema)
    for term in ("text", "image"):
        parts = [measured[f"eval/loss_{term}/t={u}"] for u in ("0.25", "0.75")]
        assert min(parts) <= measured[f"eval/loss_{term}"] <= max(parts)


def test_metrics_are_written_with_nfe_after_an_at(tmp_path, monkeypatch):
    system, finished = runs.trained_run()
    folder = runs.copy_run(finished, tmp_path)
    changed = runs.make_config(evaluation__nfe=(2, 3))
    system = system_lib.system(changed, folder)
    calls = []

    def score(documents):
        calls.append(len(documents))
        return base.MetricResult({"caption_validity": len(calls) / 4})

    task = base.EvalTask("joint", (prompt.parse("<text> <image>", 4),) * 8, score)
    monkeypatch.setattr(
        system_lib, "supported_suite", lambda _: base.EvalSuite((task,), lambda: {"accuracy": 0.9})
    )
    monkeypatch.setattr(
        system_lib.System,
        "likelihood",
        lambda _: lambda _: likelihood.NatsPerDocument(np.float64([8.0, 4.5]), np.int32([4, 1])),
    )
    figures = evaluate.run(system, folder)
    assert figures["eval/nats_per_document"] == 2.5
    assert json.loads((folder / workdir.EVALUATION).read_text()) == figures
    assert (figures["caption_validity@2"], figures["caption_validity@3"], figures["accuracy"]) == (
        0.25,
        0.5,
        0.9,
    )
    assert calls == [8, 8]
    assert all(isinstance(value, float) for value in figures.values())
    assert (folder / "evaluation.png").exists()


def test_too_small_nfe_is_reported():
    _, folder = runs.trained_run()
    config = runs.make_config(evaluation__nfe=(1,), sampling__image_guidance_scale=2.0)
    with pytest.raises(UserError, match=r"evaluation.nfe=1.*guidance_scale=2.0"):
        system_lib.system(config, folder)


def test_plans_take_at_most_the_requested_nfe():
    system, _ = runs.trained_run()
    for solver, passes, taken in (("euler", 16, 16), ("heun", 16, 15), ("heun", 9, 9)):
        config = runs.make_config(sampling__solver=solver)
        plan = sampling.eval_plan(config, system.paradigm, passes, "uniform")
        assert system.paradigm.nfe(plan) == taken


def make_edit_suite(prompts):
    """Return a suite with one task of editing documents."""

    def score(documents):
        return base.MetricResult({"right": float(len(documents))})

    task = base.EvalTask("edit", tuple(prompts), score, may_insert_images=True, is_editing=True)
    return lambda config, layout: base.EvalSuite((task,))


def test_models_without_editing_skip_edit_tasks(monkeypatch, tmp_path):
    monkeypatch.setattr(evaluation, "make_suite", make_edit_suite([prompt.parse("a red", 4)]))
    changes = {"paradigm__name": "edit_flow", "data__text_slot_multiple": 0}
    can = runs.prepare_system(tmp_path / "can", runs.make_config(**changes))
    shares = {"paradigm__time_coupling__edited": 0.0, "paradigm__time_coupling__together": 0.6}
    cannot = runs.prepare_system(tmp_path / "cannot", runs.make_config(**changes, **shares))
    assert len(system_lib.supported_suite(can).tasks) == 1
    assert system_lib.supported_suite(cannot).tasks == ()


def test_too_long_prompts_are_reported_before_training(monkeypatch):
    system, _ = runs.trained_run()
    monkeypatch.setattr(evaluation, "make_suite", make_edit_suite([prompt.parse("red " * 70, 4)]))
    with pytest.raises(UserError, match=r"data\.sequence_length=64"):
        evaluate.check_prompts(system)


def test_insertions_take_twice_the_nfe(tmp_path):
    changes = {"paradigm__name": "edit_flow", "data__text_slot_multiple": 0}
    (task,) = make_edit_suite([])(None, None).tasks
    grows = runs.prepare_system(tmp_path / "run", runs.make_config(**changes))
    assert [evaluate.affordable_nfe(grows, task, n) for n in (1, 2, 16)] == [0, 1, 8]
    guided = runs.prepare_system(
        tmp_path / "run", runs.make_config(**changes, sampling__image_guidance_scale=2.0)
    )
    assert [evaluate.affordable_nfe(guided, task, n) for n in (2, 4)] == [0, 2]
    system, _ = runs.trained_run()
    assert evaluate.affordable_nfe(system, task, 1) == 1


def test_metrics_table():
    figures = {
        "caption_validity@16": 0.5,
        "image_caption_match@4": 0.25,
        "caption_validity@4": 1.0,
        "eval/loss_text": 2.0,
    }
    lines = evaluate.format_table(figures).splitlines()
    assert lines[-3].split() == ["NFE,", "at", "most", "4", "16"]
    assert lines[-2].split() == ["caption_validity", "1.000", "0.500"]
    assert lines[-1].split() == ["image_caption_match", "0.250", "-"]
    assert len({len(line) for line in lines[-3:]}) == 1


def make_gains(value):
    names = [
        document_losses.shuffled_gain_names(term, split)
        for term in ("image", "text")
        for split in conditioning.SPLITS
    ]
    return {name: value for triple in names for name in triple}


def test_sentences_compare_the_text_loss_with_its_baseline_and_end_with_the_diagnosis():
    metrics = make_gains(0.3) | {
        "eval/conditional_loss_text_heldout": 2.5,
        "reference_text_loss_unigram_heldout": 3.25,
    }
    first, last = evaluate.format_table(metrics).splitlines()[-2:]
    assert first.startswith("Held-out texts have a loss of 2.50 nats per token given their images")
    assert "and 3.25 if" in first
    assert last.startswith("Diagnosis: good.")
    assert evaluate.describe({}) == []


def test_the_page_of_a_run_describes_its_last_evaluation(tmp_path):
    system, _ = runs.trained_run()
    logs = tmp_path / workdir.LOGS
    writer = metric_writer.MetricWriter(workdir.epath.Path(logs))
    writer.write_scalars(50, make_gains(0.3))
    for step, loss in ((50, 1.0), (100, 1.5)):
        losses = {"text_heldout": [loss] * 8, "text_train": [1 / step] * 8}
        writer.write_documents(step, losses | {overfitting.TOTAL: [loss]})
    writer.close()
    folder = workdir.epath.Path(tmp_path)
    *_, overfitted, verdict = evaluate.describe_run(system, folder, folder)
    assert overfitted.startswith("Text is overfitted since step 100")
    assert verdict.startswith("Diagnosis: text is overfitted since step 100.")
    (folder / workdir.EVALUATION).write_text(json.dumps(make_gains(0.0)))
    verdict = evaluate.describe_run(system, folder, folder)[-1]
    assert verdict.startswith("Diagnosis: images do not depend on texts yet.")
    best = dataclasses.replace(
        system, config=runs.make_config(checkpoint__use="best", evaluation__suite="")
    )
    assert evaluate.find_overfitting(best, folder) == []


def test_the_sheet_of_a_suite_is_written(tmp_path):
    pixels = np.zeros((4, 4, 3), np.uint8)
    sheet = base.Sheet(("document", "image"), ((pixels, "a", ""), (pixels, "", "")))
    evaluate._write_sheet(sheet, workdir.epath.Path(tmp_path), "tiny")
    assert (tmp_path / workdir.SHEET).exists()
    evaluate._write_sheet(None, workdir.epath.Path(tmp_path / "none"), "tiny")
    assert not (tmp_path / "none").exists()
