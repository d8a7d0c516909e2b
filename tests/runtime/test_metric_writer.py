import io
import json
import logging
import math
import re

import pytest
from etils import epath

from oneflow_jax.runtime import metric_writer


class Terminal(io.StringIO):
    def isatty(self):
        return True


@pytest.fixture
def folder(tmp_path):
    return epath.Path(tmp_path / "logs")


def lines(folder):
    return [
        json.loads(line) for line in (folder / metric_writer.METRICS_FILE).read_text().splitlines()
    ]


def write_losses(folder, steps, resume_at=0):
    writer = metric_writer.MetricWriter(folder, resume_at)
    for step in steps:
        writer.write_scalars(step, {"train/loss": 1.0 / step})
    writer.close()


def test_scalars_are_written_as_json_lines_and_events(folder):
    writer = metric_writer.MetricWriter(folder)
    writer.write_scalars(3, {"train/loss": 0.5, "eval/loss_text/t=0.25": math.inf})
    writer.flush()
    # Non-finite numbers become null, so that the line is valid JSON.
    assert lines(folder) == [{"step": 3, "train/loss": 0.5, "eval/loss_text/t=0.25": None}]
    writer.close()
    (events,) = folder.glob("events.out.tfevents.*")
    assert b"train/loss" in events.read_bytes()


def test_resuming_deletes_reports_after_the_resume_step(folder):
    write_losses(folder, range(1, 6))
    write_losses(folder, range(4, 7), resume_at=3)
    assert [row["step"] for row in lines(folder)] == [1, 2, 3, 4, 5, 6]


def test_new_run_deletes_all_reports(folder):
    write_losses(folder, range(1, 6))
    write_losses(folder, [1])
    assert [row["step"] for row in lines(folder)] == [1]


def test_truncated_line_is_skipped_with_a_warning(folder, caplog):
    write_losses(folder, [1, 2])
    path = folder / metric_writer.METRICS_FILE
    path.write_text(path.read_text()[:-9])
    assert [row["step"] for row in metric_writer.read_metrics(folder)] == [1]
    assert "a truncated line is skipped" in caplog.text
    write_losses(folder, [3], resume_at=2)
    assert [row["step"] for row in lines(folder)] == [1, 3]


def test_missing_file_has_no_reports(folder):
    assert metric_writer.read_metrics(folder) == []


def test_curves_are_read_by_name_with_nan_for_infinity(folder):
    writer = metric_writer.MetricWriter(folder)
    for step, row in [(1, {"a": 1.0}), (2, {"b": 5.0}), (3, {"a": math.inf, "b": 6.0, "c": 7.0})]:
        writer.write_scalars(step, row)
    writer.close()
    curves = metric_writer.read_curves(folder, ["b", "a", "never"])
    assert curves["b"] == [(2, 5.0), (3, 6.0)]
    assert curves["a"][0] == (1, 1.0)
    assert curves["a"][1][0] == 3
    assert math.isnan(curves["a"][1][1])
    assert set(curves) == {"a", "b"}
    assert metric_writer.read_curves(folder / "nowhere", ["a"]) == {}


def test_progress_is_logged_as_lines_without_a_terminal(monkeypatch, caplog):
    stream = io.StringIO()
    monkeypatch.setattr("sys.stderr", stream)
    with caplog.at_level(logging.INFO):
        progress = metric_writer.ProgressBar("training", 10)
        progress.advance(5)
        progress.report(5, "loss 0.5")
        progress.close()
    assert re.fullmatch(r"training 5/10 \| loss 0.5 \| \d+:\d\d left", caplog.messages[0])
    assert "%" not in stream.getvalue()


def test_progress_draws_a_bar_on_a_terminal(monkeypatch, caplog):
    terminal = Terminal()
    monkeypatch.setattr("sys.stderr", terminal)
    with caplog.at_level(logging.INFO):
        progress = metric_writer.ProgressBar("training", 10, start=3)
        progress.advance(5)
        progress.report(5, "loss 0.5")
        progress.close()
    printed = terminal.getvalue()
    assert "training:  50%" in printed
    assert "5/10" in printed
    assert "loss 0.5" in printed
    assert not caplog.messages


def test_remaining_time_is_estimated_from_the_resume_step(monkeypatch, caplog):
    """Check a run resumed at step 10 of 20: 5 steps took 50 s, so the other 5 take 50 s."""
    now = iter([0.0, 50.0])
    monkeypatch.setattr("time.monotonic", lambda: next(now))
    monkeypatch.setattr("sys.stderr", io.StringIO())
    with caplog.at_level(logging.INFO):
        metric_writer.ProgressBar("training", 20, start=10).report(15, "fine")
    assert caplog.messages[0].endswith("| 0:50 left")


@pytest.mark.parametrize(("seconds", "text"), [(0, "0:00"), (61.6, "1:02"), (3661, "1:01:01")])
def test_duration_format(seconds, text):
    assert metric_writer._format_duration(seconds) == text


def test_losses_of_documents_are_read_back_and_resuming_deletes_later_ones(folder):
    writer = metric_writer.MetricWriter(folder)
    for step in (50, 100):
        writer.write_documents(step, {"text_heldout": [1.0, math.nan]})
    writer.close()
    losses = {"text_heldout": [1.0, None]}
    assert metric_writer.read_documents(folder) == [(50, losses), (100, losses)]
    metric_writer.MetricWriter(folder, 50).close()
    assert metric_writer.read_documents(folder) == [(50, losses)]
    assert metric_writer.read_documents(folder / "none") == []


def test_choices_are_logged_once_and_progress_each_time(capsys):
    metric_writer.setup_logging()
    for _ in range(2):
        metric_writer.log_once("model.attention=%s", "xla")
        logging.info("step 1")
    logged = capsys.readouterr().err
    assert logged.count("model.attention=xla") == 1
    assert logged.count("step 1") == 2


def test_messages_are_on_lines_of_their_own_above_a_live_bar(monkeypatch):
    terminal = Terminal()
    monkeypatch.setattr("sys.stderr", terminal)
    metric_writer.setup_logging()
    bar = metric_writer.ProgressBar("training", 10)
    bar.advance(3)
    logging.info("Step 3: fine")
    bar.close()
    line = next(line for line in terminal.getvalue().split("\n") if "Step 3" in line)
    assert re.fullmatch(r"\d\d:\d\d:\d\d Step 3: fine", line.rpartition("\r")[2])
