"""Weights & Biases and MLflow, which show the scalars of a run beside TensorBoard's events.

`logging.wandb_project` and `logging.mlflow_uri` select them (docs/training.md). Their packages are
imported only if they are selected.

The folder of the logs has a file with the identifier of the run in each service, and the newest
step of each scalar that was sent. So a resumed run continues the same run, and does not send again
the steps that training repeats.
"""

import importlib.util
import json
import logging
import math
import re
import time
from collections.abc import Callable, Mapping
from typing import Protocol, TypedDict

from etils import epath

from oneflow_jax.errors import UserError
from oneflow_jax.runtime import storage, workdir

STATE_FILE = "trackers.json"
"""File in the folder of the logs, with the `State` of each tracker by name."""

MLFLOW_EXPERIMENT = "oneflow_jax"
"""Name of the experiment that MLflow shows the runs in."""

_MLFLOW_BATCH = 100
"""Maximum number of parameters that MLflow takes in one call."""


class State(TypedDict):
    """What a resumed run must know about its run in a service.

    Attributes:
        target: project or address of the service; with another one, a new run begins there.
        run: identifier of the run there.
        steps: newest step of each scalar that was sent, by the name of the scalar.
    """

    target: str
    run: str
    steps: dict[str, int]


class Service(Protocol):
    """A run in a tracking service; `run` is its identifier."""

    run: str

    def send(self, step: int, scalars: Mapping[str, float]) -> None:
        """Send the scalars of one step."""

    def close(self) -> None:
        """Mark the run as finished, and wait until all scalars are sent."""


class Tracker:
    """A run in a tracking service, to which each scalar of each step is sent at most once."""

    def __init__(self, name: str, service: Service, state: State, directory: epath.Path) -> None:
        """Continue after the steps in `state`; `directory` is the folder of the logs."""
        self._name, self._service, self._state = name, service, state
        self._path = directory / STATE_FILE
        self._save()

    def write_scalars(self, step: int, scalars: Mapping[str, float]) -> None:
        """Send the scalars that were not sent at this step or at a later one.

        If the service fails, the method logs a warning and training goes on, because the scalars
        are in the other logs, too.
        """
        steps = self._state["steps"]
        new = {name: float(x) for name, x in scalars.items() if step > steps.get(name, -1)}
        if not new:
            return
        # The state is saved first, so a run that is killed here loses a report, and sends none
        # twice.
        steps |= dict.fromkeys(new, step)
        self._save()
        try:
            self._service.send(step, new)
        except Exception as error:  # Services raise errors of many types.
            logging.warning("%s has no report of step %d: %s", self._name, step, error)

    def close(self) -> None:
        """Finish the run in the service."""
        self._service.close()

    def _save(self) -> None:
        states = _read_states(self._path) | {self._name: self._state}
        workdir.write_atomically(self._path, json.dumps(states) + "\n")


class _Wandb:
    """A run in Weights & Biases."""

    def __init__(
        self, project: str, run: str, config: Mapping[str, str], directory: epath.Path
    ) -> None:
        import wandb

        self._run = wandb.init(
            project=project,
            id=run or None,
            name=config.get("name"),
            config=dict(config),
            dir=None if storage.is_remote(directory) else str(directory),
            resume="allow",
            settings=wandb.Settings(console="off"),
        )
        self.run = self._run.id

    def send(self, step: int, scalars: Mapping[str, float]) -> None:
        self._run.log(dict(scalars), step=step)

    def close(self) -> None:
        self._run.finish()


class _Mlflow:
    """A run in MLflow."""

    def __init__(self, uri: str, run: str, config: Mapping[str, str]) -> None:
        import mlflow

        self._entities = mlflow.entities
        self._client = mlflow.MlflowClient(tracking_uri=uri)
        if run:
            self._client.update_run(run, status="RUNNING")
        self.run = run or self._create_run(config)

    def _create_run(self, config: Mapping[str, str]) -> str:
        found = self._client.get_experiment_by_name(MLFLOW_EXPERIMENT)
        experiment = (
            found.experiment_id if found else self._client.create_experiment(MLFLOW_EXPERIMENT)
        )
        run = self._client.create_run(experiment, run_name=config.get("name")).info.run_id
        params = [self._entities.Param(name, text[:500]) for name, text in config.items()]
        for first in range(0, len(params), _MLFLOW_BATCH):
            self._client.log_batch(run, params=params[first : first + _MLFLOW_BATCH])
        return run

    def send(self, step: int, scalars: Mapping[str, float]) -> None:
        now = int(time.time() * 1000)
        metrics = [
            self._entities.Metric(re.sub(r"[^\w\-. /]", "_", name), value, now, step)
            for name, value in scalars.items()
            if math.isfinite(value)  # Not all stores of MLflow take infinity and NaN.
        ]
        self._client.log_batch(self.run, metrics=metrics)

    def close(self) -> None:
        self._client.set_terminated(self.run)


def check_installed(wandb_project: str, mlflow_uri: str) -> None:
    """Check that the packages of the selected trackers are installed.

    Raises:
        UserError: a package is missing.
    """
    for key, value, package in (
        ("logging.wandb_project", wandb_project, "wandb"),
        ("logging.mlflow_uri", mlflow_uri, "mlflow"),
    ):
        if value and importlib.util.find_spec(package) is None:
            raise UserError(
                f"{key}={value!r}: the package {package} is not installed. Run pip install -r "
                f"requirements-trackers.txt, or set {key}='' to log without it."
            )


def open_trackers(wandb_project: str, mlflow_uri: str, directory: epath.Path) -> list[Tracker]:
    """Return the selected trackers; each continues the run that it began before.

    Args:
        wandb_project: project of Weights & Biases; "" for none.
        mlflow_uri: address of a server or a store of MLflow; "" for none.
        directory: folder of the logs, in the folder of the run; it is created if it is missing.

    Raises:
        UserError: a package is missing, or a service refuses the run.
    """
    check_installed(wandb_project, mlflow_uri)
    states = _read_states(directory / STATE_FILE)
    saved = (directory.parent / workdir.CONFIG).exists()
    config = workdir.flatten_config(workdir.load_config(directory.parent)) if saved else {}
    selected: dict[str, tuple[str, str, Callable[[str], Service]]] = {
        "wandb": (
            "logging.wandb_project",
            wandb_project,
            lambda run: _Wandb(wandb_project, run, config, directory),
        ),
        "mlflow": (
            "logging.mlflow_uri",
            mlflow_uri,
            lambda run: _Mlflow(mlflow_uri, run, config),
        ),
    }
    trackers = []
    for name, (key, target, make) in selected.items():
        if not target:
            continue
        directory.mkdir(parents=True, exist_ok=True)
        state = states.get(name)
        if state is None or state["target"] != target:
            state = State(target=target, run="", steps={})
        try:
            service = make(state["run"])
        except Exception as error:  # Services raise errors of many types.
            raise UserError(
                f"{key}={target!r}: the run cannot be opened there ({str(error).strip()}). Log in "
                f"to the service, correct the value, or set {key}=''. If the run was deleted "
                f"there, delete {directory / STATE_FILE}."
            ) from error
        trackers.append(Tracker(name, service, state | {"run": service.run}, directory))
    return trackers


def _read_states(path: epath.Path) -> dict[str, State]:
    return json.loads(path.read_text()) if path.exists() else {}
