"""A run whose folder is in an object store, from the command line: killed, taken over, finished."""

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
    "--config.checkpoint.milestones=20",
    "--config.checkpoint.keep=2",
    "--config.evaluation.every=30",
    f"--config.profile=({STEPS - 1},{STEPS})",
    f"--config.sampling.every={STEPS}",
    "--config.keep_compiled=True",
)


def started(folder):
    """A run that is on its way; the caller ends it."""
    return subprocess.Popen(
        **runs.popen_kwargs(runs.CONFIG, f"--workdir={folder}", *OPTIONS),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )


def rows(folder):
    """What was reported of training, by step."""
    told = metric_writer.read_metrics(folder / workdir.LOGS)
    return {row["step"]: row["train/loss"] for row in told if "train/loss" in row}


def whole(folder):
    """Steps that are saved whole."""
    found = (folder / workdir.CHECKPOINTS).glob("*/commit_success.txt")
    return {int(path.parent.name) for path in found}


def wait(process, true):
    """Until something is true of a running process."""
    deadline = time.monotonic() + 200
    while not true():
        assert process.poll() is None, process.stdout.read()
        assert time.monotonic() < deadline
        time.sleep(0.1)


@pytest.fixture(scope="module")
def history(emulator):
    """The folder of a run that was killed, went on, was taken over, and went on to its end."""
    folder = epath.Path(f"gs://{conftest.BUCKET}/runs/tiny")
    with started(folder) as first:
        wait(first, lambda: whole(folder) and max(rows(folder)) > max(whole(folder)))
        first.kill()
    killed = rows(folder)
    (folder / workdir.CHECKPOINTS / str(STEPS) / "ema" / "half").write_text("of a killed save")
    with started(folder) as second:
        wait(second, lambda: max(rows(folder)) > max(killed))
        (folder / storage.LEASE_FILE).write_text("process 1 on elsewhere\n")
        taken = second.communicate()[0]
    code = second.returncode
    last = runs.run(runs.CONFIG, f"--workdir={folder}", *OPTIONS)
    return folder, killed, (code, taken), last


def test_a_killed_run_goes_on_as_if_nothing_had_happened(history):
    folder, killed, _, last = history
    assert last.returncode == 0, last.stderr
    after = rows(folder)
    assert list(after) == list(range(1, STEPS + 1))
    assert {step: after[step] for step in killed} == killed
    assert len(set(killed.values())) == len(killed)  # Else all that would say nothing.


def test_a_run_that_is_taken_over_saves_nothing_more(history):
    _, _, (code, told), _ = history
    assert code == 1
    error = told.strip().splitlines()[-1]
    assert error.startswith("error: ")
    assert "another run has taken over --workdir, process 1 on elsewhere" in error
    assert "Traceback" not in told


def test_old_checkpoints_go_and_milestones_stay(history):
    folder = history[0]
    kept = {int(path.name) for path in (folder / workdir.CHECKPOINTS).iterdir()}
    assert kept == whole(folder) == {20, 40, 50, 60}
    assert not (folder / workdir.CHECKPOINTS / str(STEPS) / "ema" / "half").exists()


def test_everything_is_there(history):
    folder, *_, last = history
    assert f"Page: {folder / workdir.SAMPLES_PAGE}" in last.stdout
    assert "heldout" in str(json.loads((folder / workdir.EVALUATION).read_text()))
    for path in (folder, folder / workdir.PREVIEWS / str(STEPS)):
        stem = path / workdir.SAMPLES_PAGE if path == folder else path.with_suffix(".html")
        assert stem.read_text().startswith("<!doctype html>")
        assert stem.with_suffix(".png").read_bytes().startswith(b"\x89PNG")
    assert list((folder / workdir.PROFILE).glob("plugins/profile/*/*.xplane.pb"))
    assert list((folder / workdir.COMPILATION_CACHE).glob("*-cache"))
    assert len(list((folder / workdir.LOGS).glob("events.out.tfevents.*"))) == 3


def test_nothing_is_left_on_this_machine(history):
    assert not (runs.REPOSITORY / "gs:").exists()


def test_a_run_is_sampled_from_elsewhere_while_it_goes_on(history):
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


def test_python_loads_it(history):
    folder = history[0]
    owner = (folder / storage.LEASE_FILE).read_text()
    (document,) = of.load(str(folder)).generate("red: <image>", steps=2)
    assert len(document.images) == 1
    assert (folder / storage.LEASE_FILE).read_text() == owner
    with pytest.raises(UserError, match="the bucket 'none' cannot be used"):
        of.load("gs://none/run")


@pytest.mark.parametrize(
    ("given", "told"),
    [
        (["--workdir=gs://none/run"], "--workdir=gs://none/run: the bucket 'none' cannot be used"),
        (
            ["--config.data.dir=gs://bucket/data"],
            "data.dir=gs://bucket/data: give a folder of this",
        ),
        (["--config.start=gs://none/run"], "start=gs://none/run: the bucket 'none' cannot be used"),
    ],
)
def test_mistakes_are_told_before_anything_is_made(emulator, tmp_path, cli, given, told):
    with pytest.raises(UserError) as raised:
        cli(runs.CONFIG, f"--workdir={tmp_path / 'run'}", *given)
    assert str(raised.value).startswith(told)
    assert "\n" not in str(raised.value)
