"""Tests of the training loop: its reports, and when it stops."""

import dataclasses
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from clu import metrics

from oneflow_jax.build import system as system_lib
from oneflow_jax.data import toy
from oneflow_jax.errors import UserError
from oneflow_jax.runtime import metric_writer, workdir
from oneflow_jax.training import loop, reporter
from tests import runs


def test_reports():
    _system, folder = runs.trained_run()
    rows = metric_writer.read_metrics(folder / workdir.LOGS)
    steps = [row for row in rows if "train/loss" in row]
    names = ("loss", "text", "image", "grad_norm", "param_norm", "update_norm")
    names += ("documents_per_second", "slots_per_second", "learning_rate", "step_time")
    names += (
        "step_time_max_over_median",
        "data_wait_fraction",
        "goodput",
        "model_flops_per_second",
    )
    assert all({f"train/{name}" for name in names} < set(row) for row in steps)
    assert all(math.isfinite(value) for row in rows for value in row.values())
    assert list((folder / workdir.LOGS).glob("events.out.tfevents.*"))


def report(tmp_path, **changes):
    system, _ = runs.trained_run()
    changed_system = system_lib.system(runs.make_config(**changes), runs.trained_run()[1])
    assert changed_system.mesh == system.mesh
    return reporter.Reporter(changed_system, workdir.epath.Path(tmp_path), start_step=0)


def test_speeds_exclude_pauses(tmp_path, monkeypatch):
    """Check steps of 1, 1, 4 (2 of them waiting for data) and 2 s, and a pause of 10 s."""
    now = [100.0]
    monkeypatch.setattr(reporter.time, "monotonic", lambda: now[0])
    log = report(tmp_path, logging__every=4)

    def step(number, seconds, waiting=0.0):
        with log.data_wait():
            now[0] += waiting
        now[0] += seconds - waiting
        log.record(number, make_metrics(1.0))
        log.flush_pending()

    step(1, 1.0)
    step(2, 1.0)
    with log.pause_timer():
        now[0] += 10.0
    step(3, 4.0, waiting=2.0)
    step(4, 2.0)
    log.close()
    (row,) = metric_writer.read_metrics(workdir.epath.Path(tmp_path) / workdir.LOGS)
    values = {name.removeprefix("train/"): value for name, value in row.items()}
    assert values["step_time"] == 1.5
    assert values["step_time_max_over_median"] == 4 / 1.5
    assert values["data_wait_fraction"] == 2 / 8
    assert values["documents_per_second"] == 8 * 4 / 8
    assert values["goodput"] == 4 * 1.5 / 18
    system, _ = runs.trained_run()
    assert values["model_flops_per_second"] == pytest.approx(system.flops / 1.5)
    assert "mfu" not in values  # The peak FLOP/s of a CPU are not known.


@pytest.mark.parametrize(("chip", "peak"), [("v4", 275e12), ("h100", 989.4e12)])
def test_mfu_where_the_peak_is_known(tmp_path, monkeypatch, chip, peak):
    kind = jax.devices()[0].device_kind
    monkeypatch.setitem(reporter.chips.DEVICE_KINDS, kind, chip)
    log = report(tmp_path, logging__every=1)
    log.record(1, make_metrics(1.0))
    log.close()
    (row,) = metric_writer.read_metrics(workdir.epath.Path(tmp_path) / workdir.LOGS)
    expected = row["train/model_flops_per_second"] / (peak * jax.device_count())
    assert row["train/mfu"] == pytest.approx(expected)


def make_metrics(loss, documents=8.0):
    """Return the metrics of one step."""
    return {
        "loss": metrics.Average(total=jnp.float32(loss), count=jnp.float32(1)),
        "text": metrics.Average(total=jnp.float32(10 * loss), count=jnp.float32(5)),
        "documents": metrics.Average(total=jnp.float32(documents), count=jnp.float32(1)),
        "slots": metrics.Average(total=jnp.float32(512), count=jnp.float32(1)),
    }


def test_evaluations_of_documents_are_logged_in_words_also_after_a_resume(tmp_path, caplog):
    caplog.set_level("INFO")
    for step, loss in ((2, 2.0), (4, 1.0), (6, 1.5)):
        system = system_lib.system(runs.make_config(), runs.trained_run()[1])
        log = reporter.Reporter(system, workdir.epath.Path(tmp_path), start_step=step - 2)
        losses = {"text_heldout": [loss] * 8, "text_train": [1 / step] * 8}
        log.write(step, {"eval/loss": loss}, losses)
        log.close()
    assert [one.message for one in caplog.records if "overfitted" in one.message] == [
        "Step 6: Text is overfitted since step 6: the held-out loss was lowest at step 4, and has "
        "risen by 50% since (95 % interval 50% to 50%), while the loss of training documents fell."
    ]
    rows = metric_writer.read_documents(workdir.epath.Path(tmp_path) / workdir.LOGS)
    assert [step for step, _ in rows] == [2, 4, 6]
    assert rows[-1][1]["total_heldout"] == [1.5]


def test_means_since_the_last_report(tmp_path):
    log = report(tmp_path, logging__every=2)
    for number, loss in enumerate([1.0, 3.0, 5.0, 6.0], 1):
        log.record(number, make_metrics(loss))
    log.close()
    rows = metric_writer.read_metrics(workdir.epath.Path(tmp_path) / workdir.LOGS)
    assert [(row["step"], row["train/loss"], row["train/text"]) for row in rows] == [
        (2, 2.0, 4.0),
        (4, 5.5, 11.0),
    ]


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_non_finite_loss_is_reported_with_its_step(tmp_path, value):
    log = report(tmp_path)
    log.record(1, make_metrics(1.0))
    log.record(2, make_metrics(value))
    with pytest.raises(UserError, match=r"Step 2: .*loss.* is not finite"):
        log.flush_pending()


# The checkpoint is due in the step of the NaN, or in the next one.
@pytest.mark.parametrize("checkpoint_every", [1, 2])
def test_a_nan_in_the_data_stops_the_run_and_keeps_the_checkpoints(
    checkpoint_every, tmp_path, monkeypatch
):
    """Put NaN into the latents of an image, as if its file was damaged."""
    system, finished = runs.trained_run()
    folder = runs.copy_run(finished, tmp_path)
    longer = runs.prepare_system(
        folder, runs.make_config(steps=12, checkpoint__every=checkpoint_every)
    )
    before = runs.read_files(folder)
    batches = system_lib.System.train_batches

    def nan_batches(self):
        whole = batches(self)

        def place(pieces):
            canvas = whole.assemble(pieces)
            return canvas.replace(latents=jnp.full_like(canvas.latents, jnp.nan))

        return dataclasses.replace(whole, assemble=place)

    monkeypatch.setattr(system_lib.System, "train_batches", nan_batches)
    with pytest.raises(UserError, match=r"Step 7: .*not finite.*optimizer.learning_rate"):
        loop.run(longer, folder)
    monkeypatch.undo()
    assert runs.read_files(folder) == before
    state, _ = runs.load_state(system, folder)
    assert int(state.step) == 6
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(state.params))


def test_too_long_training_document_is_reported(monkeypatch, tmp_path):
    _, finished = runs.trained_run()
    folder = runs.copy_run(finished, tmp_path)
    system = system_lib.system(runs.make_config(data__sequence_length=6), folder)
    with pytest.raises(UserError, match=r"data.sequence_length=6"):
        next(iter(system.train_batches()))
    assert toy.Toy()[0].text()


@pytest.mark.parametrize(
    ("start", "message"),
    [(0, "Training begins with step 1 of"), (9, "with step 10 of 10."), (10, "")],
)
def test_the_first_step_is_announced(start, message, caplog):
    caplog.set_level("INFO")
    loop._log_start(start + 1, 10)
    assert message in caplog.text
    assert bool(caplog.text) == bool(message)


def test_an_evaluation_logs_its_losses(tmp_path, caplog):
    caplog.set_level("INFO")
    log = report(tmp_path)
    caplog.clear()  # `report` may have trained a run.
    log.write(2, {"eval/loss_text": 3.3471, "eval/loss_image": 0.43449, "eval/loss": 4.1})
    log.write(4, {"eval/loss_text": 2.0})
    log.write(6, {})
    log.close()
    assert [message for message in caplog.messages if "Held-out loss" in message] == [
        "Step 2: Held-out loss 3.35 on text, 0.434 on images (lower is better).",
        "Step 4: Held-out loss 2 on text (lower is better).",
    ]
