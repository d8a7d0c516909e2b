"""Exceptions that `main` prints without a traceback, and checks of values that raise them."""

import numbers
import signal
from collections.abc import Iterable

import numpy as np

INT32_MAX = 2**31 - 1
"""Largest integer that a program on an accelerator can hold: integers are int32 there."""

FLOAT32_MAX = float(np.finfo(np.float32).max)
"""Largest number that a program on an accelerator can hold: numbers are float32 there."""


EXIT_PREEMPTED = 128 + signal.SIGTERM
"""Exit code of a run that SIGTERM stopped. It is not 0, so supervisors restart the run."""


class UserError(Exception):
    """An error in the user's input; `main` prints the message without a traceback.

    The message names the file or field and its value, and says what to do.

    Attributes:
        in_all_processes: whether every process of the run raises this error.
    """

    def __init__(self, message: str, *, in_all_processes: bool = False) -> None:
        """Initialize the error; by default, only this process of the run raises it."""
        super().__init__(message)
        self.in_all_processes = in_all_processes


class Preempted(Exception):
    """The run stopped before its last step, after it had saved a checkpoint.

    Attributes:
        exit_code: exit code of the process.
    """

    def __init__(self, message: str, exit_code: int = EXIT_PREEMPTED) -> None:
        """Initialize the error; the default exit code is that of SIGTERM."""
        super().__init__(message)
        self.exit_code = exit_code


def check_at_least(field: str, value: float, minimum: float) -> None:
    """Check that a number is not below a minimum.

    Raises:
        UserError: the value is below the minimum, or NaN.
    """
    if not value >= minimum:
        raise UserError(f"{field}={value}: too small. Give {minimum} or more.")


def check_between(field: str, value: float | None, minimum: float, maximum: float) -> None:
    """Check that a number is from `minimum` to `maximum`, both included.

    Raises:
        UserError: the value is out of range, NaN or None.
    """
    if value is None or not minimum <= value <= maximum:
        raise UserError(f"{field}={value}: out of range. Give {minimum} to {maximum}.")


def check_fraction(
    field: str, value: object, *, allow_zero: bool = True, allow_one: bool = True
) -> None:
    """Check that a number is from 0 to 1.

    Args:
        field: the name of the value, for the message.
        value: the value to check.
        allow_zero: whether the value may be 0.
        allow_one: whether the value may be 1.

    Raises:
        UserError: the value is not a number, is NaN, or is out of range.
    """
    check_real(field, value, 0, 1, allow_minimum=allow_zero, allow_maximum=allow_one)


def check_integer(field: str, value: object, minimum: int, maximum: int = INT32_MAX) -> None:
    """Check that a value is an integer in a range; NumPy integers are accepted, bools are not.

    Raises:
        UserError: the value is of another type, or out of range.
    """
    if isinstance(value, bool) or not isinstance(value, numbers.Integral):
        raise UserError(f"{field}={value!r}: not a whole number. Give {minimum} or more.")
    if value < minimum:
        raise UserError(f"{field}={value}: too small. Give {minimum} or more.")
    if value > maximum:
        raise UserError(f"{field}={value}: too large. Give {minimum} to {maximum}.")


def check_real(
    field: str,
    value: object,
    minimum: float = -FLOAT32_MAX,
    maximum: float = FLOAT32_MAX,
    *,
    allow_minimum: bool = True,
    allow_maximum: bool = True,
) -> None:
    """Check that a value is a number in a range, both before and after rounding to float32.

    Args:
        field: the name of the value, for the message.
        value: the value to check. NumPy numbers are accepted, bools are not.
        minimum: the lower limit.
        maximum: the upper limit.
        allow_minimum: whether the value may equal the lower limit.
        allow_maximum: whether the value may equal the upper limit.

    Raises:
        UserError: the value is of another type, NaN, infinite or out of range.
    """
    low = f"at least {minimum:g}" if allow_minimum else f"above {minimum:g}"
    high = f"at most {maximum:g}" if allow_maximum else f"below {maximum:g}"
    bounds = [low] * (minimum > -FLOAT32_MAX) + [high] * (maximum < FLOAT32_MAX)
    advice = f"Give a {'' if bounds else 'finite '}number {' and '.join(bounds)}".rstrip() + "."
    if isinstance(value, bool | np.bool_) or not isinstance(value, numbers.Real):
        raise UserError(f"{field}={value!r}: not a number. {advice}")
    if not -FLOAT32_MAX <= value <= FLOAT32_MAX:
        raise UserError(f"{field}={value}: not a finite float32 number. {advice}")
    for number in (float(value), float(np.float32(value))):
        above = number > minimum or (allow_minimum and number == minimum)
        below = number < maximum or (allow_maximum and number == maximum)
        if not (above and below):
            raise UserError(f"{field}={value}: out of range. {advice}")


def check_one_of(field: str, value: object, choices: Iterable[object]) -> None:
    """Check that a value is one of the choices.

    Raises:
        UserError: the value is not one of the choices.
    """
    choices = tuple(choices)
    if value not in choices:
        known = ", ".join(map(str, choices))
        raise UserError(f"{field}={value!r}: unknown value. Choose one of {known}.")
