"""Pictures, checked, through a network some at a time."""

from collections.abc import Callable

import numpy as np
from jaxtyping import Float, UInt8

from oneflow_jax.errors import UserError


def validate_images(images: UInt8[np.ndarray, "n h w 3"], network_name: str) -> None:
    """Refuses what is no batch of pictures.

    Raises:
        UserError: other than uint8 pictures in RGB; the message names the network.
    """
    if images.dtype != np.uint8 or images.ndim != 4 or images.shape[3] != 3:
        raise UserError(
            f"{network_name} wants uint8 pictures [n H W 3], not {images.dtype} {images.shape}."
        )


def apply_batched(
    network: Callable[[np.ndarray], np.ndarray],
    rows: np.ndarray,
    batch_size: int,
    num_features: int,
) -> Float[np.ndarray, "n width"]:
    """What a network says of each row, `batch_size` rows at once.

    The last ones are filled up with zeros, so that the network is compiled only once.

    Args:
        network: [batch ...] -> [batch width].
        rows: [n ...]; n may be 0.
        batch_size: 1 or more.
        num_features: numbers that the network gives of a row.

    Raises:
        UserError: the batch is smaller.
    """
    if batch_size < 1:
        raise UserError(f"batch={batch_size}: give 1 or more.")
    said = np.empty((len(rows), num_features), np.float32)
    for start in range(0, len(rows), batch_size):
        some = rows[start : start + batch_size]
        filled = np.zeros((batch_size, *some.shape[1:]), some.dtype)
        filled[: len(some)] = some
        said[start : start + batch_size] = network(filled)[: len(some)]
    return said
