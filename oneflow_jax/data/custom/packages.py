"""Packages that only some kinds of data need: requirements-data.txt."""

import importlib
import types

from oneflow_jax.errors import UserError


def require(module: str, package: str, kind: str) -> types.ModuleType:
    """The module, imported.

    Args:
        module: its name.
        package: what pip calls it.
        kind: of data, for the message.

    Raises:
        UserError: it is not installed.
    """
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise UserError(
            f"source.kind={kind!r} needs {package}: pip install -r requirements-data.txt (or pip "
            f"install {package})"
        ) from error
