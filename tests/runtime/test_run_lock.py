"""Tests of the lock of a run's folder."""

import subprocess
import sys

import pytest
from etils import epath

from oneflow_jax.errors import UserError
from oneflow_jax.runtime import run_lock


@pytest.fixture
def folder(tmp_path):
    return epath.Path(tmp_path)


def test_folder_lock_excludes_a_second_run(folder):
    with (
        run_lock.lock(folder / "run"),
        pytest.raises(UserError, match="in use by another run"),
        run_lock.lock(folder / "run"),
    ):
        pass
    with run_lock.lock(folder / "run"):
        pass


def test_lock_of_a_killed_process_is_released(folder):
    holder = "import fcntl,sys,time; f=open(sys.argv[1],'w'); fcntl.flock(f,2); print(1,flush=True)"
    line = [sys.executable, "-c", f"{holder}; time.sleep(60)", str(folder / ".lock")]
    with subprocess.Popen(line, stdout=subprocess.PIPE) as process:
        process.stdout.readline()
        with pytest.raises(UserError, match="in use"), run_lock.lock(folder):
            pass
        process.kill()
    with run_lock.lock(folder):
        pass


def test_unrelated_os_errors_are_not_converted(folder):
    with pytest.raises(FileNotFoundError), run_lock.lock(folder):
        (folder / "nowhere" / "file").read_text()


def test_read_lock_neither_waits_nor_writes(folder):
    with run_lock.read_lock(folder), run_lock.read_lock(folder):
        assert list(folder.iterdir()) == []
    in_use = pytest.raises(UserError, match="in use by another run")
    with run_lock.lock(folder), in_use, run_lock.read_lock(folder):
        pass
    with run_lock.read_lock(folder), in_use, run_lock.lock(folder):
        pass
