"""Paths of files that users save."""

import os
import pathlib
from collections.abc import Sequence

from oneflow_jax.errors import UserError


def prepare(path: str | os.PathLike[str], endings: Sequence[str]) -> pathlib.Path:
    """Check the ending of a path, create missing folders, and return the path.

    Raises:
        UserError: the path has none of the endings.
    """
    path = pathlib.Path(path)
    if path.suffix not in endings:
        raise UserError(f"path={str(path)!r}: unknown format. End it in {', '.join(endings)}.")
    path.parent.mkdir(parents=True, exist_ok=True)
    return path
