"""Tests of the architecture that read only the source: imports, names and sizes."""

import ast
import fnmatch
import functools
import pathlib
import re
import statistics

import oneflow_jax

PACKAGE = pathlib.Path(oneflow_jax.__file__).parent
MODULES = sorted(PACKAGE.rglob("*.py"))

LEAVES = {"shapes", "errors"}
DEVICE = LEAVES | {"canvas"}
MAY_IMPORT = {
    "shapes": set(),
    "errors": set(),
    "shipped": {"errors"},
    "configs": set(),
    "canvas": LEAVES,
    "runtime": LEAVES,
    "codecs": LEAVES,
    "codecs/autoencoder": LEAVES | {"codecs", "pretrained"},
    "pretrained": LEAVES,
    "flows": DEVICE,
    "nn": DEVICE,
    "samplers": DEVICE | {"flows"},
    "paradigms": DEVICE | {"flows", "samplers"},
    "costs": LEAVES | {"nn"},
    "data": DEVICE | {"codecs", "codecs/autoencoder", "runtime"},
    "data/custom": LEAVES | {"data", "runtime"},
    "data/beam": LEAVES | {"data", "data/custom", "runtime"},
    "evaluation": LEAVES | {"data", "pretrained"},
    "training": DEVICE | {"costs", "data", "flows", "nn", "runtime"},
    "generation": DEVICE | {"data", "nn", "paradigms", "runtime", "samplers"},
    "viewer": DEVICE | {"data", "runtime", "samplers"},
    "autoencoder_training": LEAVES
    | {"codecs", "codecs/autoencoder", "data", "evaluation", "pretrained", "runtime"}
    | {"training", "viewer"},
    "build": DEVICE
    | {"autoencoder_training", "codecs", "codecs/autoencoder", "costs"}
    | {
        "data",
        "data/beam",
        "data/custom",
        "evaluation",
        "flows",
        "nn",
        "paradigms",
        "pretrained",
        "runtime",
        "samplers",
        "shipped",
    }
    | {"training"},
    "aot": DEVICE | {"build", "costs", "generation", "runtime", "training", "viewer"},
    "evaluate": LEAVES
    | {"build", "data", "evaluation", "generation", "runtime", "samplers", "training", "viewer"},
    "sample": LEAVES | {"build", "data", "evaluate", "generation", "runtime", "viewer"},
    "api": LEAVES
    | {"build", "data", "evaluate", "generation", "runtime", "samplers", "shipped", "viewer"},
    "compare": DEVICE
    | {"autoencoder_training", "build", "costs", "data", "evaluate", "evaluation", "generation"}
    | {"nn", "runtime", "samplers", "training", "viewer"},
    "demo": LEAVES | {"api", "data", "runtime", "serving", "shipped", "viewer"},
    "serving": LEAVES | {"api", "data", "runtime", "shipped", "viewer"},
    "cli": LEAVES | {"aot", "configs", "runtime"},
    "main": LEAVES
    | {"aot", "autoencoder_training", "build", "cli", "compare", "data", "data/custom", "evaluate"}
    | {"runtime", "sample", "training", "viewer"},
    "__main__": {"cli", "demo", "errors", "main", "serving", "shipped"},
    "": {"api", "data", "errors", "shipped"},
}
"""Folder, or module at the root -> what it may import beyond itself; "" is the package itself."""

READ_CONFIGURATIONS = {"build", "compare", "api", "main"}
"""Folders and root modules that may import ml_collections; so may `runtime/workdir`."""

MAX_LEVELS = 12
MAX_ROOT_MODULES = 8

# These folders use numpy only: data loader workers import them, and must not initialize an
# accelerator.
HOST_SIDE = {"codecs", "data", "data/beam", "data/custom", "viewer"}
ON_DEVICE = {"jax", "flax", "optax", "diffrax", "clu", "orbax"}
PLACES_BATCHES = {"data/pipeline.py", "data/encode_latents.py"}
"""Modules of these folders that may import JAX, to put batches on devices."""


def folder_of(path):
    parts = path.relative_to(PACKAGE).parts
    if len(parts) > 1:
        return "/".join(parts[:-1])
    return parts[0].removesuffix(".py").replace("__init__", "")


def imported_names(path):
    """Yield the full names of all imports of a module, at any depth."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


@functools.cache
def folder_imports():
    """Map each folder to the folders that it imports, with an example of each."""
    imports = {folder_of(path): {} for path in MODULES}
    for path in MODULES:
        for name in imported_names(path):
            if name.startswith("oneflow_jax."):
                target = PACKAGE.parent.joinpath(*name.split("."))
                while not (target.is_dir() or target.with_suffix(".py").exists()):
                    target = target.parent
                module = target / "__init__.py" if target.is_dir() else target.with_suffix(".py")
                if folder_of(module) != folder_of(path):
                    imports[folder_of(path)].setdefault(folder_of(module), f"{path}: {name}")
    return imports


def functions():
    for path in MODULES:
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                yield path, node


def test_imports_are_in_the_allowed_table():
    assert set(MAY_IMPORT) == set(folder_imports())
    beyond = [
        example
        for folder, imports in folder_imports().items()
        for target, example in imports.items()
        if target not in MAY_IMPORT[folder]
    ]
    assert not beyond


@functools.cache
def level(folder):
    """Return the length of the longest chain of imports below a folder; a cycle is an error."""
    return 1 + max(map(level, folder_imports()[folder]), default=0)


def test_the_import_graph_has_few_levels_and_no_cycle():
    assert max(map(level, folder_imports())) <= MAX_LEVELS
    assert len(list(PACKAGE.glob("*.py"))) <= MAX_ROOT_MODULES


def test_the_design_page_shows_every_folder_at_its_level():
    page = (PACKAGE.parent / "docs" / "design.md").read_text()
    shown = {
        name.removesuffix("/"): int(number)
        for number, names in re.findall(r"^\| (\d+) \| (.*?) \|", page, re.MULTILINE)
        for name in re.findall("`(.*?)`", names)
    }
    assert shown == {folder or "__init__": level(folder) for folder in folder_imports()}


def test_configuration_ends_at_build():
    modules = {
        path.relative_to(PACKAGE) for path in MODULES if "ml_collections" in path.read_text()
    }
    allowed = {pathlib.Path("runtime/workdir.py"), pathlib.Path("cli/configuration.py")}
    allowed |= {
        path for path in modules if path.parts[0].removesuffix(".py") in READ_CONFIGURATIONS
    }
    assert modules == allowed


def test_host_side_modules_import_no_accelerator_library():
    for path in MODULES:
        if folder_of(path) in HOST_SIDE:
            libraries = {name.split(".")[0] for name in imported_names(path)} & ON_DEVICE
            places = str(path.relative_to(PACKAGE)) in PLACES_BATCHES
            assert libraries <= ({"jax"} if places else set()), path
        if folder_of(path) == "flows":
            assert not any(name.startswith("flax.linen") for name in imported_names(path)), path


def test_beam_is_imported_in_one_folder_and_only_when_it_is_used():
    for path in MODULES:
        name = str(path.relative_to(PACKAGE))
        if "apache_beam" in {imported.split(".")[0] for imported in imported_names(path)}:
            assert name.startswith("data/beam/"), name
        for node in ast.parse(path.read_text()).body:  # imports at the top of the module
            source = ast.unparse(node) if isinstance(node, ast.Import | ast.ImportFrom) else ""
            if name != "data/beam/pipeline.py":
                assert "apache_beam" not in source, name
            assert not re.search(r"data\.beam(\.| import .*\b)pipeline\b", source), name


def test_modules_and_functions_stay_short():
    lengths = [len(path.read_text().splitlines()) for path in MODULES]
    assert max(lengths) <= 400
    assert statistics.median(lengths) <= 150
    spans = {f"{path}: {node.name}": node.end_lineno - node.lineno for path, node in functions()}
    assert {name for name, lines in spans.items() if lines >= 60} == set()
    assert statistics.quantiles(spans.values(), n=20)[-1] <= 40


PARTICIPLES = re.compile(
    r"_*([a-z]+ed|told|made|kept|held|seen|shown|found|drawn|begun|written|taken|given|met)"
)
NOT_PARTICIPLES = {"embed", "seed", "feed"}


def test_names_follow_the_naming_rules():
    vague = {"utils", "util", "helpers", "helper", "misc", "common", "tools"}
    assert not {path.stem for path in MODULES} & vague
    names = [node.name for _, node in functions()]
    participles = [
        name for name in names if PARTICIPLES.fullmatch(name) and name not in NOT_PARTICIPLES
    ]
    assert len(participles) <= 0.03 * len(names), participles


def test_silenced_checks_give_a_reason():
    silenced = re.compile(r"#\s*(type:\s*ignore|noqa)(\S*)\s*(.*)")
    for path in MODULES:
        for number, line in enumerate(path.read_text().splitlines(), 1):
            if match := silenced.search(line):
                reason = re.sub(r"^:?\s*[A-Z]+\d+", "", match[3]).strip(" -#")
                assert reason, f"{path}:{number}: {line.strip()}"


def test_public_functions_have_docstrings():
    for path in MODULES:
        for node in ast.parse(path.read_text()).body:
            if isinstance(node, ast.FunctionDef | ast.ClassDef) and not node.name.startswith("_"):
                assert ast.get_docstring(node), f"{path}: {node.name}"


def test_pytest_leaves_out_no_folder_of_tests(pytestconfig):
    left_out = [
        folder
        for folder in pathlib.Path(__file__).parent.rglob("*/")
        if folder.name != "__pycache__"
        for pattern in pytestconfig.getini("norecursedirs")
        if fnmatch.fnmatch(folder.name, pattern)
    ]
    assert not left_out
