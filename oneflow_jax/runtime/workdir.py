"""The folder of one run: its files, its configuration and its lock.

| file                | content                                                             |
|---------------------|---------------------------------------------------------------------|
| config.json         | the resolved configuration                                          |
| tokenizer.model     | the SentencePiece model                                             |
| data_report.json    | custom data: what was read or dropped, and why; also .html, .png    |
| source.json         | custom data: fingerprint of the documents that the run trains on    |
| latents.json        | autoencoder codec: its fingerprint, mean and std of its latents     |
| codec/              | autoencoder training: the autoencoder, in the layout of diffusers   |
| checkpoints/        | checkpoints; see `training.checkpoint`                              |
| weights.safetensors | EMA parameters of an export; see `training.export`                  |
| logs/               | scalars over time; see `runtime.metric_writer`                      |
| evaluation.json     | metrics, name -> value                                              |
| aot.json            | compiled memory, FLOPs and collectives by TPU topology; see `aot`   |
| aot.png             | plot of the memory of a TPU chip                                    |
| samples.html        | page of samples                                                     |
| samples.png         | film strip of the first sample                                      |
| previews/           | samples during training: <step>.html, <step>.png                    |
| profile/            | profile of training steps, for TensorBoard                          |
| compilation_cache/  | compiled programs, for the next start                               |
| owner.txt           | object stores: which process trains; see `storage.TrainingLease`    |
"""

import contextlib
import errno
import functools
import json
import operator
from collections.abc import Iterator, Mapping
from typing import Any

import filelock
import ml_collections
from etils import epath

from oneflow_jax.errors import UserError
from oneflow_jax.runtime import distributed, renamed_keys, storage

CONFIG = "config.json"
TOKENIZER = "tokenizer.model"
LATENTS = "latents.json"
SOURCE = "source.json"
DATA_REPORT = "data_report.json"
CHECKPOINTS = "checkpoints"
WEIGHTS = "weights.safetensors"
LOGS = "logs"
CODEC = "codec"
EVALUATION = "evaluation.json"
AOT_REPORT = "aot.json"
AOT_MEMORY_PLOT = "aot.png"
SAMPLES_PAGE = "samples.html"
PREVIEWS = "previews"
PROFILE = "profile"
COMPILATION_CACHE = "compilation_cache"

Config = ml_collections.ConfigDict
"""The resolved configuration of a run, for modules that hand it on without reading it."""

MUTABLE_KEYS = (
    "name",
    "steps",
    "mesh",
    "platform",
    "platform_help",
    "aot_topologies",
    "init_from",
    "profile_steps",
    "compilation_cache",
    "data.dir",
    "data.num_prepare_workers",
    "source.path",
    "codec.path",
    "model.attention",
    "logging",
    "checkpoint",
    "evaluation",
    "sampling",
)
"""Keys and sections of the configuration that may change when a run is resumed.

The fingerprint in source.json decides whether the data at another `source.path` is the same.
"""

DEFAULTS_FOR_OLD_RUNS = {
    "profile_steps": (),
    "compilation_cache": False,
    "aot_topologies": (),
    "checkpoint.keep_period": 0,
    "data.num_streams": 1,
    "data.num_prepare_workers": 1,
    "optimizer.freeze": "",
    "mesh.slices": 1,
    "mesh.context": 1,
}
"""Default values of keys that are missing in runs of earlier versions."""

DOCUMENT_DEFAULTS_FOR_OLD_RUNS = {
    "init_from": "",
    "data.character_coverage": 1.0,
    "data.overflow": "error",
    "model.attention": "xla",
    "sampling.preview_every": 0,
    "sampling.top_k": 0,
    "evaluation.full_metrics": False,
    "evaluation.inception_weights": "",
    "evaluation.clip_dir": "",
}
"""Default values of keys that are missing in earlier runs of document models only."""

_DISK_ERRNOS = (
    errno.ENOSPC,
    errno.EDQUOT,
    errno.EROFS,
    errno.EACCES,
    errno.EPERM,
    errno.ENOTDIR,
)


@contextlib.contextmanager
def lock(workdir: epath.Path) -> Iterator[None]:
    """Lock the folder for this run within a `with` block, and create it if it is missing.

    The lock of a killed process is released.

    Raises:
        UserError: another run holds the lock; or the disk is full or not writable, at the start or
            at any time within the block.
    """
    with _translate_os_errors(workdir):
        try:
            workdir.mkdir(parents=True, exist_ok=True)
        except (FileExistsError, FileNotFoundError) as error:
            raise UserError(
                f"--workdir={workdir}: the folder cannot be created ({error.strerror}). Choose "
                "another folder."
            ) from error
        # Object stores have no locks (see `storage.TrainingLease`). The primary process holds the
        # lock for all processes of a run.
        if storage.is_remote(workdir) or not distributed.is_primary():
            yield
            return
        # A soft lock would outlive a killed process.
        lock = filelock.FileLock(workdir / ".lock", fallback_to_soft=False)
        try:
            acquired = lock.acquire(blocking=False)
        except filelock.Timeout as error:
            raise UserError(
                f"--workdir={workdir}: the folder is in use by another run. Wait for it, or "
                "choose another folder."
            ) from error
        with acquired:
            yield


def check_config(workdir: epath.Path, config: ml_collections.ConfigDict) -> None:
    """Compare a configuration with that of the run in the folder, if there is one.

    Any value may change until the first checkpoint is saved.

    Raises:
        UserError: the folder belongs to a run with another configuration.
    """
    path = workdir / CONFIG
    old = _read_config(path) if path.exists() else {}
    if "models" in old:
        raise UserError(f"--workdir={workdir}: the folder holds a comparison. Choose another one.")
    changed = [
        f"{name}: {was!r} there, {now!r} now"
        for name, was, now in _diff_configs(old, json.loads(config.to_json()))
        if name not in MUTABLE_KEYS and name.split(".")[0] not in MUTABLE_KEYS
    ]
    trained = has_checkpoints(workdir)
    if changed and trained:
        raise UserError(
            f"--workdir={workdir}: the folder holds a run with another configuration "
            f"({'; '.join(changed)}). Choose another --workdir, or use the values of that run."
        )
    if changed or (not trained and old.get("init_from") != config.get("init_from")):
        # These files belong to the old values, or to the run of another `init_from`.
        (workdir / TOKENIZER).unlink(missing_ok=True)
        (workdir / LATENTS).unlink(missing_ok=True)


def has_checkpoints(workdir: epath.Path) -> bool:
    """Return whether the folder has an export or any checkpoint, complete or not."""
    return is_export(workdir) or any((workdir / CHECKPOINTS).glob("*"))


def is_export(workdir: epath.Path) -> bool:
    """Return whether the folder is an export (`training.export`)."""
    return (workdir / WEIGHTS).exists()


def save_config(workdir: epath.Path, config: ml_collections.ConfigDict) -> None:
    """Write the configuration of a run to its folder."""
    text = json.dumps(json.loads(config.to_json()), indent=2) + "\n"
    write_atomically(workdir / CONFIG, text)


def load_config(workdir: epath.Path, field: str = "--workdir") -> ml_collections.ConfigDict:
    """Load the configuration of the run in a folder.

    Args:
        workdir: folder of a run.
        field: the flag or key that contains the path, for the message.

    Raises:
        UserError: there is no configuration.
    """
    path = workdir / CONFIG
    if not path.exists():
        raise UserError(
            f"{field}={workdir}: there is no {CONFIG} in this folder. Give the folder of a run, or "
            "--config to train."
        )
    return ml_collections.ConfigDict(_lists_to_tuples(_read_config(path)))


def flatten_config(config: ml_collections.ConfigDict) -> dict[str, str]:
    """Return all values of the configuration as text, by full key."""
    rows: dict[str, str] = {}
    for name, value in config.items():
        if isinstance(value, ml_collections.ConfigDict):
            rows |= {f"{name}.{key}": text for key, text in flatten_config(value).items()}
        else:
            rows[name] = str(value)
    return rows


def write_atomically(path: epath.Path, data: str | bytes) -> None:
    """Write a file so that readers never see a partial one; only the primary process writes."""
    if not distributed.is_primary():
        return
    data = data.encode() if isinstance(data, str) else data
    if storage.is_remote(path):  # An object is written atomically.
        path.write_bytes(data)
        return
    draft = path.with_name(path.name + ".draft")
    draft.write_bytes(data)
    draft.replace(path)


@contextlib.contextmanager
def _translate_os_errors(workdir: epath.Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        if error.errno not in _DISK_ERRNOS:
            raise
        raise UserError(
            f"{error.filename or workdir}: {error.strerror}. Free some space, make the folder "
            "writable, or choose another --workdir. Earlier checkpoints are complete, and the same "
            "command resumes from the newest one."
        ) from error


def _read_config(path: epath.Path) -> dict[str, Any]:
    """Read a configuration file and upgrade it if an earlier version wrote it."""
    saved = renamed_keys.upgrade(json.loads(path.read_text()))
    # A comparison has neither section; the folders of its runs have configurations to fill.
    if "paradigm" in saved:
        _fill_missing_keys(saved, DEFAULTS_FOR_OLD_RUNS | DOCUMENT_DEFAULTS_FOR_OLD_RUNS)
    elif "autoencoder" in saved:
        _fill_missing_keys(saved, DEFAULTS_FOR_OLD_RUNS)
    return saved


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
