"""Tests that read-only runs can be loaded, sampled, evaluated and exported."""

import ctypes
import os
import pathlib
import shutil
import subprocess
import sys

import pytest
from PIL import Image

from oneflow_jax.errors import UserError
from oneflow_jax.runtime import workdir
from tests import runs

OTHER_USER = 65534

PR_CAPBSET_DROP, CAP_DAC_OVERRIDE = 24, 1

LOAD = """
import sys
import oneflow_jax as of
(document,) = of.load(sys.argv[1], {"platform": "any"}).generate("<text>", steps=2)
print("text:", bool(document.parts))
"""


def drop_privilege():
    """Make file permissions apply to the started process, even if root starts it."""
    if os.geteuid() == 0:
        ctypes.CDLL(None).prctl(PR_CAPBSET_DROP, CAP_DAC_OVERRIDE, 0, 0, 0)


@pytest.fixture
def run_folder(tmp_path):
    """Return a read-only run; if the tests run as root, the run belongs to another user."""
    folder = pathlib.Path(runs.copy_run(runs.trained_run()[1], tmp_path))
    paths = [folder, *folder.rglob("*")]
    for path in paths:
        path.chmod(0o555 if path.is_dir() else 0o444)
        if os.geteuid() == 0:
            os.chown(path, OTHER_USER, OTHER_USER)
    yield folder
    for path in paths:
        path.chmod(0o755)


@pytest.fixture
def writable(tmp_path):
    folder = tmp_path / "writable"
    folder.mkdir()
    return folder


def read_tree(folder):
    return {
        path: path.read_bytes() if path.is_file() else None for path in sorted(folder.rglob("*"))
    }


def run_without_permission(line, **changes):
    kwargs = runs.popen_kwargs() | {"args": line} | changes
    return subprocess.run(
        **kwargs, preexec_fn=drop_privilege, capture_output=True, check=False, timeout=300
    )


def run_main(folder, *arguments):
    line = [*runs.popen_kwargs(*arguments)["args"]]
    environment = os.environ | {"PYTHONPATH": str(runs.REPOSITORY)}
    return run_without_permission(line, cwd=folder, env=environment)


def test_run_of_another_user_is_loaded(run_folder):
    before = read_tree(run_folder)
    done = run_without_permission([sys.executable, "-c", LOAD, str(run_folder)])
    assert "text: True" in done.stdout, done.stderr[-2000:]
    assert read_tree(run_folder) == before
    writes = f"open({str(run_folder / 'file')!r}, 'w')"
    assert "Permission denied" in run_without_permission([sys.executable, "-c", writes]).stderr


def test_run_of_another_user_is_exported_and_sampled(run_folder, writable):
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


def test_evaluation_writes_to_the_output_folder(tmp_path, cli):
    folder = runs.copy_run(runs.trained_run()[1], tmp_path)
    before = read_tree(pathlib.Path(folder))
    cli("--mode=evaluate", f"--workdir={folder}", f"--output={tmp_path / 'figures'}")
    assert (tmp_path / "figures" / workdir.EVALUATION).exists()
    assert read_tree(pathlib.Path(folder)) == before


def test_codec_run_writes_evaluation_and_reconstructions_to_the_output_folder(
    tmp_path, cli, monkeypatch
):
    folder, output = tmp_path / "codec", tmp_path / "figures"
    cli("--config=tests/tiny_codec_config.py:kl", f"--workdir={folder}")
    Image.new("RGB", (8, 8), "red").save(tmp_path / "red.png")
    prompt = f"--prompt=<image:{tmp_path / 'red.png'}>"
    before = read_tree(folder)
    with monkeypatch.context() as patch:
        patch.setattr(os, "access", lambda path, mode: mode != os.W_OK)  # root may write anywhere
        for mode in ("evaluate", "sample"):
            with pytest.raises(UserError, match=r"the folder is read-only\. Give --output=FOLDER"):
                cli(f"--workdir={folder}", f"--mode={mode}", prompt)
    cli(f"--workdir={folder}", "--mode=evaluate", f"--output={output}")
    assert (output / workdir.EVALUATION).exists()
    (output / workdir.SAMPLES_PAGE).unlink()
    cli(f"--workdir={folder}", "--mode=sample", prompt, f"--output={output}")
    assert (output / workdir.SAMPLES_PAGE).exists()
    assert read_tree(folder) == before


def test_training_rejects_output(tmp_path, cli):
    with pytest.raises(UserError, match="--mode=train does not accept it"):
        cli(runs.CONFIG, f"--workdir={tmp_path}", "--output=x")
