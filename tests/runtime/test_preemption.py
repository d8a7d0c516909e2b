"""Tests of SIGTERM and Ctrl-C: the run saves and exits, and the same command resumes it."""

import os
import signal
import subprocess
import sys
import threading

import pytest
from etils import epath

from oneflow_jax import main
from oneflow_jax.errors import Preempted
from oneflow_jax.runtime import preemption, workdir
from tests import runs


def run_until_signal(arguments, send):
    """Run the command, call `send` with the process at step 5; return exit code and output."""
    process = subprocess.Popen(
        **runs.popen_kwargs(*arguments),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        start_new_session=True,
    )
    before = []
    for line in process.stderr:
        before.append(line)
        if "training 5/" in line:
            send(process)
            break
    stdout, stderr = process.communicate(timeout=120)
    return process.returncode, stdout, "".join(before) + stderr


def press_ctrl_c(process):
    """Send SIGINT to the process and its children, as a terminal does."""
    os.killpg(process.pid, signal.SIGINT)


def test_sigterm_saves_exits_and_resuming_gives_the_same_result(tmp_path):
    arguments = [runs.CONFIG, "--config.steps=200", "--config.checkpoint.every=1000"]
    whole, broken = (epath.Path(tmp_path / name) for name in ("whole", "broken"))
    code, stdout, stderr = run_until_signal(
        [*arguments, f"--workdir={broken}"], lambda process: process.send_signal(signal.SIGTERM)
    )
    assert code == main.EXIT_PREEMPTED == 143, stderr
    (step,) = [int(path.name) for path in (broken / workdir.CHECKPOINTS).iterdir()]
    assert 5 <= step < 200
    assert f"Stopped after step {step}" in stdout
    assert not (broken / workdir.EVALUATION).exists()
    for folder in (broken, whole):
        done = runs.run(*arguments, f"--workdir={folder}")
        assert done.returncode == 0, done.stderr
        assert (f"Resuming from step {step}" in done.stderr) == (folder == broken)
    system = runs.prepare_system(broken, runs.make_config(steps=200, checkpoint__every=1000))
    (state, position), (expected, at) = (
        runs.load_state(system, folder) for folder in (broken, whole)
    )
    runs.assert_identical(state, expected)
    assert position == at


@pytest.mark.parametrize("workers", [0])
def test_ctrl_c_saves_and_exits(tmp_path, workers):
    arguments = [
        runs.CONFIG, "--config.steps=200", "--config.checkpoint.every=1000",
        f"--config.data.num_workers={workers}", f"--workdir={tmp_path / 'run'}",
    ]  # fmt: skip
    code, stdout, stderr = run_until_signal(arguments, press_ctrl_c)
    assert code == main.EXIT_INTERRUPTED == 130, stderr
    (step,) = [int(path.name) for path in (tmp_path / "run" / workdir.CHECKPOINTS).iterdir()]
    assert 5 <= step < 200
    assert f"Stopped after step {step} because of Ctrl-C" in stdout
    assert "Press Ctrl-C again" in stderr
    assert "Traceback" not in stderr
    resumed = runs.run(*arguments[:1], f"--config.steps={step + 1}", *arguments[2:])
    assert f"Resuming from step {step}" in resumed.stderr


SLOW_STEP = """
import time
from oneflow_jax import main
from oneflow_jax.runtime import preemption

def run(config):
    with preemption.stop_handler() as stop:
        print("step", flush=True)
        time.sleep(120)
        stop.raise_if_made(1)

main.run, main.parse_config = run, lambda arguments: None
main.MODE = type("Mode", (), {"value": "export"})
main.main()
"""


def test_a_second_ctrl_c_stops_at_once():
    process = subprocess.Popen(
        **runs.popen_kwargs() | {"args": [sys.executable, "-c", SLOW_STEP]},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        start_new_session=True,
    )
    assert process.stdout.readline() == "step\n"
    press_ctrl_c(process)
    told = next(line for line in process.stderr if "Ctrl-C" in line)
    assert "Press Ctrl-C again" in told
    press_ctrl_c(process)
    stdout, stderr = process.communicate(timeout=60)
    assert process.returncode == main.EXIT_INTERRUPTED == 130
    assert "Stopped after step" not in stdout
    assert "the same command resumes from the newest checkpoint" in stderr
    assert "Traceback" not in stderr


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_signal_handlers_are_restored(number):
    before = signal.getsignal(number)
    with preemption.stop_handler() as stop:
        assert not stop.is_due(1)
        signal.raise_signal(number)
        assert stop.is_due(2)
        with pytest.raises(Preempted, match="step 2"):
            stop.raise_if_made(2)
    assert signal.getsignal(number) is before


def test_second_interrupt_raises_keyboard_interrupt():
    with preemption.stop_handler():
        signal.raise_signal(signal.SIGINT)
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)


def test_ignored_ctrl_c_stays_ignored():
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        with preemption.stop_handler() as stop:
            signal.raise_signal(signal.SIGINT)
            assert not stop.is_due(1)
    finally:
        signal.signal(signal.SIGINT, before)


def test_stop_handler_outside_the_main_thread_ignores_signals():
    answers = []

    def request_stop():
        with preemption.stop_handler() as stop:
            answers.append(stop.is_due(1))

    thread = threading.Thread(target=request_stop)
    thread.start()
    thread.join()
    assert answers == [False]
