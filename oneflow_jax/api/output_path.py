"""Paths of files that users save."""

import os
import pathlib
from collections.abc import Sequence

from oneflow_jax.errors import UserError


def prepare(path: str | os.PathLike[str], endings: Sequence[str], advice: str = "") -> pathlib.Path:
    """Check the ending of a path, create missing folders, and return the path.

    Args:
        path: where the user wants the file.
        endings: the endings that are allowed, with their dots.
        advice: a sentence for the message of the error, about other endings.

    Raises:
        UserError: the path has none of the endings.
    """
    path = pathlib.Path(path)
    if path.suffix not in endings:
        message = f"path={str(path)!r}: unknown format. End it in {', '.join(endings)}."
        raise UserError(f"{message} {advice}".rstrip())
    path.parent.mkdir(parents=True, exist_ok=True)
    return path
