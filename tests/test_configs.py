"""Every configuration, shrunk, from first to last; and that every key has a reader."""

import math
import pathlib
import re

import jax
import pytest
from etils import epath

from configs import common, digits, documents, quickstart, tpu_v4
from oneflow_jax import build, checkpoint, evaluate, logs, sample, train, workdir
from oneflow_jax.data import vocab
from oneflow_jax.flows import schedules, tasks
from oneflow_jax.paradigms import edit_flow
from tests import runs

CONFIGS = {
    "quickstart": quickstart.get_config,
    "tpu_v4": tpu_v4.get_config,
    "digits": digits.get_config,
    "digits:mask_flow": lambda: digits.get_config("mask_flow"),
    "documents": documents.get_config,  # the quickstart's edit_flow, and more
}


@pytest.fixture(scope="module")
def data_dir(tmp_path_factory):
    """Prepared data sets, shared."""
    return str(tmp_path_factory.mktemp("data"))


def test_no_file_is_forgotten():
    files = {path.stem for path in pathlib.Path(common.__file__).parent.glob("*.py")}
    assert files - {"__init__", "common"} == {name.split(":")[0] for name in CONFIGS}


@pytest.mark.parametrize("name", CONFIGS)
def test_two_steps_then_evaluate_and_sample(name, tmp_path, data_dir):
    config = common.debug(CONFIGS[name]())
    config.data.dir = data_dir
    folder = epath.Path(tmp_path)
    system = runs.prepared(folder, config.lock())
    train.run(system, folder)
    figures = evaluate.run(system, folder)
    page = sample.run(system, folder, config.sampling.prompts)

    assert all(math.isfinite(value) for value in figures.values())
    assert runs.evaluation(folder) == figures
    scored = {"digits": {"valid@2"}, "emoji": {"text_to_image@2", "image_to_text@2", "joint@2"}}
    assert scored[config.evaluation.score] <= set(figures)
    rows = logs.read_scalars(folder / workdir.LOGS)
    losses = [row["train/loss"] for row in rows if "train/loss" in row]
    assert len(losses) == 2
    assert all(map(math.isfinite, losses))
    with checkpoint.Checkpoints(folder, 3) as checkpoints:
        assert checkpoints.latest == 2
    written = (workdir.CONFIG, workdir.TOKENIZER, workdir.EVALUATION, workdir.PAGE, workdir.STRIP)
    assert all((folder / file).stat().length > 0 for file in written)
    assert list((folder / workdir.LOGS).glob("events.out.tfevents.*"))
    assert page == folder / workdir.PAGE
    # The folder alone says what was run.
    assert workdir.saved_config(folder).to_json() == config.to_json()


def keys(config, prefix=""):
    for name in config:
        value = config.get_ref(name).get()
        if isinstance(value, common.ml_collections.ConfigDict):
            yield from keys(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}"


SECTIONS_PASSED_ON = ("source.", "codec.", "model.", "optimizer.", "mesh.")
"""Whole sections become arguments of a constructor, which refuses what it does not know."""


def package_source():
    package = pathlib.Path(build.__file__).parent
    return "\n".join(path.read_text() for path in sorted(package.rglob("*.py")))


def test_every_key_is_read():
    source = package_source()
    # Sections that go by a shorter name within a function.
    shares = [*tasks.NAMES, *schedules.NAMES]
    weights = [f"{term}_weight" for term in ("text", *edit_flow.TERMS)]
    for key in keys(common.base("any")):
        section, _, name = key.rpartition(".")
        if key.startswith(SECTIONS_PASSED_ON) or name in shares + weights:
            continue
        assert re.search(rf"(config|given|{section or 'config'})\.{name}\b", source), key


def test_nothing_reads_a_missing_key():
    known = set(keys(common.base("any")))
    sections = {key.split(".")[0] for key in known}
    read = re.findall(r"\bconfig\.([a-z_]+)(?:\.([a-z_0-9]+))?", package_source())
    methods = {"to_dict", "items", "to_json", "lock", "value", "json"}  # config.json is a file.
    for first, second in read:
        if first in methods:
            continue
        assert first in sections | {"passes", "batch"}, first
        if second and second not in methods and any(key.startswith(f"{first}.") for key in known):
            assert f"{first}.{second}" in known | {"source.documents"}, (first, second)


def test_debug_shrinks_what_it_is_given():
    config = common.debug(tpu_v4.get_config())
    assert (config.steps, config.batch, config.model.layers) == (2, 8, 2)
    assert config.platform == "any"


def test_the_tpu_model_has_a_billion_parameters(tmp_path, monkeypatch):
    """Its real shapes, without its values; its data are those of the shrunk one."""
    config = tpu_v4.get_config()
    config.platform = "any"
    config.source = {"name": "toy"}
    config.evaluation.score = ""
    monkeypatch.setattr(vocab.Vocab, "size_padded", lambda self: config.data.vocab)
    system = build.system(config.lock(), epath.Path(tmp_path))
    system = build.dataclasses.replace(
        system,
        mesh=jax.make_mesh(
            (1, 8, 1), ("data", "fsdp", "tensor"), axis_types=system.mesh.axis_types
        ),
    )
    shapes = build.abstract_state(system).params
    count = sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(shapes))
    assert 1.0e9 <= count <= 1.5e9
    told = re.search(r"([\d.]+) billion parameters", tpu_v4.__doc__)[1]
    assert f"{count / 1e9:.2f}" == told
    assert f"{told} billion" in config.needs
