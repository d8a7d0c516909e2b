"""LoRA (Hu et al., 2021): low-rank factors beside the matrices of the backbone.

The factors are parameters of their own, in a tree under the top-level name `lora`. The network does
not know them: `LoRA.merge` adds each product A B to its matrix before the network is applied. The
tree also has the changes of the rows of added tokens, which no low-rank factor could learn.
"""

import dataclasses
import math

import flax.linen as nn
import jax
import jax.numpy as jnp
from flax import traverse_util

from oneflow_jax.shapes import Array, Key, PyTree

NAME = "lora"
"""Top-level name of the trained parameters."""

VOCAB_AXIS = "vocab"
"""Logical name of the axis of token ids."""


@dataclasses.dataclass(frozen=True)
class LoRA:
    """The trained part of a model whose other parameters are frozen.

    Attributes:
        rank: rank of the products A B; 0 trains all parameters and adds none.
        new_ids: token ids whose rows are trained, in the embeddings and in the heads.
    """

    rank: int = 0
    new_ids: range = range(0)

    def add(self, key: Key[Array, ""], params: PyTree) -> PyTree:
        """Return the parameters with the factors, all boxed in linen's partitioning metadata.

        A is random with variance 1/inputs, and B is 0. So the model stays the same at first.

        Args:
            key: the key of A.
            params: boxed parameters of the network.
        """
        if not self.rank:
            return params
        factors = {}
        flat = traverse_util.flatten_dict(params)
        for number, (path, box) in enumerate(flat.items()):
            if path[0] == "backbone" and path[-1] == "kernel":
                a, b = self._init_factors(jax.random.fold_in(key, number), path, box)
                factors |= {(*path, "a"): a, (*path, "b"): b}
            elif VOCAB_AXIS in box.names and self.new_ids:
                factors[path] = self._init_rows(box)
        return params | {NAME: traverse_util.unflatten_dict(factors)}

    def merge(self, params: PyTree) -> PyTree:
        """Return the network's parameters, with all factors added and without their tree.

        Parameters that have no such tree are returned unchanged.
        """
        if NAME not in params:
            return params
        base = {name: tree for name, tree in params.items() if name != NAME}
        factors = traverse_util.flatten_dict(params[NAME])
        flat = traverse_util.flatten_dict(base)
        for path, leaf in flat.items():
            if (*path, "a") in factors:
                product = _multiply(factors[*path, "a"], factors[*path, "b"])
                flat[path] = leaf + product.reshape(leaf.shape)
            elif path in factors:
                flat[path] = self._add_rows(leaf, factors[path])
        return traverse_util.unflatten_dict(flat)

    def freeze(self, pattern: str) -> str:
        """Return a regular expression of frozen parameters: also the network's own, if rank > 0.

        Args:
            pattern: regular expression of parameters that are frozen anyway; "" for none.
        """
        if not self.rank:
            return pattern
        return rf"^(?!{NAME}/)" + (f"|{pattern}" if pattern else "")

    def _init_factors(
        self, key: Key[Array, ""], path: tuple[str, ...], box: nn.LogicallyPartitioned
    ) -> tuple[nn.LogicallyPartitioned, nn.LogicallyPartitioned]:
        shape, names = box.value.shape, box.names
        # Axis 0 is that of the layers. The output projection of attention contracts two axes.
        split = 3 if path[-2] == "out" and len(shape) == 4 else 2
        std = 1 / math.sqrt(math.prod(shape[1:split]))
        a = std * jax.random.normal(key, (*shape[:split], self.rank), box.value.dtype)
        b = jnp.zeros((shape[0], self.rank, *shape[split:]), box.value.dtype)
        return (
            nn.LogicallyPartitioned(a, (*names[:split], None)),
            nn.LogicallyPartitioned(b, (names[0], None, *names[split:])),
        )

    def _init_rows(self, box: nn.LogicallyPartitioned) -> nn.LogicallyPartitioned:
        axis = box.names.index(VOCAB_AXIS)
        shape = (*box.value.shape[:axis], len(self.new_ids), *box.value.shape[axis + 1 :])
        # The number of added tokens need not divide into the shards of the vocabulary.
        names = tuple(None if name == VOCAB_AXIS else name for name in box.names)
        return nn.LogicallyPartitioned(jnp.zeros(shape, box.value.dtype), names)

    def _add_rows(self, leaf: Array, change: Array) -> Array:
        # Only the vocabulary axis differs, as there are always ids that are not new.
        pairs = zip(leaf.shape, change.shape, strict=True)
        (axis,) = (n for n, (whole, part) in enumerate(pairs) if whole != part)
        place = (slice(None),) * axis + (slice(self.new_ids.start, self.new_ids.stop),)
        return leaf.at[place].add(change)


def _multiply(a: Array, b: Array) -> Array:
    """Multiply the factors of each layer: A `[N *inputs r]` and B `[N r *outputs]`."""
    layers, rank = a.shape[0], a.shape[-1]
    return a.reshape(layers, -1, rank) @ b.reshape(layers, rank, -1)
