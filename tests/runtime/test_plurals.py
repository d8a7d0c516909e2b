"""Tests of numbers of things in messages."""

import pytest

from oneflow_jax.runtime import plurals


@pytest.mark.parametrize(
    ("number", "text"),
    [(0, "0 prompts"), (1, "1 prompt"), (2, "2 prompts"), (2_000, "2,000 prompts")],
)
def test_one_thing_is_singular(number, text):
    assert plurals.format_count(number, "prompt") == text
