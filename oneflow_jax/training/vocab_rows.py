"""Parameters of a model whose vocabulary grows: one row of each vocabulary axis per token id.

Parameters with a vocabulary axis are the token embeddings, and the kernels and biases of the heads
that predict tokens. The kept ids keep their rows to the last bit.
"""

import dataclasses

import flax.linen as nn
import jax
import numpy as np

from oneflow_jax.nn.lora import VOCAB_AXIS
from oneflow_jax.runtime import distributed
from oneflow_jax.shapes import Array, PyTree

NOISE = 0.02
"""Standard deviation of the noise of an unknown token, as a fraction of that of all rows."""


@dataclasses.dataclass(frozen=True)
class RowPlan:
    """Rows of the smaller vocabulary whose mean is each row of the larger one.

    Attributes:
        sources: for each new row, the old rows to average.
        noisy: new rows to which noise is added, so that no two of them are equal.
        old_size: number of old rows.
        seed: RNG seed of the noise.
    """

    sources: tuple[tuple[int, ...], ...]
    noisy: tuple[int, ...]
    old_size: int
    seed: int

    @property
    def size(self) -> int:
        """Number of new rows."""
        return len(self.sources)


def plan_rows(
    splits: list[tuple[int, ...]],
    *,
    num_text: int,
    num_codes: int,
    old_size: int,
    size: int,
    seed: int,
) -> RowPlan:
    """Plan the rows of a vocabulary that was extended by text tokens.

    Args:
        splits: for each added token, the ids of the old tokens that it replaces; () if unknown.
        num_text: number of old ids up to the last text token, including special ids.
        num_codes: number of image codes, whose ids follow those of text.
        old_size: old number of rows, including padding.
        size: new number of rows, including padding.
        seed: RNG seed of the noise.

    Returns:
        A plan in which old text ids keep their rows, image codes move behind the added tokens, an
        added token is the mean of the tokens that it replaces, and an unknown one is the mean of
        all old rows of text. New padding is the mean of the old padding or, without any, of text.
    """
    text = tuple(range(num_text))
    codes = [(num_text + code,) for code in range(num_codes)]
    padding = tuple(range(num_text + num_codes, old_size)) or text
    sources = [*((old,) for old in text), *(split or text for split in splits), *codes]
    sources += [padding] * (size - len(sources))
    noisy = tuple(num_text + n for n, split in enumerate(splits) if not split)
    return RowPlan(tuple(sources), noisy, old_size, seed)


def find_vocab_axes(boxed: PyTree) -> PyTree:
    """Return the vocabulary axis of each parameter, -1 for parameters without one.

    Args:
        boxed: parameters, or their shapes, with linen's partitioning metadata.
    """

    def find(leaf: object) -> int:
        names = leaf.names if isinstance(leaf, nn.LogicallyPartitioned) else ()
        return names.index(VOCAB_AXIS) if VOCAB_AXIS in names else -1

    return jax.tree.map(find, boxed, is_leaf=lambda x: isinstance(x, nn.LogicallyPartitioned))


def shrink_shapes(like: PyTree, axes: PyTree, size: int) -> PyTree:
    """Return shapes whose vocabulary axes have the size of the smaller vocabulary.

    Args:
        like: shapes, dtypes and shardings of the parameters with the larger vocabulary.
        axes: the result of `find_vocab_axes`.
        size: number of rows of the smaller vocabulary, including padding.
    """

    def shrink(leaf: jax.ShapeDtypeStruct, axis: int) -> jax.ShapeDtypeStruct:
        shape = [size if n == axis else length for n, length in enumerate(leaf.shape)]
        return jax.ShapeDtypeStruct(tuple(shape), leaf.dtype, sharding=leaf.sharding)

    return jax.tree.map(shrink, like, axes)


def extend_rows(params: PyTree, axes: PyTree, plan: RowPlan) -> PyTree:
    """Return the parameters with the rows of `plan`, with unchanged shardings."""

    def extend(leaf: Array, axis: int) -> Array:
        if axis < 0:
            return leaf
        old = np.moveaxis(distributed.to_host(leaf), axis, 0)
        new = np.ascontiguousarray(np.moveaxis(_average(old, plan), 0, axis))
        return jax.make_array_from_callback(new.shape, leaf.sharding, lambda part: new[part])

    return jax.tree.map(extend, params, axes)


def _average(old: np.ndarray, plan: RowPlan) -> np.ndarray:
    cache = {rows: np.mean(old[list(rows)], axis=0, dtype=np.float64) for rows in {*plan.sources}}
    new = np.stack([cache[rows] for rows in plan.sources])
    noise = np.random.default_rng(plan.seed).standard_normal((len(plan.noisy), *old.shape[1:]))
    new[list(plan.noisy)] += NOISE * np.std(old, dtype=np.float64) * noise
    return new.astype(old.dtype)
