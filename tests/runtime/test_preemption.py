"""Tests of SIGTERM: the run saves a checkpoint and exits, and the same command resumes it."""

import signal
import subprocess
import threading

from etils import epath

from oneflow_jax import main
from oneflow_jax.runtime import preemption, workdir
from tests import runs


def run_until_sigterm(arguments):
    """Run the command and send SIGTERM at step 5; return the exit code, stdout and stderr."""
    process = subprocess.Popen(
        **runs.popen_kwargs(*arguments), stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    for line in process.stderr:
        if "training 5/" in line:
            process.send_signal(signal.SIGTERM)
            break
    stdout, stderr = process.communicate(timeout=120)
    return process.returncode, stdout, stderr


def test_sigterm_saves_and_leaves_and_the_end_is_the_same(tmp_path):
    arguments = [runs.CONFIG, "--config.steps=200", "--config.checkpoint.every=1000"]
    whole, broken = (epath.Path(tmp_path / name) for name in ("whole", "broken"))
    code, stdout, stderr = run_until_sigterm([*arguments, f"--workdir={broken}"])
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


def test_handlers_come_back():
    before = signal.getsignal(signal.SIGTERM)
    with preemption.sigterm_handler() as must_leave:
        assert not must_leave(1)
        signal.raise_signal(signal.SIGTERM)
        assert must_leave(2)
    assert signal.getsignal(signal.SIGTERM) is before


def test_in_another_thread_nothing_is_noticed():
    answers = []

    def request_stop():
        with preemption.sigterm_handler() as must_leave:
            answers.append(must_leave(1))

    thread = threading.Thread(target=request_stop)
    thread.start()
    thread.join()
    assert answers == [False]
