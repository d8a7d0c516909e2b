"""Arguments of `oneflow import FOLDER`, converted to keys of the configuration."""

from collections.abc import Sequence

from oneflow_jax.errors import UserError


def convert(arguments: Sequence[str]) -> list[str]:
    """Return the arguments with FOLDER, the first one, as the argument of a configuration.

    Raises:
        UserError: FOLDER is missing.
    """
    rest = list(arguments)
    if not rest or rest[0].startswith("-"):
        raise UserError(
            "oneflow import: the folder of the language model is missing. Write it first, as in "
            "oneflow import FOLDER --output=runs/imported."
        )
    return [f"--config=language_model:{rest[0]}", *rest[1:]]
