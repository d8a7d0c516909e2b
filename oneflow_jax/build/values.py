"""Allowed values of each key of a configuration, and functions that check a configuration.

Each key has one entry in one of the dictionaries below. An entry checks one value alone. The code
that uses several values together checks that they do not contradict each other.
"""

from collections.abc import Iterator, Mapping
from typing import Any

import ml_collections

from oneflow_jax.build import paradigms
from oneflow_jax.build.value_checks import (
    COUNT,
    INSIDE,
    NOT_NEGATIVE,
    POSITIVE,
    SIZE_OR_0,
    Check,
    aspect_ratio,
    check_undeclared,
    fraction,
    integer,
    items,
    mesh_size,
    one_of,
    optional,
    path,
    prompt_text,
    real,
    rope_scaling,
    switch,
    text,
    text_time_sampler,
    time_sampler,
)
from oneflow_jax.codecs.autoencoder.config import KINDS
from oneflow_jax.data import overflow
from oneflow_jax.errors import UserError, check_integer, check_one_of
from oneflow_jax.flows import tasks, time_couplings
from oneflow_jax.nn import attention_ops, backbone, layers, rope
from oneflow_jax.runtime import trackers
from oneflow_jax.samplers import ode, time_grids, token_sampling
from oneflow_jax.training import optimizer
from oneflow_jax.training.loop_config import USES

MAX_STEPS = 100_000
"""Maximum number of steps of a solver; a time grid with more steps would fill the memory."""

MAX_SAMPLES = 1_000_000
"""Maximum number of documents in one call.

All prompts of a call are laid out in memory before the first document is generated.
"""

PLATFORMS = ("any", "cpu", "gpu", "tpu")
DTYPES = ("float32", "bfloat16", "float16")

CODECS = ("patches", "vae", "vq")


def check_paradigm_name(field: str, value: object) -> None:
    """Check the name of a paradigm, which may have been added from outside the package."""
    check_one_of(field, value, paradigms.BUILDERS)


RUN: dict[str, Check] = {
    "name": text,
    "seed": SIZE_OR_0,
    "steps": COUNT,
    "minutes": POSITIVE,
    "choose": items(text),  # `build.choices` checks the names.
    "batch_size": COUNT,
    "grad_accum_steps": COUNT,
    "platform": one_of(PLATFORMS),
    "platform_help": text,
    "aot_topologies": items(text),
    "profile_steps": items(COUNT),
    "compilation_cache": switch,
    "init_from": text,
    "finetune.max_added_tokens": SIZE_OR_0,
    "finetune.min_word_count": COUNT,
    "finetune.keep_fraction": fraction(allow_one=False),
    "finetune.lora_rank": SIZE_OR_0,
    "optimizer.name": one_of(optimizer.BUILDERS),
    "optimizer.learning_rate": POSITIVE,
    "optimizer.warmup_steps": SIZE_OR_0,
    "optimizer.end_lr_fraction": fraction(),
    "optimizer.b1": fraction(allow_one=False),
    "optimizer.b2": fraction(allow_one=False),
    "optimizer.weight_decay": NOT_NEGATIVE,
    "optimizer.max_grad_norm": POSITIVE,
    "optimizer.ema_decay": fraction(allow_one=False),
    "optimizer.freeze": text,
    "mesh.slices": mesh_size,
    "mesh.data": mesh_size,
    "mesh.fsdp": mesh_size,
    "mesh.context": mesh_size,
    "mesh.tensor": mesh_size,
    "logging.every": COUNT,
    "logging.wandb_project": text,
    "logging.mlflow_uri": text,
    "checkpoint.every": COUNT,
    "checkpoint.minutes": NOT_NEGATIVE,
    "checkpoint.broadcast_min_gb": NOT_NEGATIVE,
    "checkpoint.max_to_keep": COUNT,
    "checkpoint.keep_period": SIZE_OR_0,
    "checkpoint.skip_damaged": switch,
    "checkpoint.keep_best": switch,
    "checkpoint.use": one_of(USES),
    "evaluation.every": COUNT,
    "evaluation.time_bins": COUNT,
    "evaluation.loss_documents": SIZE_OR_0,
    "evaluation.num_samples": COUNT,
    "evaluation.batch_size": COUNT,
    "evaluation.pca_images": COUNT,
    "evaluation.suite": text,  # `build.evaluation` checks the name.
    "evaluation.full_metrics": switch,
    "evaluation.inception_weights": text,
    "evaluation.clip_dir": text,
    "evaluation.nfe": items(integer(1, MAX_STEPS)),
}
"""Keys that document models and autoencoders share; the tables below have the other keys."""

DATA: dict[str, Check] = {
    "data.dir": path,
    "data.num_streams": COUNT,
    "data.num_workers": SIZE_OR_0,
    "data.cache_size": SIZE_OR_0,
    "data.num_prepare_workers": COUNT,
    "data.shard_megabytes": COUNT,
    "data.pixels": COUNT,
    "data.sequence_length": COUNT,
    "data.text_slot_multiple": SIZE_OR_0,
    "data.vocab_size": COUNT,
    "data.character_coverage": real(minimum=0.98, maximum=1),
    "data.aspect_ratios": items(aspect_ratio),
    "data.overflow": one_of(overflow.OVERFLOW_POLICIES),
    "source.name": text,  # `data.sources` checks the name.
    "source.documents": COUNT,
    "source.held_out_documents": COUNT,
    "source.pixels": COUNT,
    "source.interleaved": fraction(),
    "source.concepts": optional(COUNT),
    "source.categories": items(text),
    "source.names": items(text),
    "source.captions": items(text),
    "source.skin_tones": switch,
    "source.styles": items(text),
    "source.min_styles": integer(2),
    "source.styled": fraction(),
    "source.keywords": fraction(),
    "source.path": text,
    "source.format": text,  # `data.custom.formats` checks the name.
    "source.glob": text,
    "source.image_root": text,
    "source.columns": items(text),
    "source.split": text,
    "source.heldout_fraction": INSIDE,
    "source.deduplicate": switch,
    "source.max_megapixels": POSITIVE,
    "source.read_timeout": POSITIVE,
    "codec.name": one_of(CODECS),
    "codec.path": text,
    "codec.pixels": COUNT,
    "codec.patch_size": COUNT,
    "codec.image_channels": integer(1, 3),
    "codec.mean": real(),
    "codec.std": POSITIVE,
    "codec.divisor": POSITIVE,
}
"""Keys of data sets and codecs."""

MODEL: dict[str, Check] = {
    "model.layers": COUNT,
    "model.width": COUNT,
    "model.heads": COUNT,
    "model.kv_heads": COUNT,
    "model.head_width": COUNT,
    "model.hidden": COUNT,
    "model.embed_width": COUNT,
    "model.embed_projection": switch,
    "model.tied_embeddings": switch,
    "model.qk_norm": switch,
    "model.qkv_bias": switch,
    "model.norm_eps": POSITIVE,
    "model.post_norms": switch,
    "model.activation": one_of(layers.ACTIVATIONS),
    "model.embed_scale": POSITIVE,
    "model.score_cap": NOT_NEGATIVE,
    "model.logit_cap": NOT_NEGATIVE,
    "model.sliding_window": SIZE_OR_0,
    "model.global_every": COUNT,
    "model.rope_layout": one_of(rope.LAYOUTS),
    "model.rope_theta": POSITIVE,
    "model.rope_scaling": rope_scaling,
    "model.rope_local_theta": POSITIVE,
    "model.remat": one_of(backbone.REMAT),
    "model.scan_unroll": COUNT,
    "model.dtype": one_of(DTYPES),
    "model.attention": one_of(attention_ops.IMPLEMENTATIONS),
    "paradigm.name": check_paradigm_name,
    "paradigm.objective": text,  # `build.paradigms` checks this name and the next.
    "paradigm.image_prediction": text,
    "paradigm.max_mask_weight": POSITIVE,
    **{f"paradigm.tasks.{name}": fraction() for name in tasks.NAMES},
    **{f"paradigm.time_coupling.{name}": fraction() for name in time_couplings.NAMES},
    "paradigm.cond_drop_prob": fraction(),
    "paradigm.min_one_minus_t": fraction(allow_zero=False),
    "paradigm.time_sampler": time_sampler,
    "paradigm.text_time_sampler": text_time_sampler,
    "paradigm.condition_on_text_time": switch,
    "paradigm.flow_map": switch,
    "paradigm.text_lead": POSITIVE,
    "paradigm.text_weight": NOT_NEGATIVE,
    "paradigm.image_weight": NOT_NEGATIVE,
    **{f"paradigm.insert_{name}_weight": NOT_NEGATIVE for name in ("token", "count", "zero")},
    "paradigm.edit_op_weight": NOT_NEGATIVE,
    "paradigm.substitute_weight": NOT_NEGATIVE,
    "paradigm.z_loss_weight": NOT_NEGATIVE,
    "sampling.num_samples": integer(1, MAX_SAMPLES),
    "sampling.preview_every": SIZE_OR_0,
    "sampling.steps": integer(1, MAX_STEPS),
    "sampling.solver": one_of(ode.NAMES),
    "sampling.time_grid": one_of((*time_grids.TIME_GRIDS, "learned")),
    "sampling.image_guidance_scale": NOT_NEGATIVE,
    "sampling.text_guidance_scale": NOT_NEGATIVE,
    "sampling.confidence_threshold": fraction(allow_zero=False),
    "sampling.temperature": NOT_NEGATIVE,
    "sampling.top_p": fraction(allow_zero=False),
    "sampling.top_k": SIZE_OR_0,
    "sampling.unmask_order": one_of(token_sampling.UNMASK_ORDERS),
    "sampling.remask_prob": fraction(allow_one=False),
    "sampling.edit_start": INSIDE,
    "sampling.seed": SIZE_OR_0,
    "sampling.prompts": items(prompt_text),
}
"""Keys of document models."""

AUTOENCODER: dict[str, Check] = {
    "autoencoder.kind": one_of(KINDS),
    "autoencoder.in_channels": COUNT,
    "autoencoder.out_channels": COUNT,
    "autoencoder.block_out_channels": items(COUNT),
    "autoencoder.layers_per_block": COUNT,
    "autoencoder.latent_channels": COUNT,
    "autoencoder.norm_num_groups": COUNT,
    "autoencoder.mid_block_add_attention": switch,
    "autoencoder.use_quant_conv": switch,
    "autoencoder.use_post_quant_conv": switch,
    "autoencoder.scaling_factor": POSITIVE,
    "autoencoder.shift_factor": optional(real()),
    "autoencoder.latents_mean": optional(items(real())),
    "autoencoder.latents_std": optional(items(POSITIVE)),
    "autoencoder.num_vq_embeddings": COUNT,
    "autoencoder.vq_embed_dim": optional(COUNT),
    "objective.perceptual_weight": NOT_NEGATIVE,
    "objective.kl_weight": NOT_NEGATIVE,
    "objective.codebook_weight": NOT_NEGATIVE,
    "objective.commitment_weight": NOT_NEGATIVE,
    "objective.entropy_weight": NOT_NEGATIVE,
    "objective.dead_code_restart_prob": fraction(),
}
"""Keys of autoencoders and of their training."""

START_SOURCE: dict[str, Check] = {
    f"finetune.start_{name}": check for name, check in DATA.items() if name.startswith("source.")
}
"""Keys of the data set of a start model (configs/finetune.py)."""

KEYS = RUN | DATA | MODEL | AUTOENCODER | START_SOURCE

COMPARISON: dict[str, Check] = {
    "name": text,
    "command": text,
    "platform": one_of(PLATFORMS),
    "platform_help": text,
    "seeds": items(SIZE_OR_0),
    "train_flops": real(minimum=1),
    "text_pretrain_fraction": INSIDE,
    "num_samples": COUNT,
    "latency_repeats": COUNT,
    "compile_fast": switch,
    "models_shown": items(text),
}
"""Keys of comparisons. The sections `models`, `text_model` and `codec` configure runs."""


def validate(config: ml_collections.ConfigDict) -> None:
    """Check each value of a configuration of a run or of a comparison.

    Raises:
        UserError: a value is outside the range of its key.
    """
    if "models" not in config:
        _check_keys(KEYS, config.to_dict())
        return
    sections = config.to_dict()
    for name, run in sections.pop("models").items():
        _check_keys(KEYS, run, f"models.{name}.")
    for name in ("text_model", "codec"):
        _check_keys(KEYS, sections.pop(name), f"{name}.")
    for name, nfe in sections.pop("reported_nfe").items():
        check_integer(f"reported_nfe.{name}", nfe, 1)
    _check_keys(COMPARISON, sections)


def validate_key(name: str, value: object) -> None:
    """Check the value of one key of a run.

    Raises:
        UserError: the value is outside the range of the key.
    """
    KEYS.get(name, check_undeclared)(name, value)


def validate_training(config: ml_collections.ConfigDict) -> None:
    """Check what matters only in training: combinations of values, and packages for logging.

    Raises:
        UserError: the warm-up of the learning rate is longer than the run, or a package is missing.
    """
    trackers.check_installed(config.logging.wandb_project, config.logging.mlflow_uri)
    steps, warmup = config.steps, config.optimizer.warmup_steps
    if warmup > steps and "optimizer.warmup_steps" not in config.get("choose", ()):
        raise UserError(
            f"optimizer.warmup_steps={warmup}: longer than the run of steps={steps}, so the "
            f"learning rate never reaches its peak. Set optimizer.warmup_steps to {steps} or less."
        )


def _check_keys(checks: Mapping[str, Check], section: Mapping[str, Any], prefix: str = "") -> None:
    for name, value in _flatten(section):
        checks.get(name, check_undeclared)(f"{prefix}{name}", value)


def _flatten(section: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for name, value in section.items():
        if isinstance(value, Mapping):
            yield from _flatten(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", value
