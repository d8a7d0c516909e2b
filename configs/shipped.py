"""Trains the small model that comes with the project, `of.load(of.PRETRAINED)`.

    python -m oneflow_jax.main --config=configs/shipped.py
    python -m oneflow_jax.main --mode=export --workdir=runs/shipped --output=oneflow_jax/shipped

The model is that of the quickstart, with 300 emoji in place of 64. A third of the documents have
several images. Muon and a separate time for each token of a quarter of the documents let it learn
sooner (docs/oneflow.md). The second command exports the model. docs/shipped.md has the results.
"""

import ml_collections

from oneflow_jax.configs import quickstart


def get_config() -> ml_collections.ConfigDict:
    """Return the configuration."""
    config = quickstart.get_config("oneflow")
    config.name = "shipped"
    config.steps = 3_000

    config.source.concepts = 300
    config.source.categories = ("Animals & Nature", "Food & Drink", "Travel & Places", "Objects")
    config.source.documents = 40_000
    config.source.interleaved = 0.35
    config.data.sequence_length = 112
    config.data.text_slot_multiple = 8
    config.data.vocab_size = 1_000

    config.paradigm.tasks.joint = 0.25
    config.paradigm.tasks.own_slot_times = 0.25
    config.paradigm.tasks.text_to_image = 0.2
    config.paradigm.tasks.image_to_text = 0.2
    config.optimizer.name = "muon"
    config.optimizer.learning_rate = 1.2e-2

    config.checkpoint.every = 250
    config.evaluation.every = 1_000
    config.evaluation.num_samples = 300  # each name once
    config.evaluation.nfe = (4, 8, 16)
    return config
