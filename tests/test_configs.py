"""Tests that every configuration runs at a small size, and that every key is read."""

import ast
import functools
import itertools
import math
import pathlib
import re
import shutil

import pytest
from etils import epath

from configs import (
    codec,
    common,
    compare,
    digits,
    documents,
    emoji_styles,
    finetune,
    gpu,
    own,
    quickstart,
    shipped,
    tpu_v4,
    tpu_v5e,
)
from oneflow_jax import evaluate, sample
from oneflow_jax.autoencoder_training import metrics
from oneflow_jax.autoencoder_training import run as autoencoder_run
from oneflow_jax.build import autoencoder_system
from oneflow_jax.build import system as system_lib
from oneflow_jax.codecs.autoencoder import diffusers_weights
from oneflow_jax.codecs.autoencoder.codec import LatentCodec
from oneflow_jax.codecs.autoencoder.config import Architecture
from oneflow_jax.data import latents
from oneflow_jax.errors import UserError
from oneflow_jax.flows import tasks, time_couplings
from oneflow_jax.paradigms import chameleon, edit_flow
from oneflow_jax.runtime import metric_writer, workdir
from oneflow_jax.samplers import ode
from oneflow_jax.training import checkpoint, loop
from tests import runs
from tests.codecs.autoencoder import small_models
from tests.data import small_style_packages
from tests.data.custom import examples

END_TO_END = {
    "digits": digits.get_config,
    "quickstart:transfusion": lambda: quickstart.get_config("transfusion"),
    "documents": documents.get_config,  # edit_flow
    "emoji_styles": emoji_styles.get_config,
    "own": own.get_config,
}
"""Configurations that are trained, evaluated and sampled: each uses code that others do not."""

TWO_STEPS = {
    "quickstart": quickstart.get_config,
    "tpu_v4": tpu_v4.get_config,
    "gpu": lambda: gpu.get_config("150M-8"),
    "digits:mask_flow": lambda: digits.get_config("mask_flow"),
    "shipped": shipped.get_config,
    "tpu_v5e:own": lambda: tpu_v5e.get_config("1B,own"),
}
"""Configurations that are only trained for two steps: they differ from `END_TO_END` in sizes, or
other tests evaluate and sample them."""

CODECS = {f"codec:{kind}": functools.partial(codec.get_config, kind) for kind in ("kl", "vq")}
"""The configuration `codec:styles` is `codec:kl` on a data set that `emoji_styles` uses, too."""


@pytest.fixture(scope="module")
def data_dir(tmp_path_factory):
    """Return the shared folder of prepared data sets."""
    return str(tmp_path_factory.mktemp("data"))


def test_every_configuration_file_is_tested():
    """Check that each file is tested here, in tests/compare, or in tests/build by test_finetune.py
    or test_language_model.py, or has the models of tpu_v4.py.
    """
    files = {path.stem for path in pathlib.Path(common.__file__).parent.glob("*.py")}
    named = {name.split(":")[0] for name in END_TO_END | TWO_STEPS | CODECS}
    of_the_same_models = {"model_sizes", "tpu", "tpu_v5p", "tpu_v6e"}
    assert (
        files - {"__init__", "common"}
        == named | {"compare", "finetune", "language_model"} | of_the_same_models
    )


@pytest.mark.parametrize("paradigm", ["oneflow", "mask_flow", "edit_flow"])
def test_samples_are_generated_by_the_sampler_that_is_evaluated(paradigm):
    """Check that the page of samples takes as many forward passes as the evaluation."""
    sampler = own.get_config(paradigm).sampling
    most = max(own.get_config(paradigm).evaluation.nfe)
    taken, more = (
        ode.make_schedule(sampler.solver, steps).nfe for steps in (sampler.steps, sampler.steps + 1)
    )
    assert taken <= most < more


@pytest.mark.parametrize("name", END_TO_END)
def test_two_steps_then_evaluate_and_sample(name, tmp_path, data_dir):
    config = common.shrink_for_debugging(END_TO_END[name]())
    config.data.dir = data_dir
    if name == "own":
        config.source.path = str(examples.write_jsonl(tmp_path / "mine"))
    if name == "emoji_styles":
        config.source.path = str(small_style_packages.write(tmp_path / "packages"))
        config.source.update({"styles": small_style_packages.STYLES, "min_styles": 3})
    goes_through(config.lock(), epath.Path(tmp_path))


@pytest.mark.parametrize("name", TWO_STEPS)
def test_two_steps(name, tmp_path, data_dir):
    config = common.shrink_for_debugging(TWO_STEPS[name]())
    config.data.dir = data_dir
    config.evaluation.every = 10  # Training has 2 steps, so it does not evaluate.
    if config.source.name == "own":
        config.source.path = str(examples.write_jsonl(tmp_path / "mine"))
    folder = epath.Path(tmp_path / "run")
    system = runs.prepare_system(folder, config.lock())
    loop.run(system, folder)
    assert_two_losses(folder)
    # Check that evaluation and sampling accept the configuration, without computing anything.
    evaluate.check_prompts(system)
    assert sample.parse_prompts(system, config.sampling.prompts)


FLUX = Architecture(
    kind="AutoencoderKL",
    block_out_channels=(4, 4, 4, 4),
    norm_num_groups=2,
    latent_channels=16,
    mid_block_add_attention=False,
    use_quant_conv=False,
    use_post_quant_conv=False,
    scaling_factor=0.3611,
    shift_factor=0.1159,
)
"""An autoencoder with the sampling factor, channels and scales of that of Flux, but narrow."""


def test_two_steps_on_own_data_with_an_autoencoder_like_that_of_flux(tmp_path):
    config = common.shrink_for_debugging(gpu.get_config("1B-8,own"))
    config.data.dir = str(tmp_path / "data")
    config.evaluation.every = 10
    config.source.path = str(examples.write_jsonl(tmp_path / "mine"))
    config.codec.path, config.codec.pixels = str(tmp_path / "vae"), 64
    diffusers_weights.save(epath.Path(config.codec.path), FLUX, small_models.random_params(FLUX))
    folder = epath.Path(tmp_path / "run")
    system = runs.prepare_system(folder, config.lock())
    loop.run(system, folder)
    assert_two_losses(folder)
    assert system.layout.codec.grid == (4, 4)
    assert system.layout.codec.channels == 2 * 2 * 16


LARGE = ("tpu_v4:1B", "tpu_v5e:1B", "tpu_v5p:3B", "tpu_v6e:8B", "gpu:150M-1", "gpu:1B-8")


@pytest.mark.parametrize("name", LARGE)
def test_large_configurations_take_own_data_on_the_command_line(name, parse):
    config = parse(
        f"--config={name},own", "--config.source.path=/data/mine", "--config.codec.path=/data/vae",
        "--config.codec.pixels=256",
    )  # fmt: skip
    assert (config.source.name, config.source.path) == ("own", "/data/mine")
    assert (config.codec.path, config.source.pixels) == ("/data/vae", 256)
    assert config.name.endswith("-own")
    emoji = parse(f"--config={name}")
    assert emoji.source.name == "emoji"
    assert emoji.to_json() == parse(f"--config={name},emoji").to_json()
    for same in ("model", "optimizer", "mesh", "checkpoint", "batch_size", "compilation_cache"):
        assert config[same] == emoji[same], same
    assert config.compilation_cache
    assert config.checkpoint.minutes > 0


def test_own_data_for_a_configuration_of_emoji_is_refused_with_advice(parse):
    with pytest.raises(UserError, match=r"no key.*For your own data.*gpu:1B-8,own"):
        parse("--config=gpu:1B-8", "--config.source.path=/data/mine")
    with pytest.raises(UserError, match=r"no key(?!.*own data)"):
        parse("--config=gpu:1B-8", "--config.source.paths=/data/mine")


def test_unknown_data_are_refused():
    with pytest.raises(UserError, match=r"tpu_v4.py:1B,mine: unknown data. Give 1B, or 1B,own"):
        tpu_v4.get_config("1B,mine")


def test_two_steps_on_latents_then_sampling_from_the_folder(tmp_path):
    """Run the quickstart on latents; then sample from the run's folder alone."""
    config = common.shrink_for_debugging(quickstart.get_config("latents"))
    config.data.dir = str(tmp_path / "data")
    config.codec.pixels = config.source.pixels = 32
    config.source.documents = 160  # With fewer documents, a letter of some name would be missing.
    tiny_codec = Architecture(
        kind="AutoencoderKL",
        block_out_channels=(8, 8, 8),
        norm_num_groups=8,
        mid_block_add_attention=False,
    )
    config.codec.path = str(tmp_path / "codec")
    diffusers_weights.save(
        epath.Path(config.codec.path), tiny_codec, small_models.random_params(tiny_codec)
    )
    folder = epath.Path(tmp_path / "run")
    system = goes_through(config.lock(), folder)
    assert isinstance(system.layout.codec, LatentCodec)
    assert system.layout.codec.grid == (2, 2)
    index = latents.read_index(
        folder / latents.INDEX_FILE, system.layout.codec.autoencoder.fingerprint
    )
    assert index.documents == {"train": 160, "heldout": 64}

    shutil.rmtree(tmp_path / "data")
    (folder / workdir.SAMPLES_PAGE).unlink()
    saved = workdir.load_config(folder).lock()
    again = system_lib.system(saved, folder)
    assert again.layout.codec.mean == system.layout.codec.mean
    assert sample.run(again, folder, saved.sampling.prompts).stat().length > 0
    assert not (tmp_path / "data").exists()


def assert_two_losses(folder):
    """Check that two steps left finite losses in the log and a checkpoint."""
    rows = metric_writer.read_metrics(folder / workdir.LOGS)
    losses = [row["train/loss"] for row in rows if "train/loss" in row]
    assert len(losses) == 2
    assert all(map(math.isfinite, losses))
    with checkpoint.Checkpoints(folder, 3) as checkpoints:
        assert checkpoints.latest_step == 2


def goes_through(config, folder):
    """Train, evaluate and sample; check the files that the run writes; return the system."""
    system = runs.prepare_system(folder, config)
    loop.run(system, folder)
    figures = evaluate.run(system, folder)
    page = sample.run(system, folder, config.sampling.prompts)

    assert all(math.isfinite(value) for value in figures.values())
    assert runs.load_evaluation(folder) == figures
    scored = {
        "digits": {"caption_validity@2"},
        "emoji": {"text_to_image@2", "image_to_text@2", "joint@2"},
        "emoji_styles": {"text_to_image@2", "image_to_text@2", "joint@2", "composition@2"},
    }
    assert scored.get(config.evaluation.suite, set()) <= set(figures)
    assert_two_losses(folder)
    written = (
        workdir.CONFIG,
        workdir.TOKENIZER,
        workdir.EVALUATION,
        workdir.SAMPLES_PAGE,
        "samples.png",
    )
    assert all((folder / file).stat().length > 0 for file in written)
    assert list((folder / workdir.LOGS).glob("events.out.tfevents.*"))
    assert page == folder / workdir.SAMPLES_PAGE
    # The run's folder has the whole configuration.
    assert workdir.load_config(folder).to_json() == config.to_json()
    return system


@pytest.mark.parametrize("name", CODECS)
def test_a_codec_in_two_steps_then_evaluated(name, tmp_path, data_dir):
    config = common.shrink_for_debugging(CODECS[name]())
    config.data.dir = data_dir
    if metrics.missing_packages():
        config.objective.perceptual_weight = 0.0
    assert config.data.pixels == config.source.pixels == 32
    folder = epath.Path(tmp_path)
    system = autoencoder_system.system(config.lock())
    workdir.save_config(folder, config)
    autoencoder_run.train_autoencoder(system, folder)
    figures = autoencoder_run.evaluate(system, folder)

    assert all(math.isfinite(value) for value in figures.values())
    assert runs.load_evaluation(folder) == figures
    expected = {"psnr", "ssim", "pca/psnr", "pca/ssim", "train/psnr", "num_images"}
    expected |= {"codebook_usage", "perplexity"} if name == "codec:vq" else set()
    assert expected <= set(figures)
    if not metrics.missing_packages():
        assert {"lpips", "kid_efficientnet", "fd_efficientnet", "pca/lpips"} <= set(figures)
    rows = metric_writer.read_metrics(folder / workdir.LOGS)
    terms = [term for term, _ in system.objective.weights]
    losses = [[row[f"train/{term}"] for term in terms] for row in rows if "train/loss" in row]
    assert len(losses) == 2
    assert all(map(math.isfinite, itertools.chain(*losses)))
    with checkpoint.Checkpoints(folder, 3) as checkpoints:
        assert checkpoints.latest_step == 2
    assert (folder / workdir.CODEC).exists()
    assert "OpenMoji" in (folder / workdir.SAMPLES_PAGE).read_text("utf-8")
    assert workdir.load_config(folder).to_json() == config.to_json()


def keys(config, prefix=""):
    for name in config:
        value = config[name]
        if isinstance(value, common.ml_collections.ConfigDict):
            yield from keys(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}"


def every_key():
    """Return the keys of all kinds of configurations."""
    kinds = (
        own.get_config(),
        finetune.get_config(),
        common.document_model_config("any"),
        quickstart.get_config("latents"),
        *(make() for make in CODECS.values()),
        compare.get_config(),
    )
    return {key for config in kinds for key in keys(config)}


SECTIONS_PASSED_ON = (
    "source.",
    "codec.",
    "model.",
    "optimizer.",
    "mesh.",
    "autoencoder.",
    "finetune.start_source.",
    # Sections of comparisons: configurations by name, and numbers by name.
    "models.",
    "text_model.",
    "reported_nfe.",
)
"""Sections that become arguments of a constructor, which rejects unknown keys."""


def package_sources():
    """List the source of every module except pretrained networks, which have their own settings."""
    package = pathlib.Path(system_lib.__file__).parent.parent
    ours = [path for path in sorted(package.rglob("*.py")) if path.parent.name != "pretrained"]
    return [path.read_text() for path in ours]


def test_every_key_is_read():
    source = "\n".join(package_sources())
    # Probabilities and loss weights are skipped: the code builds their keys from lists of names.
    shares = [*tasks.NAMES, *time_couplings.NAMES]
    weights = [f"{term}_weight" for term in (*chameleon.LOSS_TERMS, *edit_flow.LOSS_TERMS)]
    for key in every_key():
        section, _, name = key.rpartition(".")
        if key.startswith(SECTIONS_PASSED_ON) or name in shares + weights:
            continue
        assert re.search(rf"(config|given|{section or 'config'})\.{name}\b", source), key


def config_reads(node, is_config_dict=True):
    """Yield the first one or two keys of every `config.x.y` and `system.config.x.y`.

    A parameter or field `config` with the type of a dataclass is not a `ConfigDict`, so its
    function or class is left out.
    """
    if isinstance(node, ast.ClassDef):
        fields = [f for f in node.body if isinstance(f, ast.AnnAssign)]
        types = [ast.unparse(f.annotation) for f in fields if ast.unparse(f.target) == "config"]
        is_config_dict = "ConfigDict" in types[0] if types else is_config_dict
    if isinstance(node, ast.FunctionDef):
        types = [ast.unparse(a.annotation) for a in node.args.args if a.arg == "config"]
        is_config_dict = "ConfigDict" in types[0] if types else is_config_dict
    if isinstance(node, ast.Attribute) and is_config_dict:
        names = re.sub(r"[\[(].*?[\])]", "", ast.unparse(node)).split(".")
        if "config" in names[:-1] and names[0] != "jax":
            place = names.index("config")
            yield tuple(names[place + 1 : place + 3])
            return
    for child in ast.iter_child_nodes(node):
        yield from config_reads(child, is_config_dict)


def test_nothing_reads_a_missing_key():
    known = every_key()
    sections = {key.split(".")[0] for key in known} | {"nfe"}
    methods = {"to_dict", "items", "to_json", "get", "lock", "is_locked"}
    methods |= {"copy_and_resolve_references"}
    modules = [ast.parse(source) for source in package_sources()]
    # Skip modules that import a module named `config`.
    modules = [module for module in modules if "import config" not in ast.unparse(module)]
    read = {keys for module in modules for keys in config_reads(module)}
    assert len(read) > 90
    for first, *rest in read:
        if first in methods:
            continue
        assert first in sections, first
        if first in ("models", "text_model") or not rest or rest[0] in methods:
            continue
        if any(key.startswith(f"{first}.") for key in known):
            assert f"{first}.{rest[0]}" in known | {"source.documents"}, (first, rest)


def test_codec_objectives_have_exactly_their_keys():
    """Check that `config.objective` has exactly the keys that its autoencoder, KL or VQ, takes."""
    for make in CODECS.values():
        config = make()
        assert set(config.objective) == set(
            autoencoder_system.OBJECTIVE_KEYS[config.autoencoder.kind]
        )


def test_debug_shrinks_any_configuration():
    config = common.shrink_for_debugging(tpu_v4.get_config())
    assert (config.steps, config.batch_size, config.model.layers) == (2, 8, 2)
    assert config.platform == "any"


@pytest.mark.parametrize("size", gpu.PLANS)
@pytest.mark.parametrize("num_gpus", [4, 8, 32])
def test_the_batch_does_not_depend_on_the_number_of_gpus(size, num_gpus):
    config = gpu.get_config(f"{size}-{num_gpus}")
    batch_size, max_rows, *_ = gpu.PLANS[size]
    rows = config.batch_size / num_gpus / config.grad_accum_steps
    assert config.batch_size == batch_size
    assert rows == min(max_rows, batch_size / num_gpus)
    assert config.batch_size % config.data.num_streams == config.data.num_streams % num_gpus == 0
    assert num_gpus % config.mesh.fsdp == 0
    assert config.platform == "gpu"
    assert config.platform_help.endswith("run pip install -r requirements-gpu.txt.")


@pytest.mark.parametrize("argument", ["2B-1", "1B-3", "1B-0", "1B-x", "1B", "3B-1"])
def test_unknown_sizes_and_numbers_of_gpus_are_refused(argument):
    with pytest.raises(UserError, match=f"configs/gpu.py:{argument}: "):
        gpu.get_config(argument)
