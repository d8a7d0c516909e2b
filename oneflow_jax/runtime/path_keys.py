"""The keys of a configuration that hold paths, and their expansion.

`~` is expanded before a path is used. A saved configuration has absolute paths, so the run can be
used from any working folder. Configurations that earlier versions saved may have relative paths.
"""

import os
from collections.abc import Callable, Iterator

import ml_collections

from oneflow_jax.errors import UserError
from oneflow_jax.runtime import storage

PATH_KEYS = (
    "data.dir",
    "source.path",
    "init_from",
    "codec.path",
    "evaluation.inception_weights",
    "evaluation.clip_dir",
)
"""Keys that hold the path of a file or a folder. A comparison has these keys for each model."""


def expand_user(config: ml_collections.ConfigDict) -> ml_collections.ConfigDict:
    """Return a copy of the configuration with `~` expanded in all paths.

    Raises:
        UserError: a path begins with `~name`, but no user has this name.
    """
    return _replace_paths(config, storage.expand_user)


def make_absolute(config: ml_collections.ConfigDict) -> ml_collections.ConfigDict:
    """Return a copy of the configuration with all local paths absolute and `~` expanded.

    Raises:
        UserError: a path begins with `~name`, but no user has this name.
    """
    return _replace_paths(config, make_path_absolute)


def make_path_absolute(path: str, field: str) -> str:
    """Return a local path as an absolute path with `~` expanded; leave other paths unchanged."""
    path = storage.expand_user(path, field)
    return path if storage.is_remote(path) else os.path.abspath(path)


def check_relative(saved: ml_collections.ConfigDict, config: ml_collections.ConfigDict) -> None:
    """Check that the relative paths of a saved configuration exist in the working folder.

    Args:
        saved: the configuration as it was saved, perhaps with relative paths.
        config: the configuration with the overrides of this call.

    Raises:
        UserError: a saved relative path does not exist, and no override replaces it.
    """
    changed = dict(iter_paths(config))
    for name, path in iter_paths(saved):
        relative = not storage.is_remote(path) and not path.startswith(("/", "~"))
        if relative and changed.get(name) == path and not os.path.exists(path):
            raise UserError(
                f"{name}={path}: there is no such file or folder.{describe(path, name)}"
            )


def describe(path: str, field: str) -> str:
    """Return advice for a message about a missing file if its path is relative, else ""."""
    if storage.is_remote(path) or os.path.isabs(path):
        return ""
    return (
        f" The path is relative to the working folder, which is {os.getcwd()}; earlier versions "
        f"saved such paths. Change to the folder in which the run was started, or give the "
        f"absolute path with --config.{field}=PATH."
    )


def iter_paths(config: ml_collections.ConfigDict) -> Iterator[tuple[str, str]]:
    """Yield each key that holds a path, with its path; skip empty paths."""
    for name in PATH_KEYS:
        section, _, key = name.rpartition(".")
        values = config.get(section, {}) if section else config
        path = values.get(key) if hasattr(values, "get") else None
        if isinstance(path, str) and path and not _is_dataset_name(config, name, path):
            yield name, path
    for prefix, inner in _iter_inner(config):
        yield from ((f"{prefix}.{name}", path) for name, path in iter_paths(inner))


def _iter_inner(
    config: ml_collections.ConfigDict,
) -> Iterator[tuple[str, ml_collections.ConfigDict]]:
    """Yield the configurations of runs inside a comparison, with the prefixes of their keys."""
    if "models" not in config:
        return
    yield from ((f"models.{name}", model) for name, model in config.models.items())
    for name in ("codec", "text_model"):
        if name in config:
            yield name, config[name]


def _is_dataset_name(config: ml_collections.ConfigDict, name: str, path: str) -> bool:
    """Return whether `source.path` is the name of a TFDS data set and not a path."""
    is_tfds = name == "source.path" and config.source.get("format") == "tfds"
    return is_tfds and not os.path.exists(os.path.expanduser(path))


def _replace_paths(
    config: ml_collections.ConfigDict, replace: Callable[[str, str], str]
) -> ml_collections.ConfigDict:
    new = config.copy_and_resolve_references()
    locked = new.is_locked
    with new.unlocked():
        new.update_from_flattened_dict(
            {name: replace(path, name) for name, path in iter_paths(new)}
        )
    return new.lock() if locked else new
