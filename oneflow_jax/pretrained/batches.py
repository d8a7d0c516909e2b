"""Input validation and batched evaluation of pretrained networks."""

from collections.abc import Callable

import numpy as np
from jaxtyping import Float, UInt8

from oneflow_jax.errors import UserError, check_at_least


def validate_images(images: UInt8[np.ndarray, "n h w 3"], network_name: str) -> None:
    """Check that the input is a batch of images.

    Raises:
        UserError: the input is not a batch of uint8 RGB images. The message names the network.
    """
    if images.dtype != np.uint8 or images.ndim != 4 or images.shape[3] != 3:
        raise UserError(
            f"{network_name} needs uint8 images [n H W 3], not {images.dtype} {images.shape}."
        )


def apply_batched(
    network: Callable[[np.ndarray], np.ndarray],
    rows: np.ndarray,
    batch_size: int,
    num_features: int,
) -> Float[np.ndarray, "n width"]:
    """Apply a network to all rows, `batch_size` rows at a time.

    The last batch is padded with zeros, so the network is compiled only once.

    Args:
        network: function [batch ...] -> [batch width].
        rows: array [n ...]; n may be 0.
        batch_size: rows per batch, 1 or more.
        num_features: width of the network's output.

    Raises:
        UserError: `batch_size` is below 1.
    """
    check_at_least("batch_size", batch_size, 1)
    outputs = np.empty((len(rows), num_features), np.float32)
    for start in range(0, len(rows), batch_size):
        batch = rows[start : start + batch_size]
        padded = np.zeros((batch_size, *batch.shape[1:]), batch.dtype)
        padded[: len(batch)] = batch
        outputs[start : start + batch_size] = network(padded)[: len(batch)]
    return outputs
