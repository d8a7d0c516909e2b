"""Sampling plans as pytrees: their values are arguments of a compiled program.

The leaves of a plan are numbers that a compiled program takes as arguments: times, guidance scales,
temperature. Everything else is the structure of the plan, for which `jax.jit` compiles a program:
the solver, the number of steps, and which operations the sampler runs. A number at its neutral
value is part of the structure too, because the sampler then omits an operation, such as the second
forward pass of guidance at scale 1. So a new scale needs no new program, unless it is the first
one other than 1.
"""

import dataclasses
from collections.abc import Callable, Iterable, Mapping

import jax
import numpy as np

from oneflow_jax.shapes import Array, Float, Int

Number = int | float | Float[Array, ""] | Int[Array, ""]
"""A number of a plan: a Python number, or inside a compiled program a traced argument."""

Times = tuple[float, ...] | Float[Array, "T"]
"""Times of a plan: Python numbers, or inside a compiled program a traced argument."""


def is_neutral(value: Number, neutral: float) -> bool:
    """Return whether a number has its neutral value, so that the sampler omits an operation.

    An argument of a compiled program is never neutral, since its value is not known yet.
    """
    return isinstance(value, int | float) and value == neutral


def register_plan(
    *, arguments: tuple[str, ...], neutral: Mapping[str, float] | None = None
) -> Callable[[type], type]:
    """Return a class decorator that makes a frozen dataclass a pytree.

    Args:
        arguments: fields that are leaves, or trees of leaves; a tuple becomes one array.
        neutral: fields that are leaves unless they have the given neutral value. All other fields
            are part of the tree structure.
    """
    neutral = neutral or {}

    def is_argument(name: str, value: object) -> bool:
        return name in arguments or (name in neutral and not is_neutral(value, neutral[name]))

    def register(cls: type) -> type:
        names = [field.name for field in dataclasses.fields(cls)]

        def flatten(plan: object) -> tuple[list[object], tuple[tuple[str, object], ...]]:
            fields = [(name, getattr(plan, name)) for name in names]
            leaves = [_to_leaf(value) for name, value in fields if is_argument(name, value)]
            structure = ((name, ... if is_argument(name, x) else x) for name, x in fields)
            return leaves, tuple(structure)

        def unflatten(
            structure: tuple[tuple[str, object], ...], leaves: Iterable[object]
        ) -> object:
            # Bypass __init__: it checks the ranges of values, which traced arguments do not have.
            plan, remaining = object.__new__(cls), iter(leaves)
            for name, value in structure:
                object.__setattr__(plan, name, next(remaining) if value is ... else value)
            return plan

        jax.tree_util.register_pytree_node(cls, flatten, unflatten)
        return cls

    return register


def _to_leaf(value: object) -> object:
    return np.asarray(value, np.float32) if isinstance(value, tuple) else value
