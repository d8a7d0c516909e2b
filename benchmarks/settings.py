"""Settings on a command line: `--set sampling.guidance=2.0 "paradigm.clock=('power', 3.0)"`."""

import ast
from collections.abc import Sequence

import ml_collections


def apply(config: ml_collections.ConfigDict, settings: Sequence[str]) -> None:
    """Changes values of the configuration.

    Args:
        config: changed in place.
        settings: each is field=value, the value a Python literal or a word.

    Raises:
        KeyError: there is no such field.
    """
    for setting in settings:
        field, _, value = setting.partition("=")
        try:
            given = ast.literal_eval(value)
        except (ValueError, SyntaxError):
            given = value  # a word
        config.update_from_flattened_dict({field: given})
