"""Sampling plans as pytrees: their values are arguments of a compiled program.

The leaves of a plan are numbers that a compiled program takes as arguments: times, guidance scales,
temperature. Everything else is the structure of the plan, for which `jax.jit` compiles a program:
the solver, and which operations the sampler runs. A number at its neutral
value is part of the structure too, because the sampler then omits an operation, such as the second
forward pass of guidance at scale 1. So a new scale needs no new program, unless it is the first
one other than 1.
"""

import dataclasses
from collections.abc import Callable, Iterable, Mapping

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np

from oneflow_jax.shapes import Array, Float, Int

Number = int | float | Float[Array, ""] | Int[Array, ""]
"""A number of a plan: a Python number, or inside a compiled program a traced argument."""

MIN_TIMES = 64
"""Minimum length of the times in a compiled program; plans of fewer steps share programs."""


@flax.struct.dataclass
class PaddedTimes:
    """Times of a plan as arguments of a compiled program.

    Attributes:
        values: start times of the steps, followed by ones.
        count: number of steps, below the length of `values`.
    """

    values: Float[Array, "P"]
    count: Int[Array, ""]


Times = tuple[float, ...] | PaddedTimes
"""Times of a plan: Python numbers, or inside a compiled program traced arguments."""


def step_times(times: Times) -> tuple[Float[Array, "P"], Int[Array, ""] | int]:
    """Return the start times of the steps, followed by 1 or more ones, and the number of steps.

    The number is an array inside a compiled program whose argument is the plan.
    """
    if isinstance(times, PaddedTimes):
        return times.values, times.count
    return jnp.asarray([*times, 1.0], jnp.float32), len(times)


def count_steps(times: Times) -> Int[Array, ""] | int:
    """Return the number of steps."""
    return times.count if isinstance(times, PaddedTimes) else len(times)


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
        arguments: fields that are leaves, or trees of leaves; a tuple becomes `PaddedTimes`.
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
    if not isinstance(value, tuple):
        return value
    length = max(MIN_TIMES, 1 << len(value).bit_length())
    values = np.ones(length, np.float32)
    values[: len(value)] = value
    return PaddedTimes(values, np.int32(len(value)))
