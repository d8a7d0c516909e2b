"""Learns whole documents of 1 to 4 pictures by edit_flow: to write them, and to revise them.

    python -m oneflow_jax.main --config=configs/documents.py

The emoji of the quickstart, but half of the documents have several pictures, which the model must
name, count and order itself. It learns longer, about 20 minutes on two CPU cores.
"""

import ml_collections

from configs import quickstart


def get_config() -> ml_collections.ConfigDict:
    """The configuration."""
    config = quickstart.get_config("edit_flow")
    config.name = "documents"
    config.steps = 6_000
    config.source.documents = 10_000
    config.source.interleaved = 0.5

    config.paradigm.joint = 0.75
    config.paradigm.text_to_image = 0.05
    config.paradigm.image_to_text = 0.1
    config.paradigm.interleaved = 0.5
    config.paradigm.independent = 0.05
    config.paradigm.together = 0.1
    config.paradigm.revised = 0.35
    config.paradigm.fate_weight = 3.0  # few documents bear mistakes
    config.paradigm.words_weight = 3.0

    config.checkpoint.every = 1_000
    config.evaluation.passes = (8, 16, 32)
    config.sampling.steps = 32
    config.sampling.prompts = ("<document>", "two animals: <document>", "<text> <image>")
    return config
