"""The keys of a configuration that hold paths.

`~` is expanded before a path is used. A saved configuration has absolute paths, so the run can be
used from any working folder. Configurations that earlier versions saved may have relative paths.
"""

import os
from collections.abc import Iterator, Mapping
from typing import Any

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

SHIPPED_CODEC = "shipped"
"""Value of `codec.path` for the autoencoder that comes with the package."""


def make_path_absolute(path: str, field: str) -> str:
    """Return a local path as an absolute path with `~` expanded; leave other paths unchanged."""
    path = storage.expand_user(path, field)
    return path if storage.is_remote(path) else os.path.abspath(path)


def check_relative(saved: Mapping[str, Any], config: Mapping[str, Any]) -> None:
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


def iter_paths(config: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Yield each key that holds a path, with its path; skip empty paths."""
    for name in PATH_KEYS:
        section, _, key = name.rpartition(".")
        values = config.get(section, {}) if section else config
        path = values.get(key) if hasattr(values, "get") else None
        if isinstance(path, str) and path and not _is_name(config, name, path):
            yield name, path
    for prefix, inner in _iter_inner(config):
        yield from ((f"{prefix}.{name}", path) for name, path in iter_paths(inner))


def _iter_inner(
    config: Mapping[str, Any],
) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Yield the configurations of runs inside a comparison, with the prefixes of their keys."""
    if "models" not in config:
        return
    yield from ((f"models.{name}", model) for name, model in config["models"].items())
    for name in ("codec", "text_model"):
        if name in config:
            yield name, config[name]


def _is_name(config: Mapping[str, Any], name: str, path: str) -> bool:
    """Return whether the value of a key is the name of a TFDS data set or of a shipped model."""
    if name == "codec.path":
        return path == SHIPPED_CODEC
    is_tfds = name == "source.path" and config["source"].get("format") == "tfds"
    return is_tfds and not os.path.exists(os.path.expanduser(path))
