"""Checksums of the arrays of a checkpoint, and a check that all values are finite.

The storage format of arrays does not detect every changed byte. So a checkpoint also has a checksum
of each array, which is compared when the array is restored. Checksums do not depend on the
sharding.
"""

import jax
import jax.numpy as jnp

from oneflow_jax.errors import UserError
from oneflow_jax.shapes import Array, Bool, Int, PyTree

_WORDS = {1: jnp.uint8, 2: jnp.uint16, 4: jnp.uint32, 8: jnp.uint32}
"""Unsigned integer type for each number of bytes per element; arrays are summed as this type."""


def compute(tree: PyTree) -> dict[str, int]:
    """Return the checksums of a tree's arrays by path; every process must call this."""
    sums = jax.device_get(_sum_bits(_by_path(tree)))
    return {path: int(value) for path, value in sums.items()}


def check_finite(trees: dict[str, PyTree]) -> None:
    """Check that all arrays of the trees are finite; every process must call this.

    Args:
        trees: the trees; each key describes the content of its tree in the error message.

    Raises:
        UserError: an array has a value that is NaN or infinite.
    """
    finite = jax.device_get(_all_finite(_by_path(trees)))
    wrong = sorted(path for path, value in finite.items() if not value)
    if wrong:
        raise UserError(
            f"{wrong[0]} (one of {len(wrong)} such arrays) is not finite, so no checkpoint was "
            "saved. The earlier checkpoints are complete. Lower optimizer.learning_rate or "
            "optimizer.max_grad_norm, and run the same command again to resume from the newest one."
        )


def _by_path(tree: PyTree) -> dict[str, Array]:
    return {jax.tree_util.keystr(path): leaf for path, leaf in jax.tree.leaves_with_path(tree)}


@jax.jit
def _sum_bits(arrays: dict[str, Array]) -> dict[str, Int[Array, ""]]:
    """Sum the bits of each array as unsigned integers, modulo 2^32."""

    def total(array: Array) -> Int[Array, ""]:
        array = array.astype(jnp.uint8) if array.dtype == jnp.bool_ else array
        bits = jax.lax.bitcast_convert_type(array, _WORDS[array.dtype.itemsize])
        return jnp.sum(bits, dtype=jnp.uint32)

    return jax.tree.map(total, arrays)


@jax.jit
def _all_finite(arrays: dict[str, Array]) -> dict[str, Bool[Array, ""]]:
    return {
        path: jnp.isfinite(array).all()
        for path, array in arrays.items()
        if jnp.issubdtype(array.dtype, jnp.inexact)
    }
