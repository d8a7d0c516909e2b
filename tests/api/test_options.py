"""Tests of sampling options."""

import pytest

from oneflow_jax.api import options
from oneflow_jax.configs import shipped


@pytest.mark.parametrize(
    ("changes", "threshold"),
    [
        ({}, 0.9),
        ({"steps": 4, "solver": "renoise"}, 0.9),
        ({"solver": "heun"}, 1.0),
        ({"solver": "heun", "confidence_threshold": 0.8}, 0.8),
    ],
)
def test_a_solver_that_cannot_keep_tokens_has_no_confidence_threshold(changes, threshold):
    config = shipped.get_config()
    assert config.sampling.confidence_threshold == 0.9
    changed = options.apply_options(config, changes)
    assert changed.sampling.confidence_threshold == threshold
