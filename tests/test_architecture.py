"""The rules of the house that a reader would else have to check by eye."""

import ast
import pathlib
import re

import pytest

import oneflow_jax

PACKAGE = pathlib.Path(oneflow_jax.__file__).parent
MODULES = sorted(PACKAGE.rglob("*.py"))
NAMES = [str(path.relative_to(PACKAGE)) for path in MODULES]

BASE = {"shapes", "errors"}
MAY_IMPORT = {
    "shapes": set(),
    "errors": set(),
    "canvas": BASE,
    "flows": BASE | {"canvas", "flows"},
    "nn": BASE | {"canvas", "nn"},
    "samplers": BASE | {"canvas", "flows", "samplers"},
    "paradigms": BASE | {"canvas", "flows", "samplers", "paradigms"},
    "optim": BASE,
    "state": BASE | {"sharding"},
    "update": BASE | {"optim", "state"},
    "sharding": BASE,
    "step": BASE | {"canvas", "flows", "nn", "optim", "paradigms", "state", "update"},
    "costs": BASE | {"costs", "nn"},
    "pretrained": BASE | {"pretrained"},
    "autoencoders": BASE | {"autoencoders", "codecs"},
    "codecs": BASE | {"canvas", "codecs"},
    "data": BASE | {"canvas", "codecs", "data"},
    "viewer": BASE | {"data", "viewer"},
}
"""Part of the package -> the parts that it may import. Parts that are not named here put the
others together, and so may import all of them."""

BRIDGES = {"viewer/from_samples.py": {"canvas", "paradigms"}}
"""Modules that may import more than their part: this one turns samples into what people look at."""

# These parts deal in numpy: an accelerator library would be started by each worker process.
HOST_SIDE = ("codecs", "data", "viewer")
ON_DEVICE = {"jax", "flax", "optax", "diffrax", "clu", "orbax"}
PLACES_BATCHES = "data/pipeline.py"


def part_of(name):
    return name.split("/")[0].removesuffix(".py")


def imports(path):
    """Full names of all that a module imports, wherever in it."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def test_every_part_that_has_rules_exists():
    assert set(MAY_IMPORT) <= {part_of(name) for name in NAMES}


@pytest.mark.parametrize("name", NAMES)
def test_imports_follow_the_arrows(name):
    part = part_of(name)
    ours = {
        full.split(".")[1] for full in imports(PACKAGE / name) if full.startswith("oneflow_jax.")
    }
    if part in MAY_IMPORT:
        beyond = ours - MAY_IMPORT[part] - BRIDGES.get(name, set())
        assert not beyond, f"{name} must not import {beyond}"


@pytest.mark.parametrize("name", [name for name in NAMES if part_of(name) in HOST_SIDE])
def test_people_s_side_imports_no_accelerator_library(name):
    libraries = {full.split(".")[0] for full in imports(PACKAGE / name)} & ON_DEVICE
    assert libraries <= ({"jax"} if name == PLACES_BATCHES else set())


@pytest.mark.parametrize("name", [name for name in NAMES if part_of(name) == "flows"])
def test_the_mathematics_knows_no_layers(name):
    assert not any(full.startswith("flax.linen") for full in imports(PACKAGE / name))


def test_modules_and_functions_stay_short():
    for path in MODULES:
        text = path.read_text()
        assert len(text.splitlines()) <= 300, path
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                assert node.end_lineno - node.lineno < 60, f"{path}: {node.name}"


def test_names_say_what_is_in_a_module():
    vague = {"utils", "util", "helpers", "helper", "misc", "common", "tools"}
    assert not {path.stem for path in MODULES} & vague
    for path in MODULES:
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.FunctionDef):
                assert not node.name.startswith(("get_", "compute_")), f"{path}: {node.name}"


def test_silenced_checks_give_a_reason():
    silenced = re.compile(r"#\s*(type:\s*ignore|noqa)(\S*)\s*(.*)")
    for path in MODULES:
        for number, line in enumerate(path.read_text().splitlines(), 1):
            if found := silenced.search(line):
                reason = re.sub(r"^:?\s*[A-Z]+\d+", "", found[3]).strip(" -#")
                assert reason, f"{path}:{number}: {line.strip()}"


def test_public_functions_have_docstrings():
    for path in MODULES:
        for node in ast.parse(path.read_text()).body:
            if isinstance(node, ast.FunctionDef | ast.ClassDef) and not node.name.startswith("_"):
                assert ast.get_docstring(node), f"{path}: {node.name}"
