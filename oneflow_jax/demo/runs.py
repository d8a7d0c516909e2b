"""Models of the page by name: given folders, the shipped one, and those in the folder `runs`."""

import os
import pathlib
from collections.abc import Sequence

from oneflow_jax.errors import UserError
from oneflow_jax.runtime import storage, workdir
from oneflow_jax.shipped import PRETRAINED, SHIPPED

RUNS = pathlib.Path("runs")
"""Folder whose runs and exports the page offers, in the folder where the server starts."""


def find_models(folders: Sequence[str | os.PathLike[str]]) -> dict[str, str]:
    """Return the folder of each model by its name, the given ones first, then the shipped one.

    A model has the name of its folder; of several folders with one name, all but the first have
    their path as name.

    Args:
        folders: folders of runs or exports that the page must offer; the service checks them.

    Raises:
        UserError: the path of a folder is not possible.
    """
    models: dict[str, str] = {}
    for folder in folders:
        path = storage.resolve_path(folder, "workdir")
        _add(models, path.name, str(path))
    _add(models, SHIPPED, str(PRETRAINED))
    for path in sorted(RUNS.glob("*/")):
        if str(path.resolve()) not in models.values() and _has_model(path):
            _add(models, path.name, str(path.resolve()))
    return models


def _add(models: dict[str, str], name: str, folder: str) -> None:
    models[folder if name in models else name] = folder


def _has_model(path: os.PathLike[str]) -> bool:
    """Return whether a folder has a document model; False for codecs and comparisons, too."""
    try:
        config = workdir.load_config(storage.resolve_path(path, "workdir"), field="workdir")
    except UserError:
        return False
    return "paradigm" in config and workdir.has_checkpoints(path)
