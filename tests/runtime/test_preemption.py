"""Tests of SIGTERM and Ctrl-C: the run saves and exits, and the same command resumes it."""

import fcntl
import os
import pathlib
import pty
import signal
import subprocess
import sys
import termios
import threading
import time

import pytest
from etils import epath

from oneflow_jax import errors, main
from oneflow_jax.errors import Preempted
from oneflow_jax.runtime import preemption, workdir
from tests import runs

STEPS = 200
LONG_RUN = (
    runs.CONFIG,
    f"--config.steps={STEPS}",
    "--config.checkpoint.every=1000",
    "--config.evaluation.every=1000",
)
"""A run that, without a signal, saves only at its last step, which is seconds after step 5."""


DEFAULT_SIGNALS = ("env", "--default-signal=HUP", "--default-signal=INT")
"""Start of a command that undoes ignored signals: a background job of a shell ignores Ctrl-C."""


@pytest.fixture(autouse=True)
def default_signal_handlers():
    """Set the signal handlers that a process has if it is started from a terminal."""
    handlers = {signal.SIGHUP: signal.SIG_DFL, signal.SIGINT: signal.default_int_handler}
    before = {number: signal.signal(number, handler) for number, handler in handlers.items()}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


def run_until_signal(arguments, send):
    """Run the command, call `send` with the process at step 5; return exit code and output."""
    kwargs = runs.popen_kwargs(*arguments)
    process = subprocess.Popen(
        **kwargs | {"args": [*DEFAULT_SIGNALS, *kwargs["args"]]},
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
    stdout, stderr = process.communicate(timeout=runs.TIMEOUT_S)
    return process.returncode, stdout, "".join(before) + stderr


def press_ctrl_c(process):
    """Send SIGINT to the process and its children, as a terminal does."""
    os.killpg(process.pid, signal.SIGINT)


def test_sigterm_saves_exits_and_resuming_gives_the_same_result(tmp_path):
    whole, broken = (epath.Path(tmp_path / name) for name in ("whole", "broken"))
    code, stdout, stderr = run_until_signal(
        [*LONG_RUN, f"--workdir={broken}"], lambda process: process.send_signal(signal.SIGTERM)
    )
    assert code == errors.EXIT_PREEMPTED == 143, stderr
    (step,) = [int(path.name) for path in (broken / workdir.CHECKPOINTS).iterdir()]
    assert 5 <= step < STEPS
    assert f"Stopped after step {step}" in stdout
    assert not (broken / workdir.EVALUATION).exists()
    for folder in (broken, whole):
        done = runs.run(*LONG_RUN, f"--workdir={folder}", module=runs.TRAINING_MODULE)
        assert done.returncode == 0, done.stderr
        assert (f"Resuming from step {step}" in done.stderr) == (folder == broken)
    config = runs.make_config(steps=STEPS, checkpoint__every=1000, evaluation__every=1000)
    system = runs.prepare_system(broken, config)
    (state, position), (expected, at) = (
        runs.load_state(system, folder) for folder in (broken, whole)
    )
    runs.assert_identical(state, expected)
    assert position == at


def list_group(process_group):
    """Return the commands of the running processes of a process group."""
    found = []
    for path in pathlib.Path("/proc").glob("[0-9]*"):
        try:
            fields = (path / "stat").read_text().rpartition(")")[2].split()
            if int(fields[2]) == process_group and fields[0] != "Z":
                found.append((path / "cmdline").read_text())
        except OSError:
            continue  # The process has ended.
    return found


def assert_no_process_remains(process_group):
    until = time.monotonic() + 30
    while (left := list_group(process_group)) and time.monotonic() < until:
        time.sleep(0.1)
    assert not left


def test_ctrl_c_saves_and_exits(tmp_path):
    arguments = [*LONG_RUN, f"--workdir={tmp_path / 'run'}"]
    code, stdout, stderr = run_until_signal(arguments, press_ctrl_c)
    assert code == main.EXIT_INTERRUPTED == 130, stderr
    (step,) = [int(path.name) for path in (tmp_path / "run" / workdir.CHECKPOINTS).iterdir()]
    assert 5 <= step < STEPS
    assert f"Stopped after step {step} because of Ctrl-C" in stdout
    assert "Press Ctrl-C again" in stderr
    assert "Traceback" not in stderr
    arguments[1] = f"--config.steps={step + 1}"
    resumed = runs.run(*arguments, module=runs.TRAINING_MODULE)
    assert f"Resuming from step {step}" in resumed.stderr


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_data_workers_leave_signals_to_the_run(tmp_path, number):
    """Check signals that a terminal or service manager sends to the run and to its workers."""
    arguments = [
        *LONG_RUN, "--config.data.num_workers=2", "--config.data.num_streams=2",
        f"--workdir={tmp_path / 'run'}",
    ]  # fmt: skip
    groups = []

    def send(process):
        groups.append(process.pid)
        assert len([each for each in list_group(process.pid) if "spawn_main" in each]) == 2
        os.killpg(process.pid, number)

    code, stdout, stderr = run_until_signal(arguments, send)
    assert code == 128 + number, stderr
    (step,) = [int(path.name) for path in (tmp_path / "run" / workdir.CHECKPOINTS).iterdir()]
    assert f"Stopped after step {step} because of " in stdout
    assert "Traceback" not in stderr
    assert_no_process_remains(*groups)


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


LONG_COMPILATION = """
import hashlib
from oneflow_jax.runtime import preemption

print("compiles", flush=True)
with preemption.stop_handler() as stop:
    hashlib.pbkdf2_hmac("sha256", b"", b"", 20_000_000)
print(f"signal {stop.signal_number}", flush=True)
"""
"""A program that spends seconds in one call of C, which no handler can interrupt."""


TRAIN_WITHOUT_END = """
import grain
from absl import flags
from oneflow_jax import main
from oneflow_jax.data import streams
from oneflow_jax.runtime import preemption

def run(config):
    one = grain.MapDataset.range(10).repeat().to_iter_dataset()
    batches = iter(streams.BatchStreams({0: one, 1: one}, 2, lambda rows: rows))
    with preemption.stop_handler():
        for number, _ in enumerate(batches):
            if number == 20:
                print("step", flush=True)

flags.FLAGS.mark_as_parsed()
main.run, main.parse_config = run, lambda arguments: None
main.MODE = type("Mode", (), {"value": "export"})
if __name__ == "__main__":
    main.main()
"""


@pytest.mark.parametrize("end", ["ctrl-c", "kill"])
def test_no_worker_outlives_the_process(tmp_path, end):
    script = tmp_path / "train.py"
    script.write_text(TRAIN_WITHOUT_END)
    environment = os.environ | {"PYTHONPATH": str(runs.REPOSITORY)}
    process = subprocess.Popen(
        **runs.popen_kwargs()
        | {"args": [*DEFAULT_SIGNALS, sys.executable, str(script)], "env": environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        start_new_session=True,
    )
    assert process.stdout.readline() == "step\n"
    if end == "ctrl-c":
        press_ctrl_c(process)
        assert "Press Ctrl-C again" in process.stderr.readline()
        press_ctrl_c(process)
    else:
        process.kill()
    process.wait(timeout=60)
    assert_no_process_remains(process.pid)
    assert "Traceback" not in process.communicate()[1]
    assert process.returncode == (main.EXIT_INTERRUPTED if end == "ctrl-c" else -signal.SIGKILL)


def start_script(script, *launcher):
    return subprocess.Popen(
        **runs.popen_kwargs() | {"args": [*launcher, sys.executable, "-c", script]},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        start_new_session=True,
    )


def test_a_second_ctrl_c_stops_at_once():
    process = start_script(SLOW_STEP, *DEFAULT_SIGNALS)
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


def test_a_signal_during_compilation_is_acknowledged():
    """Check that the message comes before the handler can run."""
    process = start_script(LONG_COMPILATION)
    assert process.stdout.readline() == "compiles\n"
    time.sleep(0.5)  # until the call of C has begun
    process.send_signal(signal.SIGTERM)
    assert "SIGTERM has arrived. The run first finishes the program" in process.stderr.readline()
    assert process.poll() is None
    stdout, stderr = process.communicate(timeout=runs.TIMEOUT_S)
    assert "SIGTERM: the run finishes its step" in stderr
    assert stdout == "signal 15\n"


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
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


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGHUP])  # nohup ignores SIGHUP.
def test_ignored_signals_stay_ignored(number):
    before = signal.signal(number, signal.SIG_IGN)
    try:
        with preemption.stop_handler() as stop:
            signal.raise_signal(number)
            assert not stop.is_due(1)
    finally:
        signal.signal(number, before)


STEPS_ON_A_TERMINAL = """
import time
from oneflow_jax import main
from oneflow_jax.runtime import metric_writer, preemption

def run(config):
    progress = metric_writer.ProgressBar("training", 10_000)
    with preemption.stop_handler() as stop:
        for step in range(10_000):
            progress.advance(step)
            progress.report(step, f"loss {step}")
            print("step", step)
            time.sleep(0.02)
            if stop.is_due(step):
                open("saved", "w").close()
                stop.raise_if_made(step)

main.run, main.parse_config = run, lambda arguments: None
main.MODE = type("Mode", (), {"value": "export"})
main.main()
"""


def test_a_closed_terminal_saves_and_exits(tmp_path):
    """Check a run whose terminal disappears, so that its messages cannot be written any more."""
    ours, terminal = pty.openpty()
    environment = os.environ | {"PYTHONPATH": str(runs.REPOSITORY)}
    process = subprocess.Popen(
        [*DEFAULT_SIGNALS, sys.executable, "-c", STEPS_ON_A_TERMINAL],
        env=environment,
        cwd=tmp_path,
        stdin=terminal,
        stdout=terminal,
        stderr=terminal,
        start_new_session=True,
        preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0),
    )
    os.close(terminal)
    output = b""
    while b"step 3" not in output:
        output += os.read(ours, 4096)
    os.close(ours)
    assert process.wait(timeout=120) == 128 + signal.SIGHUP
    assert (tmp_path / "saved").exists()


def test_stop_handler_outside_the_main_thread_ignores_signals():
    answers = []

    def request_stop():
        with preemption.stop_handler() as stop:
            answers.append(stop.is_due(1))

    thread = threading.Thread(target=request_stop)
    thread.start()
    thread.join()
    assert answers == [False]
