"""Import of optional packages that only some data formats need; see requirements-data.txt."""

import importlib
import types

from oneflow_jax.errors import UserError


def require(module: str, package: str, kind: str) -> types.ModuleType:
    """Import a module and return it.

    Args:
        module: name of the module.
        package: name of its pip package.
        kind: data format that needs the module, for the error message.

    Raises:
        UserError: the package is not installed.
    """
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise UserError(
            f"source.format={kind!r} needs {package}. Run pip install -r requirements-data.txt "
            f"(or pip install {package})."
        ) from error
