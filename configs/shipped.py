"""Trains the small model that comes with the project, `of.load(of.PRETRAINED)`.

    python -m oneflow_jax.main --config=configs/shipped.py
    python -m oneflow_jax.main --mode=export --workdir=runs/shipped --output=oneflow_jax/shipped

The images have 64 x 64 pixels and are encoded by the autoencoder that comes with the project, which
configs/codec.py:styles trained. The second command exports the model. docs/shipped.md has the
results.
"""

import ml_collections

from oneflow_jax.configs import common, quickstart
from oneflow_jax.runtime import path_keys


def get_config() -> ml_collections.ConfigDict:
    """Return the configuration."""
    config = quickstart.get_config("oneflow")
    config.name = "shipped"
    config.steps = 8_000

    config.codec = common.latent_codec(path_keys.SHIPPED_CODEC, pixels=64, patch=4)
    config.codec.divisor = 2.0
    config.source.pixels = config.codec.get_ref("pixels")
    config.source.concepts = 300
    config.source.categories = ("Animals & Nature", "Food & Drink", "Travel & Places", "Objects")
    config.source.documents = 40_000
    config.source.interleaved = 0.35
    config.data.sequence_length = 128
    config.data.text_slot_multiple = 8
    config.data.vocab_size = 1_000

    config.paradigm.tasks.joint = 0.25
    config.paradigm.tasks.own_slot_times = 0.25
    config.paradigm.tasks.text_to_image = 0.2
    config.paradigm.tasks.image_to_text = 0.2

    config.optimizer.name = "muon"
    config.optimizer.learning_rate = 1.2e-2

    config.checkpoint.every = 500
    config.evaluation.every = 2_000
    config.evaluation.num_samples = 300
    config.evaluation.nfe = (4, 8, 16)
    return config
