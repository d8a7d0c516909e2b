"""Tests of the checks of values: each message names the field and the value."""

import functools
import math
import re

import pytest

from oneflow_jax import errors

inside = functools.partial(errors.check_fraction, allow_zero=False, allow_one=False)


@pytest.mark.parametrize(
    ("check", "value", "limits"),
    [
        (errors.check_at_least, 1, (1,)),
        (errors.check_at_least, math.inf, (0.5,)),
        (errors.check_between, 2, (2, 3)),
        (errors.check_between, 3, (2, 3)),
        (errors.check_fraction, 0, ()),
        (errors.check_fraction, 1.0, ()),
        (inside, 0.5, ()),
        (errors.check_one_of, "b", ("ab",)),
        (errors.check_one_of, "b", ({"a": 1, "b": 2},)),
    ],
)
def test_valid_values(check, value, limits):
    assert check("model.size", value, *limits) is None


@pytest.mark.parametrize(
    ("check", "value", "limits", "advice"),
    [
        (errors.check_at_least, 0, (1,), "1 or more"),
        (errors.check_at_least, math.nan, (1,), "1 or more"),
        (errors.check_between, 4, (2, 3), "2 to 3"),
        (errors.check_between, 1.9, (2, 3), "2 to 3"),
        (errors.check_between, None, (2, 3), "2 to 3"),
        (errors.check_fraction, -0.1, (), "at least 0 and at most 1"),
        (errors.check_fraction, math.nan, (), "at least 0 and at most 1"),
        (inside, 0.0, (), "above 0 and below 1"),
        (inside, 1, (), "above 0 and below 1"),
        (errors.check_one_of, "c", (("a", "b"),), "a, b"),
    ],
)
def test_invalid_values(check, value, limits, advice):
    message = rf"^model\.size={re.escape(repr(value))}: .*\. .*{advice}\.$"
    with pytest.raises(errors.UserError, match=message):
        check("model.size", value, *limits)
