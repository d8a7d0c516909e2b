"""Trains edit_flow to generate and to edit whole documents of 1 to 4 images.

    python -m oneflow_jax.main --config=configs/documents.py

The emoji are those of the quickstart, but half of the documents have several images. The model
decides the number, the names and the order of the images. Training takes longer than the
quickstart, about 20 minutes on two CPU cores.
"""

import ml_collections

from oneflow_jax.configs import quickstart


def get_config() -> ml_collections.ConfigDict:
    """Return the configuration."""
    config = quickstart.get_config("edit_flow")
    config.name = "documents"
    config.steps = 6_000
    config.optimizer.name = "adamw"
    config.optimizer.learning_rate = 3e-3
    config.source.documents = 10_000
    config.source.interleaved = 0.5

    config.paradigm.tasks.joint = 0.75
    config.paradigm.tasks.text_to_image = 0.05
    config.paradigm.tasks.image_to_text = 0.1
    config.paradigm.time_coupling.interleaved = 0.5
    config.paradigm.time_coupling.independent = 0.05
    config.paradigm.time_coupling.together = 0.1
    config.paradigm.time_coupling.edited = 0.35
    config.paradigm.edit_op_weight = 3.0  # high, because few documents have errors
    config.paradigm.substitute_weight = 3.0

    config.checkpoint.every = 1_000
    config.evaluation.nfe = (8, 16, 32)
    config.sampling.steps = 32
    config.sampling.prompts = ("<document>", "two animals: <document>", "<text> <image>")
    return config
