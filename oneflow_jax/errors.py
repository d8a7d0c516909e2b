"""Exceptions that `main` prints as one message, without a traceback, and checks that raise them."""

import numbers
from collections.abc import Iterable


class UserError(Exception):
    """Unusable input of the user: `main` prints the message without a traceback.

    The message names the file or field, its value, and what to do about it.
    """


class Preempted(Exception):
    """A stop of the run before its last step, after it saved a checkpoint.

    Attributes:
        exit_code: exit code of the process. It is not 0, so that supervisors restart the run.
    """

    def __init__(self, message: str, exit_code: int = 143) -> None:
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


def check_count(field: str, value: object) -> int:
    """Check that a value is a positive integer, of Python or NumPy, and return it.

    Raises:
        UserError: the value is not an integer, or is below 1.
    """
    if isinstance(value, bool) or not isinstance(value, numbers.Integral) or value < 1:
        raise UserError(f"{field}={value!r}: must be a positive integer.")
    return int(value)


def check_between(field: str, value: float | None, minimum: float, maximum: float) -> None:
    """Check that a number is between two numbers, or equal to one of them.

    Raises:
        UserError: the value is outside, NaN or None.
    """
    if value is None or not minimum <= value <= maximum:
        raise UserError(f"{field}={value}: out of range. Give {minimum} to {maximum}.")


def check_fraction(
    field: str, value: float, *, allow_zero: bool = True, allow_one: bool = True
) -> None:
    """Check that a number is from 0 to 1.

    Args:
        field: the name of the value, for the message.
        value: the value to check.
        allow_zero: whether the value may be 0.
        allow_one: whether the value may be 1.

    Raises:
        UserError: the value is outside, or NaN.
    """
    if 0 < value < 1 or (allow_zero and value == 0) or (allow_one and value == 1):
        return
    low = "at least 0" if allow_zero else "above 0"
    high = "at most 1" if allow_one else "below 1"
    raise UserError(f"{field}={value}: out of range. Give a number {low} and {high}.")


def check_one_of(field: str, value: object, choices: Iterable[object]) -> None:
    """Check that a value is one of the choices.

    Raises:
        UserError: the value is not among them.
    """
    choices = tuple(choices)
    if value not in choices:
        known = ", ".join(map(str, choices))
        raise UserError(f"{field}={value!r}: unknown value. Choose one of {known}.")
