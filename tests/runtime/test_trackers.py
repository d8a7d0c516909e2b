"""Tests of logging to Weights & Biases and MLflow: each step once, in one run."""

import collections
import glob
import math
import pathlib
import struct

import pytest
from etils import epath

from oneflow_jax.build import values
from oneflow_jax.errors import UserError
from oneflow_jax.runtime import metric_writer, trackers, workdir
from oneflow_jax.training import loop
from tests import runs
from tests.training import test_resume


class Recorder:
    """A replacement of `trackers._Wandb` that keeps what it is sent."""

    opened: list
    sent: list
    closed: list
    fails = False

    def __init__(self, project, run, config, directory):
        self.opened.append((project, run, config.get("name")))
        self.run = run or "x7d2"

    def send(self, step, scalars):
        self.sent.extend((step, name) for name in scalars)
        if self.fails:
            raise OSError("no network")

    def close(self):
        self.closed.append(len(self.sent))


@pytest.fixture
def recorder(monkeypatch):
    recorder = type("Fresh", (Recorder,), {"opened": [], "sent": [], "closed": []})
    monkeypatch.setattr(trackers, "_Wandb", recorder)
    monkeypatch.setattr(trackers, "check_installed", lambda *_: None)
    return recorder


def write(folder, steps, resume_step=0, wandb_project="p", mlflow_uri=""):
    """Log a training report at each step, and an evaluation at each even one."""
    directory = epath.Path(folder) / workdir.LOGS
    opened = trackers.open_trackers(wandb_project, mlflow_uri, directory)
    writer = metric_writer.MetricWriter(directory, resume_step, opened)
    for step in steps:
        writer.write_scalars(step, {"train/loss": 1 / step, "train/mfu@t=0.1": math.inf})
        if step % 2 == 0:
            writer.write_scalars(step, {"eval/loss": 2 / step})
    writer.close()


def test_each_scalar_of_each_step_is_sent_once(recorder, tmp_path):
    write(tmp_path, range(1, 6))
    write(tmp_path, range(3, 9), resume_step=2)
    assert recorder.opened == [("p", "", None), ("p", "x7d2", None)]
    losses = [step for step, name in recorder.sent if name == "train/loss"]
    assert losses == list(range(1, 9))
    assert [step for step, name in recorder.sent if name == "eval/loss"] == [2, 4, 6, 8]
    assert len(recorder.closed) == 2


def test_another_project_gets_a_new_run_with_all_further_steps(recorder, tmp_path):
    write(tmp_path, [1, 2])
    write(tmp_path, [2, 3], resume_step=1, wandb_project="q")
    assert recorder.opened == [("p", "", None), ("q", "", None)]
    assert (2, "train/loss") in recorder.sent[recorder.closed[0] :]


def test_a_service_that_fails_does_not_stop_training(recorder, tmp_path, caplog):
    recorder.fails = True
    write(tmp_path, [1])
    assert "wandb has no report of step 1: no network" in caplog.text
    assert len(metric_writer.read_metrics(epath.Path(tmp_path) / workdir.LOGS)) == 1


def test_a_resumed_run_continues_its_run_and_repeats_no_step(recorder, tmp_path):
    folder = epath.Path(tmp_path / "run")
    system = runs.prepare_system(folder, runs.make_config(logging__wandb_project="p"))
    loop.run(system, folder)
    test_resume.delete_checkpoints_after(folder, 2)
    loop.run(system, folder)
    assert recorder.opened == [("p", "", "tiny"), ("p", "x7d2", "tiny")]
    assert max(collections.Counter(recorder.sent).values()) == 1
    losses = [step for step, name in recorder.sent if name == "train/loss"]
    assert losses == [1, 2, 3, 4, 5, 6]


@pytest.mark.parametrize("key", ["wandb_project", "mlflow_uri"])
def test_a_missing_package_is_reported_before_anything_is_prepared(key, monkeypatch):
    monkeypatch.setattr(trackers.importlib.util, "find_spec", lambda name: None)
    config = runs.make_config(**{f"logging__{key}": "mine"})
    with pytest.raises(
        UserError, match=rf"logging.{key}='mine': the package \w+ is not installed. Run pip"
    ):
        values.validate_training(config)
    values.validate_training(runs.make_config())


def test_a_service_that_refuses_is_reported(recorder, tmp_path, monkeypatch):
    def refuse(*_):
        raise ValueError("no API key")

    monkeypatch.setattr(trackers, "_Wandb", refuse)
    with pytest.raises(UserError, match=r"logging.wandb_project='p': .*no API key.*Log in"):
        write(tmp_path, [1])


def read_records(path):
    """Yield the records of a file of W&B: 7 bytes, and then LevelDB's format of logs."""
    data, place, record = pathlib.Path(path).read_bytes(), 7, b""
    while place + 7 <= len(data):
        left_of_block = 2**15 - place % 2**15
        if left_of_block < 7:
            place += left_of_block
            continue
        _, length, kind = struct.unpack("<IHB", data[place : place + 7])
        record += data[place + 7 : place + 7 + length]
        place += 7 + length
        if kind in (1, 4):  # a whole record, or its last part
            yield record
            record = b""


def read_offline_history(folder):
    """Return the steps of the losses in the files of W&B's offline runs, by the name of the run."""
    from wandb.proto import wandb_internal_pb2

    history = {}
    for path in sorted(glob.glob(f"{folder}/{workdir.LOGS}/wandb/offline-run-*/run-*.wandb")):
        name = path.rpartition("/run-")[2].removesuffix(".wandb")
        for data in read_records(path):
            row = wandb_internal_pb2.Record.FromString(data).history
            if "train/loss" in [item.key or "/".join(item.nested_key) for item in row.item]:
                history.setdefault(name, []).append(row.step.num)
    return history


def test_wandb_offline(tmp_path, monkeypatch):
    pytest.importorskip("wandb")
    monkeypatch.setenv("WANDB_MODE", "offline")
    write(tmp_path, range(1, 6))
    write(tmp_path, range(3, 9), resume_step=2)
    history = read_offline_history(tmp_path)
    assert len(history) == 1
    assert list(history.values()) == [list(range(1, 9))]


def test_mlflow_store(tmp_path):
    mlflow = pytest.importorskip("mlflow")
    pytest.importorskip("sqlalchemy")
    uri = f"sqlite:///{tmp_path}/mlflow.db"
    write(tmp_path, range(1, 6), wandb_project="", mlflow_uri=uri)
    write(tmp_path, range(3, 9), resume_step=2, wandb_project="", mlflow_uri=uri)
    client = mlflow.MlflowClient(tracking_uri=uri)
    experiment = client.get_experiment_by_name(trackers.MLFLOW_EXPERIMENT)
    (run,) = client.search_runs([experiment.experiment_id])
    assert run.info.status == "FINISHED"
    history = client.get_metric_history(run.info.run_id, "train/loss")
    assert [(row.step, row.value) for row in history] == [(n, 1 / n) for n in range(1, 9)]
