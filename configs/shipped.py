"""Trains the small model that comes with the project, `of.load(of.PRETRAINED)`.

    python -m oneflow_jax.main --config=configs/shipped.py
    python -m oneflow_jax.main --mode=export --workdir=runs/shipped --output=oneflow_jax/shipped

The emoji and the settings are those of the quickstart. But training takes 1.5 times as many steps,
and a third of the documents have several images. The second command exports the model.
docs/shipped.md has the results.
"""

import ml_collections

from oneflow_jax.configs import quickstart


def get_config() -> ml_collections.ConfigDict:
    """Return the configuration."""
    config = quickstart.get_config("oneflow")
    config.name = "shipped"
    config.steps = 4_000
    config.source.documents = 10_000
    config.source.interleaved = 0.35
    config.checkpoint.every = 250
    config.evaluation.every = 2_000
    config.evaluation.nfe = (4, 8, 16)
    return config
