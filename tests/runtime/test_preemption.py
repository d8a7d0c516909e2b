"""SIGTERM: the run saves and leaves, and the same command goes on."""

import signal
import subprocess
import threading

from etils import epath

from oneflow_jax import main
from oneflow_jax.runtime import preemption, workdir
from tests import runs


def stopped(arguments):
    """Runs the command, and sends SIGTERM when it trains; its exit code and what it printed."""
    process = subprocess.Popen(
        **runs.popen_kwargs(*arguments), stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    for line in process.stderr:
        if "training 5/" in line:
            process.send_signal(signal.SIGTERM)
            break
    printed, told = process.communicate(timeout=120)
    return process.returncode, printed, told


def test_sigterm_saves_and_leaves_and_the_end_is_the_same(tmp_path):
    given = [runs.CONFIG, "--config.steps=200", "--config.checkpoint.every=1000"]
    whole, broken = (epath.Path(tmp_path / name) for name in ("whole", "broken"))
    code, printed, told = stopped([*given, f"--workdir={broken}"])
    assert code == main.EXIT_PREEMPTED == 143, told
    (step,) = [int(path.name) for path in (broken / workdir.CHECKPOINTS).iterdir()]
    assert 5 <= step < 200
    assert f"Stopped after step {step}" in printed
    assert not (broken / workdir.EVALUATION).exists()
    for folder in (broken, whole):
        done = runs.run(*given, f"--workdir={folder}")
        assert done.returncode == 0, done.stderr
        assert (f"Going on from step {step}" in done.stderr) == (folder == broken)
    system = runs.prepare_system(broken, runs.make_config(steps=200, checkpoint__every=1000))
    (state, position), (expected, at) = (
        runs.load_state(system, folder) for folder in (broken, whole)
    )
    runs.assert_identical(state, expected)
    assert position == at


def test_handlers_come_back():
    before = signal.getsignal(signal.SIGTERM)
    with preemption.sigterm_handler() as must_leave:
        assert not must_leave(1)
        signal.raise_signal(signal.SIGTERM)
        assert must_leave(2)
    assert signal.getsignal(signal.SIGTERM) is before


def test_in_another_thread_nothing_is_noticed():
    answers = []

    def asked():
        with preemption.sigterm_handler() as must_leave:
            answers.append(must_leave(1))

    thread = threading.Thread(target=asked)
    thread.start()
    thread.join()
    assert answers == [False]
