"""Tests of the README and the docs: commands parse, paths exist and Python blocks run."""

import functools
import operator
import pathlib
import re
import shlex
import subprocess

import pytest

from oneflow_jax.build import paradigms
from tests import runs

ROOT = pathlib.Path(__file__).parent.parent
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted(ROOT.glob("*/*.md"))]
FLAGS = {
    "config", "workdir", "mode", "prompt", "edit", "topology", "per_device_batch", "program",
    "output", "runner", "runner_option",
}  # fmt: skip
BLOCK = re.compile(r"^```(\w+)\n(.*?)^```", re.MULTILINE | re.DOTALL)


def blocks(page, language):
    return [body for kind, body in BLOCK.findall(page.read_text()) if kind == language]


def commands():
    """Yield the arguments of every call of the program in a shell block."""
    for page in PAGES:
        for block in blocks(page, "bash"):
            for line in block.replace("\\\n", " ").splitlines():
                words = shlex.split(line, comments=True)
                if words[:3] == ["python", "-m", "oneflow_jax.main"]:
                    yield pytest.param(words[3:], id=f"{page.name}:{' '.join(words[3:])}"[:80])


@pytest.mark.parametrize("words", list(commands()))
def test_commands_name_configurations_and_keys_that_exist(words):
    config = None
    for word in words:
        name, _, value = word.removeprefix("--").partition("=")
        if name == "config":
            path, _, argument = value.partition(":")
            scope = {"__name__": "config"}
            exec((ROOT / path).read_text(), scope)
            config = scope["get_config"](*[argument] if argument else [])
    for word in words:
        name, _, value = word.removeprefix("--").partition("=")
        if name.startswith("config."):
            key = name.removeprefix("config.")
            if config is None:
                scope = {}
                exec((ROOT / "configs/common.py").read_text(), scope)
                config = scope["document_model_config"]("any")
            functools.reduce(operator.getitem, key.split("."), config)
        else:
            assert name in FLAGS, word


def check_add_a_paradigm(scope):
    """Check `add_a_paradigm.md`: at most 100 lines, the loss falls, given parts stay, 8 passes."""
    (code,) = [block for block in blocks(ROOT / "docs/add_a_paradigm.md", "python") if "@" in block]
    assert len([line for line in code.splitlines() if line.strip()]) <= 100
    for points in scope["learned"].values():
        assert points[-1][1] < 0.7 * points[0][1]
    assert scope["document"].parts[0] == "a picture of red:"
    assert scope["document"].nfe == 8
    assert [step.t for step in scope["states"]] == [n / 8 for n in range(9)]
    assert scope["better"].nfe == 8


CLAIMS = {"add_a_paradigm.md": check_add_a_paradigm}
"""Checks of a page's variables after its blocks ran, by page."""


@pytest.fixture
def beside_a_run(tmp_path, monkeypatch):
    """Change to a folder with a tiny run in `runs/quickstart`, where pages expect a run."""
    (tmp_path / "runs").mkdir()
    runs.copy_newest(runs.trained_run()[1], tmp_path / "runs" / "quickstart")
    monkeypatch.chdir(tmp_path)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_python_blocks_run(page, request, monkeypatch, tmp_path):
    """Run a page's blocks in order; paradigms that they add are removed afterwards."""
    monkeypatch.setattr(paradigms, "BUILDERS", dict(paradigms.BUILDERS))
    python_blocks = blocks(page, "python")
    if any("runs/quickstart" in block for block in python_blocks):
        request.getfixturevalue("beside_a_run")
    elif any(".save(" in block for block in python_blocks):
        monkeypatch.chdir(tmp_path)
    scope = {}
    for block in python_blocks:
        exec(block, scope)
    if page.name in CLAIMS:
        CLAIMS[page.name](scope)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_and_images_exist(page):
    for target in re.findall(r"\]\(([^)#]+)[^)]*\)", page.read_text()):
        if not target.startswith("http"):
            assert (page.parent / target).exists(), target


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_files_that_are_named_exist(page):
    for name in re.findall(r"`((?:\w+/)+[\w.]+\.(?:py|sh|env|md))`", page.read_text()):
        assert (ROOT / name).exists() or (ROOT / "oneflow_jax" / name).exists(), name


def test_make_targets_that_are_named_exist():
    done = subprocess.run(
        ["make", "--dry-run", "quickstart", "test", "lint"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    for page in PAGES:
        for target in re.findall(r"`make (\w+)`", page.read_text()):
            assert re.search(rf"^{target}:", (ROOT / "Makefile").read_text(), re.MULTILINE), target
