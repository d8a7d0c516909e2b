"""Tests of runs in an object store by command line: kill, resume, takeover, completion."""

import json
import subprocess
import time

import pytest
from etils import epath

import oneflow_jax as of
from oneflow_jax.errors import UserError
from oneflow_jax.runtime import metric_writer, storage, workdir
from tests import runs
from tests.cloud import conftest

STEPS = 60
OPTIONS = (
    f"--config.steps={STEPS}",
    "--config.checkpoint.every=10",
    "--config.checkpoint.keep_period=20",
    "--config.checkpoint.max_to_keep=2",
    "--config.evaluation.every=30",
    f"--config.profile_steps=({STEPS - 1},{STEPS})",
    f"--config.sampling.preview_every={STEPS}",
    "--config.compilation_cache=True",
)


def start_run(folder):
    """Start a run; the caller has to end it."""
    return subprocess.Popen(
        **runs.popen_kwargs(runs.CONFIG, f"--workdir={folder}", *OPTIONS),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )


def read_losses(folder):
    """Return the reported training losses, by step."""
    metrics = metric_writer.read_metrics(folder / workdir.LOGS)
    return {row["step"]: row["train/loss"] for row in metrics if "train/loss" in row}


def complete_steps(folder):
    """Return the steps with a complete checkpoint."""
    markers = (folder / workdir.CHECKPOINTS).glob("*/commit_success.txt")
    return {int(path.parent.name) for path in markers}


def wait(process, true):
    """Wait until `true()` holds; fail if the process ends or takes too long."""
    deadline = time.monotonic() + 200
    while not true():
        assert process.poll() is None, process.stdout.read()
        assert time.monotonic() < deadline
        time.sleep(0.1)


@pytest.fixture(scope="module")
def history(emulator):
    """Run to the end with interruptions: kill, resume, takeover by another process, resume.

    Returns the folder, the losses before the kill, the result of the run that was taken over, and
    the last result.
    """
    folder = epath.Path(f"gs://{conftest.BUCKET}/runs/tiny")
    with start_run(folder) as first:
        wait(
            first,
            lambda: (
                complete_steps(folder) and max(read_losses(folder)) > max(complete_steps(folder))
            ),
        )
        first.kill()
    killed = read_losses(folder)
    (folder / workdir.CHECKPOINTS / str(STEPS) / "ema" / "half").write_text("of a killed save")
    with start_run(folder) as second:
        wait(second, lambda: max(read_losses(folder)) > max(killed))
        (folder / storage.LEASE_FILE).write_text("process 1 on elsewhere\n")
        taken = second.communicate()[0]
    code = second.returncode
    last = runs.run(runs.CONFIG, f"--workdir={folder}", *OPTIONS)
    return folder, killed, (code, taken), last


def test_killed_run_resumes_with_equal_losses(history):
    folder, killed, _, last = history
    assert last.returncode == 0, last.stderr
    after = read_losses(folder)
    assert list(after) == list(range(1, STEPS + 1))
    assert {step: after[step] for step in killed} == killed
    # All losses differ from each other, so the comparison above is not trivial.
    assert len(set(killed.values())) == len(killed)


def test_run_that_lost_its_lease_stops_saving(history):
    _, _, (code, output), _ = history
    assert code == 1
    error = output.strip().splitlines()[-1]
    assert error.startswith("error: ")
    assert "another run has taken over --workdir, process 1 on elsewhere" in error
    assert "Traceback" not in output


def test_old_checkpoints_are_deleted_except_kept_ones(history):
    folder = history[0]
    steps = {int(path.name) for path in (folder / workdir.CHECKPOINTS).iterdir()}
    assert steps == complete_steps(folder) == {20, 40, 50, 60}
    assert not (folder / workdir.CHECKPOINTS / str(STEPS) / "ema" / "half").exists()


def test_finished_run_has_all_files(history):
    folder, *_, last = history
    assert f"Page: {folder / workdir.SAMPLES_PAGE}" in last.stdout
    assert "eval/loss_" in str(json.loads((folder / workdir.EVALUATION).read_text()))
    for path in (folder, folder / workdir.PREVIEWS / str(STEPS)):
        stem = path / workdir.SAMPLES_PAGE if path == folder else path.with_suffix(".html")
        assert stem.read_text().startswith("<!doctype html>")
        assert stem.with_suffix(".png").read_bytes().startswith(b"\x89PNG")
    assert list((folder / workdir.PROFILE).glob("plugins/profile/*/*.xplane.pb"))
    assert list((folder / workdir.COMPILATION_CACHE).glob("*-cache"))
    assert len(list((folder / workdir.LOGS).glob("events.out.tfevents.*"))) == 3


def test_no_local_files_remain(history):
    assert not (runs.REPOSITORY / "gs:").exists()


def test_running_run_can_be_sampled_from_elsewhere(history):
    folder = history[0]
    owner = (folder / storage.LEASE_FILE).read_text()
    before = (folder / workdir.SAMPLES_PAGE).read_bytes()
    saving = folder / workdir.CHECKPOINTS / "70" / "ema" / "half"
    saving.write_text("of a save that goes on")
    done = runs.run("--mode=sample", f"--workdir={folder}", "--prompt=red: <image>")
    assert done.returncode == 0, done.stderr
    assert (folder / workdir.SAMPLES_PAGE).read_bytes() != before
    assert saving.exists()
    assert (folder / storage.LEASE_FILE).read_text() == owner


def test_python_interface_loads_a_remote_run(history):
    folder = history[0]
    owner = (folder / storage.LEASE_FILE).read_text()
    (document,) = of.load(str(folder)).generate("red: <image>", steps=2)
    assert len(document.images) == 1
    assert (folder / storage.LEASE_FILE).read_text() == owner
    with pytest.raises(UserError, match="the bucket 'none' cannot be used"):
        of.load("gs://none/run")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--workdir=gs://none/run"], "--workdir=gs://none/run: the bucket 'none' cannot be used"),
        (
            ["--config.data.dir=gs://bucket/data"],
            "data.dir=gs://bucket/data: this folder must be local",
        ),
        (
            ["--config.init_from=gs://none/run"],
            "init_from=gs://none/run: the bucket 'none' cannot be used",
        ),
    ],
)
def test_errors_are_reported_before_training(emulator, tmp_path, cli, arguments, message):
    with pytest.raises(UserError) as raised:
        cli(runs.CONFIG, f"--workdir={tmp_path / 'run'}", *arguments)
    assert str(raised.value).startswith(message)
    assert "\n" not in str(raised.value)
