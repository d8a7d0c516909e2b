"""Tests that every key of every configuration rejects impossible values, and names the key."""

import math
import re

import jax
import numpy as np
import pytest
from etils import epath
from ml_collections import ConfigDict

from configs import (
    codec,
    compare,
    digits,
    documents,
    emoji_styles,
    finetune,
    own,
    quickstart,
    shipped,
    tpu_v4,
    tpu_v5e,
    tpu_v5p,
    tpu_v6e,
)
from oneflow_jax.build import aot_config, autoencoder_system, values
from oneflow_jax.build import system as system_lib
from oneflow_jax.compare import run as compare_run
from oneflow_jax.errors import UserError
from tests import tiny_codec_config, tiny_config

GENERATIONS = {"v4": tpu_v4, "v5e": tpu_v5e, "v5p": tpu_v5p, "v6e": tpu_v6e}

SHIPPED = {
    **{f"shipped:{kind}": shipped.get_config(kind) for kind in ("all", "text")},
    "finetune": finetune.get_config(),
    "documents": documents.get_config(),
    "emoji_styles": emoji_styles.get_config(),
    **{
        f"own:{name}": own.get_config(name)
        for name in ("oneflow", "latents", "mask_flow", "edit_flow")
    },
    **{f"digits:{name}": digits.get_config(name) for name in ("cross_entropy", "velocity")},
    **{f"codec:{kind}": codec.get_config(kind) for kind in ("kl", "vq")},
    **{f"compare:{kind}": compare.get_config(kind) for kind in compare.KINDS},
    **{
        f"quickstart:{name}": quickstart.get_config(name)
        for name in ("oneflow", "latents", "lmfusion", "language", *compare.PASSES)
    },
    **{
        f"tpu_{name}:{size}": module.get_config(size)
        for name, module in GENERATIONS.items()
        for size in (*module.PLANS, "1B,own")
    },
}
"""Every shipped configuration."""

HOSTILE = (math.nan, math.inf, -math.inf, -1, 0, 2**64, "", "abc", None, True, 1e400, -1e-300, [])

MAY_BE_ZERO = re.compile(
    r"seed|.*\.seed|.*(?<!max_mask)_weight|sampling\..*_scale|.*_prob|codec\.mean|optimizer\.(b1|b2|ema_decay|weight_decay"
    r"|warmup_steps|end_lr_fraction)|data\.(num_workers|cache_size|text_slot_multiple)"
    r"|checkpoint\.(keep_period|minutes|broadcast_min_gb)"
    r"|finetune\.(max_added_tokens|keep_fraction|lora_rank|minutes)|paradigm\.(tasks|time_coupling)\..*|source\.(interleaved|styled|keywords)"
    r"|model\.(score_cap|logit_cap|sliding_window)|sampling\.(preview_every|top_k|temperature)|evaluation\.loss_documents"
)

MAY_BE_NEGATIVE = re.compile(r"codec\.mean|mesh\..*")

NAMED_ELSEWHERE = re.compile(
    r"source\.(name|format)|evaluation\.suite|paradigm\.(objective|image_prediction)"
)
"""Keys whose values are names; other modules check these names, also before training."""

FREE_TEXT = re.compile(
    r"name|command|platform_help|init_from|data\.dir|optimizer\.freeze|evaluation\.(inception_weights"
    r"|clip_dir)|codec\.path|source\.(path|glob|image_root|split)"
    r"|logging\.(wandb_project|mlflow_uri)"
)


def flatten(config, prefix=""):
    for name in config:
        value = config[name]
        if isinstance(value, ConfigDict):
            yield from flatten(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", value


def flatten_runs(config):
    """Yield each key, its name within its own run if it is part of a comparison, and its value."""
    for key, value in flatten(config):
        inner = re.sub(r"^(models\.\w+|text_model|codec)\.", "", key) if "models" in config else key
        # The data set of a start model has the keys of any data set.
        yield key, re.sub(r"^finetune\.start_(?=source\.)", "", inner), value


def is_possible(key, default, value):
    """Return whether a key may have a hostile value, without using the tables that are tested."""
    if isinstance(default, bool):
        return value is True
    if isinstance(default, str):
        free = FREE_TEXT.fullmatch(key) or NAMED_ELSEWHERE.fullmatch(key)
        is_empty_path = key == "data.dir" and value == ""
        return isinstance(value, str) and bool(free) and not is_empty_path
    if isinstance(default, tuple | list):
        return value == [] and key != "paradigm.time_sampler"
    if key == "source.concepts" and value is None:
        return True
    if value is None or isinstance(value, bool | str | list) or not math.isfinite(value):
        return False
    if isinstance(default, int | None) and isinstance(value, float):
        return False
    if isinstance(value, int) and value == 2**64 and isinstance(default, int | None):
        return False
    if value == 2**64:
        bounded = "prob", "fraction", "tasks.", "time_coupling.", "ema_decay", ".b1", ".b2", "top_p"
        bounded += "source.styled", "source.keywords", "confidence_threshold"
        bounded += "edit_start", "coverage", "interleaved", "min_one_minus_t"
        return not any(name in key for name in bounded)
    if value < 0:
        return bool(MAY_BE_NEGATIVE.fullmatch(key))
    return value != 0 or bool(MAY_BE_ZERO.fullmatch(key))


def replace(config, key, value):
    """Return a copy of a configuration with one value of any type."""
    copy = config.copy_and_resolve_references()
    *sections, name = key.split(".")
    section = copy
    for each in sections:
        section = section[each]
    del section[name]  # ml_collections would convert the value to the type of the earlier value.
    section[name] = value
    return copy.lock()


@pytest.mark.parametrize("name", SHIPPED)
def test_shipped_values_are_allowed_and_every_key_is_declared(name):
    config = SHIPPED[name]
    values.validate(config)
    for key, inner, _ in flatten_runs(config):
        known = values.KEYS.keys() | values.COMPARISON.keys()
        assert inner in known or key.startswith("reported_nfe."), key
    if "models" not in config:
        values.validate_training(config)


def test_every_key_rejects_impossible_values():
    checked = set()
    for config in SHIPPED.values():
        for key, inner, default in flatten_runs(config):
            if (key, type(default)) in checked:
                continue
            checked.add((key, type(default)))
            for value in HOSTILE:
                changed = replace(config, key, value)
                if is_possible(inner, default, value):
                    values.validate(changed)
                    continue
                with pytest.raises(UserError) as raised:
                    values.validate(changed)
                assert str(raised.value).startswith(key), (key, value, str(raised.value))
                assert str(value) in str(raised.value), (key, value, str(raised.value))
    assert len(checked) > 150


def test_every_declared_key_is_in_some_configuration():
    shown = {key for config in SHIPPED.values() for _, key, _ in flatten_runs(config)}
    optional = {
        key
        for key in values.KEYS
        if key.startswith(("autoencoder.", "finetune.start_source."))
        or key in ("source.skin_tones", "data.pixels")
    }
    assert set(values.KEYS) - shown <= optional


INSIDE = [
    ("sampling.prompts", ("<text>", 3), "sampling.prompts[1]=3"),
    ("evaluation.nfe", (4, 0), "evaluation.nfe[1]=0"),
    ("evaluation.nfe", (10**9,), "evaluation.nfe[0]=1000000000"),
    ("sampling.steps", 10**9, "sampling.steps=1000000000"),
    ("sampling.num_samples", 10**9, "sampling.num_samples=1000000000"),
    ("evaluation.nfe", (4, 2.5), "evaluation.nfe[1]=2.5"),
    ("evaluation.nfe", (True,), "evaluation.nfe[0]=True"),
    ("profile_steps", (math.nan, 2), "profile_steps[0]=nan"),
    ("paradigm.time_sampler", ("power", math.nan), "paradigm.time_sampler[1]=nan"),
    ("model.rope_scaling", ("yarn", 8.0), "model.rope_scaling='yarn'"),
    ("model.rope_scaling", ("llama3", 8.0), "model.rope_scaling=('llama3', 8.0): it has 1 numbers"),
    ("model.rope_scaling", ("llama3", 0, 1, 4, 8), "model.rope_scaling[1]=0"),
    ("paradigm.time_sampler", ("power", -1.0), "paradigm.time_sampler[1]=-1.0"),
    ("paradigm.time_sampler", ("power",), "paradigm.time_sampler=('power',)"),
    ("paradigm.time_sampler", ("logit_normal", 0.0, 0.0), "paradigm.time_sampler[2]=0.0"),
    ("paradigm.time_sampler", ("logit_normal", "a", 1.0), "paradigm.time_sampler[1]='a'"),
    ("paradigm.time_sampler", ([], 1.0), "paradigm.time_sampler=[]"),
    ("paradigm.text_time_sampler", ("power",), "paradigm.text_time_sampler=("),
    ("paradigm.time_sampler", ("information", 4.8, 1.1, 0.5), "paradigm.time_sampler=("),
    (
        "paradigm.time_sampler",
        ("information", 4.8, 0.0, 0.5, 1.0),
        "paradigm.time_sampler[2]=0.0",
    ),
    (
        "paradigm.time_sampler",
        ("information", 4.8, 1.1, 1.5, 1.0),
        "paradigm.time_sampler[3]=1.5",
    ),
    # In float32 these four values become 1, 1, 0 and infinity.
    ("optimizer.ema_decay", 1 - 1e-12, "optimizer.ema_decay=0.999999999999"),
    ("optimizer.b2", 1 - 1e-10, "optimizer.b2=0.9999999999"),
    ("optimizer.learning_rate", 1e-60, "optimizer.learning_rate=1e-60"),
    ("optimizer.weight_decay", 1e39, "optimizer.weight_decay=1e+39"),
    ("sampling.temperature", 10**400, "sampling.temperature=1000"),
    ("sampling.image_guidance_scale", -0.5, "sampling.image_guidance_scale=-0.5"),
    ("sampling.text_guidance_scale", np.float32("nan"), "sampling.text_guidance_scale=nan"),
    ("model.dtype", "float64", "model.dtype='float64'"),
    ("model.dtype", "int8", "model.dtype='int8'"),
    ("platform", "quantum", "platform='quantum'"),
    ("seed", 2**63, "seed=9223372036854775808"),
    ("seed", 2**32, "seed=4294967296"),
    ("sampling.seed", -3, "sampling.seed=-3"),
    ("seed", np.bool_(True), "seed=np.True_"),
    ("optimizer.b1", 1.0, "optimizer.b1=1.0"),
    ("optimizer.ema_decay", 1, "optimizer.ema_decay=1"),
    ("paradigm.my_own_weight", math.nan, "paradigm.my_own_weight=nan"),
]


@pytest.mark.parametrize(("key", "value", "message"), INSIDE)
def test_values_inside_lists_and_close_to_limits(key, value, message):
    config = tiny_config.get_config()
    config.paradigm.my_own_weight = 1.0
    with pytest.raises(UserError) as raised:
        values.validate(replace(config, key, value))
    assert str(raised.value).startswith(message)


def test_numpy_numbers_are_numbers():
    for config in (tiny_config.get_config(), tiny_codec_config.get_config("vq")):
        for key, default in flatten(config):
            if isinstance(default, bool):
                values.validate(replace(config, key, np.bool_(default)))
            elif isinstance(default, int):
                values.validate(replace(config, key, np.int64(default)))
            elif isinstance(default, float):
                values.validate(replace(config, key, np.float32(default)))
    values.validate(replace(tiny_config.get_config(), "evaluation.nfe", (np.int32(4),)))


ENTRIES = {
    "system": lambda config, folder: system_lib.system(config, folder),
    "aot": lambda config, folder: aot_config.fit_config(config, 8, 1, None),
    "abstract": lambda config, folder: system_lib.abstract_system(config, jax.devices()),
}


@pytest.mark.parametrize("entry", ENTRIES)
@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("sampling.image_guidance_scale", math.nan),
        ("optimizer.ema_decay", 1.0),
        ("optimizer.learning_rate", -1e-3),
        ("model.dtype", "float31"),
        ("mesh.fsdp", "abc"),
        ("seed", -1),
    ],
)
def test_document_models_are_checked_before_anything_is_written(entry, key, value, tmp_path):
    config = replace(tiny_config.get_config(), key, value)
    with pytest.raises(UserError, match=re.escape(f"{key}={value!r}")):
        ENTRIES[entry](config, epath.Path(tmp_path))
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("optimizer.b2", 1.0),
        ("autoencoder.scaling_factor", 0.0),
        ("objective.kl_weight", math.inf),
        ("autoencoder.layers_per_block", "two"),
    ],
)
def test_autoencoders_are_checked(key, value):
    config = tiny_codec_config.get_config()
    config.autoencoder.scaling_factor = 1.0
    with pytest.raises(UserError, match=re.escape(f"{key}={value!r}")):
        autoencoder_system.system(replace(config, key, value))


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("train_flops", math.nan),
        ("train_flops", math.inf),
        ("models.oneflow.optimizer.ema_decay", 1.5),
        ("text_model.optimizer.learning_rate", math.nan),
        ("codec.objective.entropy_weight", -1.0),
        ("reported_nfe.oneflow", 0),
        ("text_pretrain_fraction", math.nan),
        ("seeds", (0, -1)),
        ("seeds", (0, True)),
    ],
)
def test_comparisons_are_checked(key, value):
    config = replace(compare.get_config("smoke"), key, value)
    with pytest.raises(UserError, match=rf"^{re.escape(key)}(\[1\])?="):
        compare_run.validate(config)


def test_a_warm_up_longer_than_the_run():
    config = tiny_config.get_config()
    config.optimizer.warmup_steps = 7
    with pytest.raises(UserError, match=r"^optimizer\.warmup_steps=7: longer .* steps=6"):
        values.validate_training(config)
    config.optimizer.warmup_steps = 6
    values.validate_training(config)
