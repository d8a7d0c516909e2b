"""Tests of start-up and failures of several processes, simulated within one process."""

import importlib.util
import os
import subprocess
import sys

import jax
import pytest

from oneflow_jax.errors import Preempted, UserError
from oneflow_jax.runtime import distributed, watchdog

ADDRESS, COUNT, INDEX = distributed.ENV_VARS


@pytest.fixture
def initialize_calls(monkeypatch):
    """Replace `jax.distributed.initialize` by a recorder and return its calls."""
    calls = []
    monkeypatch.setattr(jax.distributed, "initialize", lambda *args, **rest: calls.append(args))
    monkeypatch.setattr(distributed, "TPU_DEVICE_GLOBS", ())
    for name in distributed.ENV_VARS:
        monkeypatch.delenv(name, raising=False)
    return calls


@pytest.mark.parametrize(
    ("environment", "expected"),
    [
        ({}, []),
        ({ADDRESS: "", COUNT: "", INDEX: ""}, []),
        ({ADDRESS: "there:12", COUNT: "4", INDEX: "3"}, [("there:12", 4, 3)]),
    ],
)
def test_environment_sets_the_number_of_processes(
    environment, expected, initialize_calls, monkeypatch
):
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    distributed.initialize()
    assert initialize_calls == expected


@pytest.mark.parametrize(
    ("platforms", "there", "installed", "expected"),
    [
        (None, True, True, [()]),
        ("tpu,cpu", True, True, [()]),
        ("cpu", True, True, []),
        (None, False, True, []),
        (None, True, False, []),
    ],
)
def test_tpu_hosts_initialize_through_jax(
    platforms, there, installed, expected, initialize_calls, tmp_path, monkeypatch
):
    monkeypatch.setattr(importlib.util, "find_spec", lambda _: object() if installed else None)
    if there:
        (tmp_path / "accel0").touch()
    monkeypatch.setattr(
        distributed, "TPU_DEVICE_GLOBS", (str(tmp_path / "nothing*"), str(tmp_path / "accel*"))
    )
    before = jax.config.jax_platforms
    jax.config.update("jax_platforms", platforms)
    try:
        distributed.initialize()
    finally:
        jax.config.update("jax_platforms", before)
    assert initialize_calls == expected


def test_other_errors_of_initialize_are_raised(monkeypatch):
    def fail(**_):
        raise ValueError("unsupported worker-network-endpoints format")

    monkeypatch.setattr(jax.distributed, "initialize", fail)
    monkeypatch.setattr(distributed, "_running_on_tpu", lambda: True)
    for name in distributed.ENV_VARS:
        monkeypatch.delenv(name, raising=False)
    with pytest.raises(ValueError, match="endpoints"):
        distributed.initialize()


@pytest.mark.parametrize(
    ("environment", "message"),
    [
        ({COUNT: "2"}, f"{COUNT}=2: {ADDRESS} and {INDEX} must be set too"),
        ({ADDRESS: "there:1", INDEX: "0"}, f": {COUNT} must be set too"),
        ({ADDRESS: "there:1", COUNT: "2", INDEX: "2"}, f"{INDEX}=2: the last two"),
        ({ADDRESS: "there:1", COUNT: "two", INDEX: "1"}, f"{COUNT}=two"),
        ({ADDRESS: "there", COUNT: "2", INDEX: "1"}, "HOST:PORT"),
    ],
)
def test_invalid_environment_is_reported(environment, message, initialize_calls, monkeypatch):
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(UserError) as error:
        distributed.initialize()
    assert message in str(error.value)
    assert not initialize_calls


def test_single_process_does_not_wait():
    assert distributed.is_primary()
    distributed.barrier()
    with distributed.primary_first():
        pass
    assert distributed.all_gather_json({"1": [2]}) == {"1": [2]}


def run_watchdog(stdin, *arguments):
    """Return what the watchdog prints if its input ends after `stdin`."""
    command = [sys.executable, "-I", watchdog.__file__, *map(str, arguments)]
    return subprocess.run(command, input=stdin, capture_output=True, check=True).stderr.decode()


def test_early_exit_prints_how_to_resume(tmp_path):
    for name in ("9", "10", "11.orbax-checkpoint-tmp"):
        (tmp_path / name).mkdir()
    assert run_watchdog(watchdog.EXITED_CLEANLY, 1, 2, tmp_path) == ""
    output = run_watchdog(b"", 1, 2, tmp_path)
    assert output.startswith("error: process 1 of 2 stopped before the end of the run")
    assert output.endswith("newest checkpoint, step 10.\n")
    assert run_watchdog(b"", 1, 2, tmp_path / "nothing").endswith("checkpoint, if there is one.\n")


@pytest.mark.parametrize("error", [UserError("mine"), Preempted("mine"), KeyboardInterrupt()])
def test_expected_errors_do_not_trigger_the_watchdog(error, tmp_path, monkeypatch, capfd):
    monkeypatch.setattr(distributed, "is_multi_process", lambda: True)
    with pytest.raises(type(error)), distributed.watch_peers(tmp_path):
        raise error
    assert "error" not in capfd.readouterr().err


@pytest.mark.parametrize("several", [True, False])
def test_failing_process_exits_without_waiting(several, monkeypatch, capfd):
    """Check that a failing process skips Python's normal exit, which waits for the others.

    The others may be waiting for this process in a collective.
    """
    codes = []
    monkeypatch.setattr(distributed, "is_multi_process", lambda: several)
    monkeypatch.setattr(os, "_exit", codes.append)
    with pytest.raises(SystemExit, match="1"):
        distributed.exit_process("mine")
    assert codes == [1] * several
    assert capfd.readouterr().err == "mine\n"


def test_immediate_exit_skips_python_shutdown(monkeypatch):
    """Check that `immediately` skips Python's normal exit.

    During a normal exit, threads that still work may crash: Ctrl-C caused a segmentation fault.
    """
    codes = []
    monkeypatch.setattr(os, "_exit", codes.append)
    with pytest.raises(SystemExit):
        distributed.exit_process("mine", immediately=True)
    assert codes == [1]
