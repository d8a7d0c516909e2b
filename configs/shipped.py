"""Trains the small model that comes with the project, `of.load(of.PRETRAINED)`.

    python -m oneflow_jax.main --config=configs/shipped.py
    python -m oneflow_jax.main --mode=release --workdir=runs/shipped --into=oneflow_jax/shipped

The emoji and the recipe of the quickstart, for half as long again, on documents of which a third
have several pictures. The second command keeps what sampling needs; docs/shipped.md says what came
of it.
"""

import ml_collections

from configs import quickstart


def get_config() -> ml_collections.ConfigDict:
    """The configuration."""
    config = quickstart.get_config("oneflow")
    config.name = "shipped"
    config.steps = 4_000
    config.source.documents = 10_000
    config.source.interleaved = 0.35
    config.checkpoint.every = 250
    config.evaluation.every = 2_000
    config.evaluation.passes = (4, 8, 16)
    return config
