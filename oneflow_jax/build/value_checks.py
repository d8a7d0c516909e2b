"""Checks of one value of a configuration, from which `values` builds the table of all keys."""

import dataclasses
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np

from oneflow_jax.data import image_shapes, prompt
from oneflow_jax.errors import (
    INT32_MAX,
    UserError,
    check_fraction,
    check_integer,
    check_one_of,
    check_real,
)
from oneflow_jax.flows import time_samplers
from oneflow_jax.nn import rope

Check = Callable[[str, object], None]
"""A function that takes a key and a value, and raises UserError if the value is not allowed."""


def integer(minimum: int, maximum: int = INT32_MAX) -> Check:
    """Return a check that a value is an integer from `minimum` to `maximum`."""
    return lambda field, value: check_integer(field, value, minimum, maximum)


def real(**limits: Any) -> Check:  # noqa: ANN401 - arguments of check_real
    """Return a check that a value is a finite number within `limits` (see `check_real`)."""
    return lambda field, value: check_real(field, value, **limits)


def fraction(**limits: bool) -> Check:
    """Return a check that a value is from 0 to 1; `limits` may exclude 0 or 1."""
    return lambda field, value: check_fraction(field, value, **limits)


def one_of(choices: Iterable[object]) -> Check:
    """Return a check that a value is one of the choices."""
    return lambda field, value: check_one_of(field, value, choices)


def optional(check: Check) -> Check:
    """Return a check that also allows None."""
    return lambda field, value: None if value is None else check(field, value)


def items(check: Check) -> Check:
    """Return a check that a value is a tuple or list whose items pass `check`."""

    def check_items(field: str, value: object) -> None:
        if not isinstance(value, tuple | list):
            raise UserError(f"{field}={value!r}: not a tuple. Give values in parentheses.")
        for index, item in enumerate(value):
            check(f"{field}[{index}]", item)

    return check_items


def text(field: str, value: object) -> None:
    """Check that a value is text."""
    if not isinstance(value, str):
        raise UserError(f"{field}={value!r}: not text. Give a string in quotes.")


def prompt_text(field: str, value: object) -> None:
    """Check the syntax of a prompt; otherwise a mistake would appear only after training."""
    _check_syntax(field, value, prompt.split)


def aspect_ratio(field: str, value: object) -> None:
    """Check an aspect ratio such as "3:2"."""
    _check_syntax(field, value, image_shapes.parse_ratio)


def _check_syntax(field: str, value: object, parse: Callable[[str], object]) -> None:
    text(field, value)
    try:
        parse(value)
    except UserError as error:
        raise UserError(f"{field}={value!r}: {error}") from error


def path(field: str, value: object) -> None:
    """Check that a value is a path: a string that is not empty."""
    text(field, value)
    if not value.strip():
        raise UserError(f"{field}={value!r}: the path is empty. Give the path of a folder.")


def switch(field: str, value: object) -> None:
    """Check that a value is True or False."""
    if not isinstance(value, bool | np.bool_):
        raise UserError(f"{field}={value!r}: not a boolean. Give True or False.")


def mesh_size(field: str, value: object) -> None:
    """Check the size of a mesh axis: a positive integer, or -1 for the remaining devices."""
    check_integer(field, value, -1)
    if value == 0:
        raise UserError(f"{field}=0: not a size. Give 1 or more, or -1 for the remaining devices.")


def time_sampler(field: str, value: object) -> None:
    """Check a time sampler: its name, and the numbers that follow the name."""
    if not isinstance(value, tuple | list) or not value:
        raise UserError(
            f"{field}={value!r}: no time sampler. Give its name and numbers, e.g. ('power', 2.0)."
        )
    name, *numbers = value
    check_one_of(field, name, time_samplers.TIME_SAMPLERS)
    # A time sampler that was added from outside the package may take any numbers.
    _check_numbers(field, value, TIME_SAMPLER_ARGUMENTS.get(name, (real(),) * len(numbers)))


def _check_numbers(field: str, value: Sequence[Any], checks: Sequence[Check]) -> None:
    """Check the numbers that follow a name: one check for each number."""
    name, *numbers = value
    if len(numbers) != len(checks):
        raise UserError(
            f"{field}={value!r}: it has {len(numbers)} numbers. Give {len(checks)} after {name!r}."
        )
    for index, (check, number) in enumerate(zip(checks, numbers, strict=True), 1):
        check(f"{field}[{index}]", number)


def text_time_sampler(field: str, value: object) -> None:
    """Check a time sampler, or (), which stands for the value of `paradigm.time_sampler`."""
    if value not in ((), []):
        time_sampler(field, value)


def rope_scaling(field: str, value: object) -> None:
    """Check a scaling of rotary frequencies: (), or its name and the numbers that follow it."""
    if value in ((), []):
        return
    if not isinstance(value, tuple | list):
        raise UserError(f"{field}={value!r}: not a tuple. Give a name and numbers, or ().")
    check_one_of(field, value[0], rope.SCALINGS)
    _check_numbers(field, value, (POSITIVE,) * len(dataclasses.fields(rope.SCALINGS[value[0]])))


def check_undeclared(field: str, value: object) -> None:
    """Check a value whose key is in no table, such as a user's key: a float must be finite."""
    if isinstance(value, float | np.floating):
        check_real(field, value)


COUNT, SIZE_OR_0 = integer(1), integer(0)
POSITIVE, NOT_NEGATIVE = real(minimum=0, allow_minimum=False), real(minimum=0)
INSIDE = fraction(allow_zero=False, allow_one=False)

TIME_SAMPLER_ARGUMENTS: dict[str, tuple[Check, ...]] = {
    "power": (POSITIVE,),
    "logit_normal": (real(), POSITIVE),
    "information": (real(), POSITIVE, fraction(), POSITIVE),
}
"""Checks of the numbers that follow the name of each time sampler."""
