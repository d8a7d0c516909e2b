"""Tests of the image for NVIDIA GPUs: its files exist, and the program is its main process."""

import json
import re

from tests.launch.cloud import LAUNCH

ROOT = LAUNCH.parent


def lines(name):
    text = (LAUNCH / name).read_text().replace("\\\n", " ")
    return [line for line in text.splitlines() if line and not line.startswith("#")]


def test_the_image_runs_the_program_without_a_shell_between():
    (entry,) = [line for line in lines("Dockerfile.gpu") if line.startswith("ENTRYPOINT")]
    assert json.loads(entry.removeprefix("ENTRYPOINT")) == ["python", "-m", "oneflow_jax.main"]


def test_copied_files_exist_and_are_not_ignored():
    let_through = {line.removeprefix("!") for line in lines("Dockerfile.gpu.dockerignore")}
    copies = [line.split()[1:-1] for line in lines("Dockerfile.gpu") if line.startswith("COPY")]
    taken = {name for names in copies for name in names}
    assert taken == {"requirements.txt", "requirements-gpu.txt", "configs", "oneflow_jax"}
    assert taken <= let_through
    assert all((ROOT / name).exists() for name in taken)
    assert set(re.findall(r"-r (\S+)", " ".join(lines("Dockerfile.gpu")))) <= taken


def test_the_gpu_packages_are_those_of_cuda():
    (package,) = [
        line for line in (ROOT / "requirements-gpu.txt").read_text().splitlines() if line[0] != "#"
    ]
    assert package == "jax[cuda13]"
