"""Parameters that earlier versions saved, and that this version cannot load."""

import os
from collections.abc import Collection

from oneflow_jax.errors import UserError

TEXT_TOWER = "backbone/blocks/text/"
"""Beginning of the names of the text tower's parameters, in a network with two towers."""


def check_towers(
    path: os.PathLike[str] | str, stored: Collection[str], expected: Collection[str]
) -> None:
    """Check that a stored text model does not have the second tower of earlier versions.

    Args:
        path: the path of the parameters, for the message.
        stored: names of the stored parameters.
        expected: names of the parameters of the network.

    Raises:
        UserError: only the stored model has two towers.
    """
    stored_has, expected_has = (
        any(name.startswith(TEXT_TOWER) for name in names) for names in (stored, expected)
    )
    if stored_has and not expected_has:
        raise UserError(
            f"{path}: an earlier version saved this text model with two towers, but the paradigm "
            "language has one now. Train it again in another --workdir, or import the language "
            "model again."
        )
