"""Settings on a command line: `--set sampling.guidance=2.0 "paradigm.clock=('power', 3.0)"`."""

import ast
from collections.abc import Sequence

import ml_collections

from oneflow_jax.errors import UserError


def apply_overrides(config: ml_collections.ConfigDict, assignments: Sequence[str]) -> None:
    """Changes values of the configuration.

    Args:
        config: changed in place, and locked: a misspelt field would else be a new one.
        assignments: each is field=value, the value a Python literal or a word.

    Raises:
        UserError: there is no such field, or its values are of another type.
    """
    config.lock()
    for setting in assignments:
        field, equals, value = setting.partition("=")
        if not equals:
            raise UserError(f"--set {setting}: give field=value, as in sampling.guidance=2.0.")
        try:
            given = ast.literal_eval(value)
        except (ValueError, SyntaxError):
            given = value  # a word
        try:
            config.update_from_flattened_dict({field: given})
        except (KeyError, TypeError) as error:
            raise UserError(f"--set {setting}: {error.args[0]}") from error
