"""Renames keys and values of configurations that earlier versions saved.

Only this module contains the old names. `upgrade` replaces old names in the content of a
`config.json`, so old runs and released weights can still be loaded. For an old key on the command
line, `check_flags` raises an error with the new key.
"""

import copy
import functools
import re
from collections.abc import Sequence
from typing import Any

from oneflow_jax.errors import UserError

RENAMED = {
    "batch": "batch_size",
    "parts": "grad_accum_steps",
    "needs": "platform_help",
    "start": "init_from",
    "keep_compiled": "compilation_cache",
    "profile": "profile_steps",
    "topologies": "aot_topologies",
    "data.streams": "data.num_streams",
    "data.workers": "data.num_workers",
    "data.cache": "data.cache_size",
    "data.preparing": "data.num_prepare_workers",
    "data.length": "data.sequence_length",
    "data.text_slots": "data.text_slot_multiple",
    "data.vocab": "data.vocab_size",
    "data.coverage": "data.character_coverage",
    "data.long": "data.overflow",
    "codec.deviation": "codec.std",
    "codec.colors": "codec.image_channels",
    "codec.patch": "codec.patch_size",
    "optimizer.warmup": "optimizer.warmup_steps",
    "optimizer.final": "optimizer.end_lr_fraction",
    "optimizer.clip": "optimizer.max_grad_norm",
    "optimizer.ema": "optimizer.ema_decay",
    "optimizer.frozen": "optimizer.freeze",
    "mesh.sequence": "mesh.context",
    "checkpoint.keep": "checkpoint.max_to_keep",
    "checkpoint.milestones": "checkpoint.keep_period",
    "evaluation.clocks": "evaluation.time_bins",
    "evaluation.samples": "evaluation.num_samples",
    "evaluation.batch": "evaluation.batch_size",
    "evaluation.score": "evaluation.suite",
    "evaluation.thorough": "evaluation.full_metrics",
    "evaluation.inception": "evaluation.inception_weights",
    "evaluation.clip": "evaluation.clip_dir",
    "evaluation.passes": "evaluation.nfe",
    "evaluation.fitted": "evaluation.pca_images",
    "sampling.samples": "sampling.num_samples",
    "sampling.every": "sampling.preview_every",
    "sampling.grid": "sampling.time_grid",
    "sampling.guidance": "sampling.image_guidance_scale",
    "sampling.text_guidance": "sampling.text_guidance_scale",
    "sampling.order": "sampling.unmask_order",
    "sampling.remask": "sampling.remask_prob",
    "sampling.start": "sampling.edit_start",
    "model.unroll": "model.scan_unroll",
    "paradigm.cap": "paradigm.max_mask_weight",
    "paradigm.image": "paradigm.image_prediction",
    "paradigm.joint": "paradigm.tasks.joint",
    "paradigm.text_to_image": "paradigm.tasks.text_to_image",
    "paradigm.image_to_text": "paradigm.tasks.image_to_text",
    "paradigm.spans": "paradigm.tasks.spans",
    "paradigm.scattered": "paradigm.tasks.scattered",
    "paradigm.drop": "paradigm.cond_drop_prob",
    "paradigm.floor": "paradigm.min_one_minus_t",
    "paradigm.clock": "paradigm.time_sampler",
    "paradigm.interleaved": "paradigm.time_coupling.interleaved",
    "paradigm.independent": "paradigm.time_coupling.independent",
    "paradigm.together": "paradigm.time_coupling.together",
    "paradigm.revised": "paradigm.time_coupling.edited",
    "paradigm.text_clock": "paradigm.condition_on_text_time",
    "paradigm.tokens_weight": "paradigm.insert_token_weight",
    "paradigm.count_weight": "paradigm.insert_count_weight",
    "paradigm.empty_weight": "paradigm.insert_zero_weight",
    "paradigm.fate_weight": "paradigm.edit_op_weight",
    "paradigm.words_weight": "paradigm.substitute_weight",
    "paradigm.z_weight": "paradigm.z_loss_weight",
    "source.held_out": "source.heldout_fraction",
    "source.patience": "source.read_timeout",
    "source.kind": "source.format",
    "source.fields": "source.columns",
    "source.images": "source.image_root",
    "source.files": "source.glob",
    "source.megapixels": "source.max_megapixels",
    "objective.revival": "objective.dead_code_restart_prob",
    "objective.divergence_weight": "objective.kl_weight",
    # The following keys belong to comparisons.
    "contestants": "models",
    "headline": "reported_nfe",
    "order": "models_shown",
    "language": "text_pretrain_fraction",
    "latency": "latency_repeats",
    "samples": "num_samples",
    "flops": "train_flops",
    "paradigm.captioning_time_sampler": "paradigm.text_time_sampler",
}
"""New full names of keys, by old full names."""

RENAMED_VALUES: dict[str, dict[Any, Any]] = {
    "codec.name": {"learned": "vae", "codes": "vq"},
    "data.overflow": {"cut": "split"},
    "model.attention": {"dense": "xla", "blocks": "blockwise"},
    "paradigm.image_prediction": {"clean": "x1"},
    "paradigm.objective": {"endpoint": "cross_entropy", "literal": "naive"},
}
"""A map from old values to new values, for each key whose values were renamed.

The keys have their new names.
"""

RENAMED_FLAGS = {
    "--revise": "--edit",
    "--into": "--output",
    "--rows_per_chip": "--per_device_batch",
    "--mode=release": "--mode=export",
    "--mode=compile": "--mode=aot",
}
"""New names of flags by old names; a name may include a value."""

_LATENT_DIVISOR = ("codec.deviation", "codec.divisor")
"""A renaming that applies only to configurations with an autoencoder codec. There the old key was
the divisor of latents. In other configurations the old key was the std of pixels."""

RENAMED_METRICS = {
    # Metrics in the logs of training.
    "heldout/psnr": "eval/psnr",
    "heldout/nats": "eval/nats_per_document",
    "train/waiting": "train/data_wait_fraction",
    "train/slowest_process": "train/data_wait_argmax_process",
    "train/step_spread": "train/step_time_max_over_median",
    "train/step_seconds": "train/step_time",
    # Metrics in the saved measurements of comparisons.
    "passes": "nfe",
    "kid": "kid_efficientnet",
    "fd": "fd_efficientnet",
    "shown": "image_name_alignment",
    "counted": "count_accuracy",
    "ordered": "order_accuracy",
    "agreed": "category_consistency",
    "varied": "diversity",
    "interleaved": "interleaved_score",
    "text_valid": "template_validity",
    "pictured": "image_rate",
    "copied": "train_copy_rate",
    "nearest": "nearest_train_similarity",
    "unseen_close": "memorization_rate",
    "unseen_ratio": "nn_distance_ratio",
    "document": "document_accuracy",
    "document_places": "document_alignment",
    "document_counted": "document_count_accuracy",
    "document_valid": "document_template_validity",
    "document_variety": "document_diversity",
    "document_1": "document_num_images_1",
    "document_2": "document_num_images_2",
    "document_3": "document_num_images_3",
    "document_4": "document_num_images_4",
    "text_nats": "nats_per_document",
    "text_loss_before": "text_loss_pretrained",
    "text_loss_after": "text_loss_finetuned",
}
"""New names of metrics other than losses, by old names."""

_RENAMED_LOSSES = {
    "z": "z_loss",
    "tokens": "insert_token",
    "count": "insert_count",
    "empty": "insert_zero",
    "fate": "edit_op",
    "words": "substitute",
    "divergence": "kl",
}
"""New names of loss terms, by old names."""

_HELDOUT_METRICS = {"heldout_concept_accuracy"}
"""Current names of metrics that begin like old names of losses. They must not be renamed."""


def upgrade_metric(name: str) -> str:
    """Return the current name of a saved metric, such as `heldout/text/u=0.1` or `heldout_text`."""
    if name in RENAMED_METRICS:
        return RENAMED_METRICS[name]
    match = re.fullmatch(r"(heldout[/_]|train/)(\w+)(?:/u=(.*))?", name)
    if not match or name in _HELDOUT_METRICS:
        return name
    prefix, term, time = match.groups()
    prefix = prefix.replace("heldout/", "eval/loss_").replace("heldout_", "eval_loss_")
    return prefix + _RENAMED_LOSSES.get(term, term) + (f"/t={time}" if time else "")


def upgrade(config: dict[str, Any]) -> dict[str, Any]:
    """Return the content of a `config.json` with current names and values instead of old ones.

    Args:
        config: nested dictionary, as `json.loads` returns it. The function copies the dictionary
            and leaves keys with current names unchanged.
    """
    new = copy.deepcopy(config)
    has_latents = config.get("codec", {}).get("name") in ("learned", "vae")
    for old, name in (RENAMED | dict([_LATENT_DIVISOR] if has_latents else [])).items():
        _move(new, old, name)
    for name, values in RENAMED_VALUES.items():
        section, key = name.split(".")
        value = new.get(section, {}).get(key)
        if isinstance(value, str) and value in values:
            new[section][key] = values[value]
    if "models" in new:  # A comparison holds configurations of runs.
        new["models"] = {name: upgrade(model) for name, model in new["models"].items()}
        for name in {"codec", "text_model"} & new.keys():
            new[name] = upgrade(new[name])
    return new


def check_flags(arguments: Sequence[str]) -> None:
    """Check that a command line has no old flags and no old configuration keys.

    Args:
        arguments: arguments of the command, as in `sys.argv`.

    Raises:
        UserError: an argument has an old name; the message gives the new name.
    """
    for argument in arguments:
        if not argument.startswith("-"):
            continue
        argument = "--" + argument.lstrip("-")
        flag = argument.partition("=")[0]
        key = flag.removeprefix("--config.")
        new = RENAMED_FLAGS.get(argument) or RENAMED_FLAGS.get(flag)
        if flag != key and key in RENAMED:
            new = f"--config.{RENAMED[key]}"
        if new:
            old = argument if argument in RENAMED_FLAGS else flag
            raise UserError(f"{old} has a new name: write {new}.")


def _move(config: dict[str, Any], old: str, new: str) -> None:
    """Move a value from its old full key to its new full key, if the old key exists."""
    *sections, key = old.split(".")
    section = functools.reduce(lambda inner, name: inner.get(name, {}), sections, config)
    if not isinstance(section, dict) or key not in section:
        return
    value = section.pop(key)
    *sections, key = new.split(".")
    for name in sections:
        config = config.setdefault(name, {})
    config.setdefault(key, value)
