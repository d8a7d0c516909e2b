"""Pictures, checked, through a network some at a time."""

from collections.abc import Callable

import numpy as np
from jaxtyping import Float, UInt8

from oneflow_jax.errors import UserError


def check(pictures: UInt8[np.ndarray, "n h w 3"], network: str) -> None:
    """Refuses what is no batch of pictures.

    Raises:
        UserError: other than uint8 pictures in RGB; the message names the network.
    """
    if pictures.dtype != np.uint8 or pictures.ndim != 4 or pictures.shape[3] != 3:
        raise UserError(
            f"{network} wants uint8 pictures [n H W 3], not {pictures.dtype} {pictures.shape}."
        )


def through(
    network: Callable[[np.ndarray], np.ndarray], rows: np.ndarray, batch: int, width: int
) -> Float[np.ndarray, "n width"]:
    """What a network says of each row, `batch` rows at once.

    The last ones are filled up with zeros, so that the network is compiled only once.

    Args:
        network: [batch ...] -> [batch width].
        rows: [n ...]; n may be 0.
        batch: 1 or more.
        width: numbers that the network gives of a row.

    Raises:
        UserError: the batch is smaller.
    """
    if batch < 1:
        raise UserError(f"batch={batch}: give 1 or more.")
    said = np.empty((len(rows), width), np.float32)
    for start in range(0, len(rows), batch):
        some = rows[start : start + batch]
        filled = np.zeros((batch, *some.shape[1:]), some.dtype)
        filled[: len(some)] = some
        said[start : start + batch] = network(filled)[: len(some)]
    return said
