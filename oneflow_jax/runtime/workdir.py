"""The folder of one run: its files and its configuration.

| file                | content                                                             |
|---------------------|---------------------------------------------------------------------|
| config.json         | the resolved configuration                                          |
| tokenizer.model     | the SentencePiece model                                             |
| tokenizer.json      | in its place, the tokenizer of a pretrained language model          |
| data_report.json    | custom data: what was read or dropped, and why; also .html, .png    |
| layouts.json        | layouts of training documents, with their frequencies               |
| source.json         | custom data: fingerprint of the documents that the run trains on    |
| choices.json        | values that the program chose, with reasons                         |
| finetune.json       | fine-tuning: the start model, and the tokens that were added to it  |
| latents.json        | autoencoder codec: its fingerprint, mean and std of its latents     |
| codec/              | autoencoder training: the autoencoder, in the layout of diffusers   |
| checkpoints/        | checkpoints; see `training.checkpoint`                              |
| damaged_checkpoints/ | damaged checkpoints that training has skipped                      |
| weights.safetensors | EMA parameters of an export; see `training.export`                  |
| logs/               | scalars over time; see `runtime.metric_writer`                      |
| evaluation.json     | metrics, name -> value                                              |
| heldout.png         | own data: held-out documents beside what the model makes of them    |
| aot.json            | compiled memory, FLOPs and collectives by TPU topology; see `aot`   |
| aot.png             | plot of the memory of a TPU chip                                    |
| samples.html        | page of samples                                                     |
| samples.png         | film strip of the first sample                                      |
| previews/           | samples during training: <step>.html, <step>.png                    |
| profile/            | profile of training steps, for TensorBoard                          |
| compilation_cache/  | compiled programs, for the next start                               |
| owner.txt           | object stores: which process trains; see `storage.TrainingLease`    |
"""

import functools
import json
import operator
from collections.abc import Callable, Collection, Iterator, Mapping
from typing import Any

import ml_collections
from etils import epath

from oneflow_jax.errors import UserError
from oneflow_jax.runtime import distributed, old_runs, path_keys, renamed_keys, storage

CONFIG = "config.json"
TOKENIZER = "tokenizer.model"
PRETRAINED_TOKENIZER = "tokenizer.json"
LATENTS = "latents.json"
LAYOUTS = "layouts.json"
DERIVED = (TOKENIZER, PRETRAINED_TOKENIZER, LATENTS, LAYOUTS)
SOURCE = "source.json"
CHOICES = "choices.json"
FINETUNE = "finetune.json"
DATA_REPORT = "data_report.json"
CHECKPOINTS = "checkpoints"
DAMAGED_CHECKPOINTS = "damaged_checkpoints"
WEIGHTS = "weights.safetensors"
LOGS = "logs"
CODEC = "codec"
EVALUATION = "evaluation.json"
SHEET = "heldout.png"
AOT_REPORT = "aot.json"
AOT_MEMORY_PLOT = "aot.png"
SAMPLES_PAGE = "samples.html"
PREVIEWS = "previews"
PROFILE = "profile"
COMPILATION_CACHE = "compilation_cache"

Config = ml_collections.ConfigDict
"""Type of the configuration of a run, for modules that only pass it on."""

MUTABLE_KEYS = (
    "name",
    "steps",
    "minutes",
    "choose",
    "mesh",
    "platform",
    "platform_help",
    "aot_topologies",
    "init_from",
    "profile_steps",
    "compilation_cache",
    "data.dir",
    "data.num_prepare_workers",
    "data.shard_megabytes",
    "data.num_workers",
    "data.cache_size",
    "source.path",
    "codec.path",
    "model.attention",
    "model.remat",
    "model.scan_unroll",
    "logging",
    "checkpoint",
    "evaluation",
    "sampling",
)
"""Keys and sections of the configuration that may change when a run is resumed.

These keys change where, how fast and how long the run trains, and what the run writes. `steps` also
changes the learning rate schedule. Apart from the schedule, these keys change the updates of the
parameters only by rounding errors. The fingerprint in source.json decides whether the data at
another `source.path` is the same.
"""

VALUES_TO_SAVE = {"checkpoint.skip_damaged": False}
"""Keys whose value applies to one start of the program, with the value that is saved instead."""


def check_config(
    workdir: epath.Path, config: ml_collections.ConfigDict, *, may_write: bool = True
) -> None:
    """Check that a configuration may continue the run in the folder, if the folder has a run.

    Before the first checkpoint, any value may change. Afterwards only the values of `MUTABLE_KEYS`
    may change.

    Args:
        workdir: folder of the run.
        config: configuration to compare.
        may_write: whether to delete the tokenizer and `latents.json` from the folder, if they were
            made for another configuration and the run has no checkpoint yet.

    Raises:
        UserError: the folder belongs to a run with another configuration.
    """
    path = workdir / CONFIG
    old = _read_config(path) if path.exists() else {}
    if "models" in old:
        raise UserError(f"--workdir={workdir}: the folder holds a comparison. Choose another one.")
    changed = [
        f"{name}: {was!r} there, {now!r} now"
        for name, was, now in _diff_configs(
            _make_json_absolute(old), _make_json_absolute(json.loads(config.to_json()))
        )
        if name not in MUTABLE_KEYS and name.split(".")[0] not in MUTABLE_KEYS
        if name not in config.get("choose", ())
    ]
    trained = has_checkpoints(workdir)
    if changed and trained:
        raise UserError(
            f"--workdir={workdir}: the folder holds a run with another configuration "
            f"({'; '.join(changed)}). Choose another --workdir, or use the values of that run."
        )
    if not may_write:
        return
    if changed or (not trained and old.get("init_from") != config.get("init_from")):
        # The tokenizer and the latents were made with the old values, or with another `init_from`.
        delete_derived(workdir)


def delete_derived(workdir: epath.Path) -> None:
    """Delete the tokenizer, the statistics of latents and the layouts of a run."""
    for name in DERIVED:
        (workdir / name).unlink(missing_ok=True)


def has_checkpoints(workdir: epath.Path) -> bool:
    """Return whether the folder has an export or any checkpoint, complete or not."""
    folder = workdir / CHECKPOINTS
    return is_export(workdir) or (folder.is_dir() and any(True for _ in folder.iterdir()))


def check_trained(workdir: epath.Path) -> None:
    """Check that the folder has parameters to sample from, before anything is prepared.

    Raises:
        UserError: the folder has neither a checkpoint nor an export.
    """
    if not has_checkpoints(workdir):
        raise UserError(f"{workdir}: there is no checkpoint. Train first, with --mode=train.")


def is_export(workdir: epath.Path) -> bool:
    """Return whether the folder is an export (`training.export`)."""
    return (workdir / WEIGHTS).exists()


def expand_paths(config: ml_collections.ConfigDict) -> ml_collections.ConfigDict:
    """Return a copy of the configuration with `~` expanded in all paths.

    Raises:
        UserError: a path begins with `~name`, but no user has this name.
    """
    return _replace_paths(config, storage.expand_user)


def resolve_paths(config: ml_collections.ConfigDict) -> ml_collections.ConfigDict:
    """Return a copy of the configuration with all local paths absolute and `~` expanded.

    Raises:
        UserError: a path begins with `~name`, but no user has this name.
    """
    return _replace_paths(config, path_keys.make_path_absolute)


def save_config(workdir: epath.Path, config: ml_collections.ConfigDict) -> None:
    """Write the configuration of a run to its folder, with absolute paths."""
    saved = resolve_paths(config)
    with saved.unlocked():
        for name, value in VALUES_TO_SAVE.items():
            if name.split(".")[0] in saved:
                saved.update_from_flattened_dict({name: value})
    text = json.dumps(json.loads(saved.to_json()), indent=2) + "\n"
    write_atomically(workdir / CONFIG, text)


def load_config(workdir: epath.Path, field: str = "--workdir") -> ml_collections.ConfigDict:
    """Load the configuration of the run in a folder.

    Args:
        workdir: folder of a run.
        field: the flag or key that contains the path, for the message.

    Raises:
        UserError: the folder has no configuration, or that of a model of another project.
    """
    path = workdir / CONFIG
    if not path.exists():
        problem = (
            f"there is no {CONFIG} in this folder"
            if workdir.exists()
            else "there is no such folder"
        )
        advice = ", or shipped" if field == "--from" else ", or --config to train"
        raise UserError(f"{field}={workdir}: {problem}. Give the folder of a run{advice}.")
    config = ml_collections.ConfigDict(_lists_to_tuples(_read_config(path)))
    if "architectures" in config:
        raise UserError(
            f"{field}={workdir}: this is a model in Hugging Face's layout. Convert a language "
            f"model with oneflow import {workdir} --output=FOLDER, and give FOLDER."
        )
    if is_export(workdir) and "path" in config.codec and (workdir / CODEC).exists():
        config.codec.path = str(workdir / CODEC)
    return config


def exclude_choices(
    config: ml_collections.ConfigDict, names: Collection[str]
) -> ml_collections.ConfigDict:
    """Return the configuration without `names` in `config.choose`, the list of values to choose."""
    left = tuple(name for name in config.get("choose", ()) if name not in names)
    return replace_values(config, {"choose": left}) if "choose" in config else config


def load_choices(
    config: ml_collections.ConfigDict, workdir: epath.Path
) -> ml_collections.ConfigDict:
    """Return the configuration with the values that were chosen when the run was trained first.

    Before the first checkpoint, the values are chosen again, because the data may have changed. If
    the folder holds another kind of run, `check_config` reports it.
    """
    names = config.get("choose", ())
    if not names or not has_checkpoints(workdir):
        return config
    saved = load_config(workdir)
    if "paradigm" not in saved:
        return config
    values = {name: functools.reduce(operator.getitem, name.split("."), saved) for name in names}
    return replace_values(config, values | {"choose": ()})


def flatten_config(config: ml_collections.ConfigDict) -> dict[str, str]:
    """Return each value as text, by its full key, such as `model.width`."""
    rows: dict[str, str] = {}
    for name, value in config.items():
        if isinstance(value, ml_collections.ConfigDict):
            rows |= {f"{name}.{key}": text for key, text in flatten_config(value).items()}
        else:
            rows[name] = str(value)
    return rows


def write_atomically(path: epath.Path, data: str | bytes, *, primary_only: bool = True) -> None:
    """Replace a file in one step, so that no reader sees a partial file.

    With `primary_only`, the other processes write nothing.
    """
    if primary_only and not distributed.is_primary():
        return
    data = data.encode() if isinstance(data, str) else data
    if storage.is_remote(path):  # An object is written atomically.
        path.write_bytes(data)
        return
    draft = path.with_name(path.name + ".draft")
    draft.write_bytes(data)
    draft.replace(path)


def _read_config(path: epath.Path) -> dict[str, Any]:
    """Read a configuration file and upgrade it if an earlier version wrote it."""
    try:
        saved = renamed_keys.upgrade(json.loads(path.read_text()))
    except (ValueError, AttributeError) as error:
        raise UserError(
            f"{path}: the file is damaged ({error}). Get a copy of it from a backup, or give "
            "--config with the configuration of the run."
        ) from error
    models = [*saved.get("models", {}).values(), saved.get("text_model", {})]
    for config in (saved, saved.get("codec", {}), *models):
        if "paradigm" in config:
            _fill_missing_keys(config, old_runs.DEFAULTS | old_runs.DOCUMENT_DEFAULTS)
        elif "autoencoder" in config:
            _fill_missing_keys(config, old_runs.DEFAULTS)
        if config.get("source", {}).get("name") == "own":
            _fill_missing_keys(config, old_runs.OWN_DATA_DEFAULTS)
    return saved


def _make_json_absolute(config: dict[str, Any]) -> dict[str, Any]:
    """Return the content of a `config.json` with absolute paths."""
    return json.loads(resolve_paths(ml_collections.ConfigDict(config)).to_json())


def _replace_paths(
    config: ml_collections.ConfigDict, replace: Callable[[str, str], str]
) -> ml_collections.ConfigDict:
    paths = path_keys.iter_paths(config.copy_and_resolve_references())
    return replace_values(config, {name: replace(path, name) for name, path in paths})


def replace_values(
    config: ml_collections.ConfigDict, values: Mapping[str, Any]
) -> ml_collections.ConfigDict:
    """Return a copy of the configuration with other values; names are full keys."""
    new = config.copy_and_resolve_references()
    with new.unlocked():
        new.update_from_flattened_dict(values)
    return new.lock() if config.is_locked else new


def _fill_missing_keys(config: dict[str, Any], defaults: Mapping[str, Any]) -> None:
    for name, value in defaults.items():
        *sections, key = name.split(".")
        section = functools.reduce(operator.getitem, sections, config)
        section.setdefault(key, value)


def _diff_configs(
    old: dict[str, Any], new: dict[str, Any], prefix: str = ""
) -> Iterator[tuple[str, Any, Any]]:
    for name in sorted(old.keys() | new.keys()):
        was, now = old.get(name), new.get(name)
        if isinstance(was, dict) and isinstance(now, dict):
            yield from _diff_configs(was, now, f"{prefix}{name}.")
        elif was != now:
            yield f"{prefix}{name}", was, now


def _lists_to_tuples(value: Any) -> Any:  # noqa: ANN401 - any JSON value
    """Convert the lists of JSON to the tuples of configurations."""
    if isinstance(value, dict):
        return {name: _lists_to_tuples(item) for name, item in value.items()}
    return tuple(map(_lists_to_tuples, value)) if isinstance(value, list) else value
