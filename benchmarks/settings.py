"""Configuration overrides on the command line: `--set sampling.image_guidance_scale=2.0`."""

import ast
from collections.abc import Sequence

import ml_collections

from oneflow_jax.errors import UserError


def apply_overrides(config: ml_collections.ConfigDict, assignments: Sequence[str]) -> None:
    """Apply overrides to a configuration.

    Args:
        config: configuration to change in place. The function locks it, so that a misspelt key is
            an error and not a new key.
        assignments: overrides of the form key=value; a value is a Python literal or a plain string.

    Raises:
        UserError: an override has no "=", its key does not exist, or its value has another type.
    """
    config.lock()
    for setting in assignments:
        field, equals, value = setting.partition("=")
        if not equals:
            raise UserError(
                f"--set {setting}: there is no '='. Give key=value, as in "
                "sampling.image_guidance_scale=2.0."
            )
        try:
            parsed = ast.literal_eval(value)
        except (ValueError, SyntaxError):
            parsed = value  # A value that is not a Python literal is a plain string.
        try:
            config.update_from_flattened_dict({field: parsed})
        except (KeyError, TypeError) as error:
            raise UserError(f"--set {setting}: {error.args[0]}") from error
