"""Fixtures: a wheel, and an environment with it. They are built once, without internet access."""

import os
import pathlib
import shutil
import subprocess
import sys
import sysconfig
import tarfile

import pytest

from tests import runs


def leave_out(folder, names):
    """Return the names to leave out of a copy: output of builds and runs, and caches."""
    outputs = {".git", ".venv", "build", "dist", "runs"} if folder == str(runs.REPOSITORY) else ()
    return {name for name in names if name in outputs or name.endswith(("_cache", "__pycache__"))}


@pytest.fixture(scope="session")
def sources(tmp_path_factory):
    """Return a copy of the repository, since a build writes into it."""
    folder = tmp_path_factory.mktemp("packaging") / "repository"
    return pathlib.Path(shutil.copytree(runs.REPOSITORY, folder, ignore=leave_out))


def build(folder, what, out):
    """Build the "wheel" or the "sdist" of a folder, and return its path."""
    code = f"from setuptools import build_meta as b; print(b.build_{what}({str(out)!r}))"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=folder, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return out / done.stdout.split()[-1]


@pytest.fixture(scope="session")
def sdist(sources, tmp_path_factory):
    return build(sources, "sdist", tmp_path_factory.mktemp("sdist"))


@pytest.fixture(scope="session")
def wheel(sdist, tmp_path_factory):
    """Return the wheel that is built from the unpacked sdist, as pip builds it."""
    folder = tmp_path_factory.mktemp("unpacked")
    with tarfile.open(sdist) as archive:
        archive.extractall(folder, filter="data")
    (root,) = folder.iterdir()
    return build(root, "wheel", tmp_path_factory.mktemp("wheel"))


class Environment:
    """A virtual environment that also finds the packages of this interpreter."""

    def __init__(self, folder):
        subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(folder)], check=True)
        self.bin = folder / "bin"
        (self.site,) = folder.glob("lib/python*/site-packages")
        (self.site / "dependencies.pth").write_text(sysconfig.get_path("purelib") + "\n")

    def install(self, *arguments):
        pip = [sys.executable, "-m", "pip", "--python", str(self.bin / "python"), "install"]
        flags = ["--quiet", "--no-deps", "--no-index", "--no-build-isolation"]
        subprocess.run([*pip, *flags, *map(str, arguments)], check=True)

    def run(self, program, *arguments, cwd, **variables):
        variables = os.environ | {"JAX_DISABLE_MOST_OPTIMIZATIONS": "true"} | variables
        variables.pop("PYTHONPATH", None)
        return subprocess.run(
            [self.bin / program, *arguments],
            cwd=cwd,
            env=variables,
            capture_output=True,
            text=True,
            check=False,
            timeout=300,
        )


@pytest.fixture(scope="session")
def installed(wheel, tmp_path_factory):
    """Return an environment with the wheel, and with the `configs` package of another project."""
    environment = Environment(tmp_path_factory.mktemp("environment") / "venv")
    (environment.site / "configs").mkdir()
    (environment.site / "configs" / "__init__.py").write_text("OTHER = True\n")
    (environment.site / "configs" / "common.py").write_text("raise RuntimeError('not ours')\n")
    environment.install(wheel)
    return environment
