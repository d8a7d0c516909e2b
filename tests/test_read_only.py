"""Tests that runs which must not be written to can be loaded, sampled, evaluated and exported."""

import os
import pathlib
import shutil
import subprocess
import sys

import pytest

from oneflow_jax.errors import UserError
from oneflow_jax.runtime import workdir
from tests import runs

OTHER_USER = 65534

CHILD = """
import os, pathlib, sys
os.chdir({there!r})
os.setgid({user}); os.setuid({user})
sys.path.insert(0, {repository!r})
from oneflow_jax import main
sys.argv = ["main", *{arguments!r}]
main.main()
"""

LOAD = """
import os, sys
os.setgid({user}); os.setuid({user})
os.chdir({there!r})
sys.path.insert(0, {repository!r})
import oneflow_jax as of
documents = of.load({run!r}, {{"platform": "any"}}).generate("<text>", steps=2)
print("text:", bool(documents[0].parts))
"""


@pytest.fixture
def run_folder(tmp_path):
    """Return a run of one user that another user can read and cannot write to."""
    if os.geteuid() != 0:
        pytest.skip("only root can start a process of another user")
    folder = pathlib.Path(runs.copy_run(runs.trained_run()[1], tmp_path))
    for path in (folder, *folder.rglob("*")):
        path.chmod(0o755 if path.is_dir() else 0o644)
    for parent in tmp_path.parents:
        if parent.stat().st_mode & 0o5 != 0o5:
            parent.chmod(0o755)
    tmp_path.chmod(0o755)
    return folder


@pytest.fixture
def writable(tmp_path):
    folder = tmp_path / "writable"
    folder.mkdir()
    folder.chmod(0o777)
    return folder


def read_tree(folder):
    return {
        path: path.read_bytes() if path.is_file() else None for path in sorted(folder.rglob("*"))
    }


def run_code(code, folder):
    environment = os.environ | {"HOME": str(folder), "JAX_COMPILATION_CACHE_DIR": ""}
    return subprocess.run(
        [sys.executable, "-c", code],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )


def run_main(folder, *arguments):
    code = CHILD.format(
        there=str(folder),
        user=OTHER_USER,
        repository=str(runs.REPOSITORY),
        arguments=list(arguments),
    )
    return run_code(code, folder)


def test_a_run_of_a_colleague_is_loaded(run_folder, writable):
    before = read_tree(run_folder)
    (run_folder / workdir.LOCK_FILE).unlink(missing_ok=True)
    code = LOAD.format(
        there=str(writable), user=OTHER_USER, repository=str(runs.REPOSITORY), run=str(run_folder)
    )
    done = run_code(code, writable)
    assert "text: True" in done.stdout, done.stderr[-2000:]
    assert read_tree(run_folder) == before


def test_a_run_of_a_colleague_is_exported_and_sampled(run_folder, writable):
    before = read_tree(run_folder)
    done = run_main(writable, f"--workdir={run_folder}", "--mode=export", "--output=given")
    assert done.returncode == 0, done.stderr[-2000:]
    assert (writable / "given" / workdir.WEIGHTS).exists()
    arguments = [f"--workdir={run_folder}", "--mode=sample", "--prompt=red <image>"]
    refused = run_main(writable, *arguments)
    assert refused.returncode == 1
    assert f"--workdir={run_folder}: the folder is read-only. Give --output=" in refused.stderr
    done = run_main(writable, *arguments, "--output=pages")
    assert done.returncode == 0, done.stderr[-2000:]
    assert (writable / "pages" / workdir.SAMPLES_PAGE).exists()
    assert read_tree(run_folder) == before


def test_a_run_on_a_read_only_mount_is_loaded_and_exported(run_folder, writable, tmp_path):
    mount = tmp_path / "mount"
    mount.mkdir()
    commands = (
        ["mount", "--bind", str(run_folder), str(mount)],
        ["mount", "-o", "remount,bind,ro", str(mount)],
    )
    if not shutil.which("mount") or any(
        subprocess.run(command, capture_output=True, check=False).returncode for command in commands
    ):
        pytest.skip("this machine allows no mounts")
    try:
        with pytest.raises(OSError, match="Read-only"):
            (mount / "file").write_text("x")
        done = runs.run(f"--workdir={mount}", "--mode=export", f"--output={writable / 'given'}")
        assert done.returncode == 0, done.stderr[-2000:]
    finally:
        subprocess.run(["umount", str(mount)], check=True)


def test_evaluation_writes_to_the_output(tmp_path, cli):
    folder = runs.copy_run(runs.trained_run()[1], tmp_path)
    before = read_tree(pathlib.Path(folder))
    cli("--mode=evaluate", f"--workdir={folder}", f"--output={tmp_path / 'figures'}")
    assert (tmp_path / "figures" / workdir.EVALUATION).exists()
    assert read_tree(pathlib.Path(folder)) == before


def test_training_takes_no_output(tmp_path, cli):
    with pytest.raises(UserError, match="--mode=train does not accept it"):
        cli(runs.CONFIG, f"--workdir={tmp_path}", "--output=x")
