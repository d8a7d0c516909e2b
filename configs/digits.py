"""Reproduces the table of docs/oneflow.md on scans of handwritten digits with captions.

    python -m oneflow_jax.main --config=configs/digits.py             (or :cross_entropy)
    python -m oneflow_jax.main --config=configs/digits.py:velocity
    python -m oneflow_jax.main --config=configs/digits.py:naive
    python -m oneflow_jax.main --config=configs/digits.py:mask_flow
    python -m oneflow_jax.main --config=configs/digits.py:edit_flow

The data are 1,797 scans of 8 x 8 pixels, each with one of 40 captions. Training takes 3,000 steps
of 64 documents. Evaluation generates 400 documents jointly, with NFE 1 to 100. The metric
`caption_validity` is the fraction of captions that are one of the 40. `image_caption_match` is the
fraction of documents with a valid caption whose image is the digit that the caption names.
`caption_diversity` is the effective number of distinct captions, divided by 40.
"""

import ml_collections

from oneflow_jax.configs import common


def get_config(kind: str = "cross_entropy") -> ml_collections.ConfigDict:
    """Return the configuration; `kind` is an objective of oneflow, or another paradigm's name."""
    config = common.document_model_config(f"digits-{kind}")
    config.steps = 3_000
    config.batch_size = 64

    config.source = ml_collections.ConfigDict({"name": "digits"})
    config.data.sequence_length = 25  # one document per row: BOS, 8 slots of text, 16 patches
    config.data.text_slot_multiple = 8
    config.data.vocab_size = 128

    config.codec.pixels = 8
    config.codec.patch_size = 2
    config.codec.image_channels = 1
    config.codec.mean = -0.39
    # This std is twice that of the data. So images have less signal and emerge slightly later than
    # text. Token embeddings are narrow, so text is decided gradually over a wide range of t, and
    # few steps are enough.
    config.codec.std = 1.5

    config.model = common.transformer_config(layers=3, width=96, heads=3)
    config.model.embed_width = 32
    if kind in ("mask_flow", "edit_flow"):
        common.set_paradigm(config, kind)
    else:
        config.paradigm.objective = kind
    config.paradigm.image_prediction = "velocity"  # suits patches of only four values
    config.paradigm.time_sampler = ("power", 1.5)
    config.paradigm.tasks.joint = 0.8  # high, because evaluation scores joint generation
    config.paradigm.tasks.text_to_image = 0.05
    config.paradigm.tasks.image_to_text = 0.05
    config.paradigm.tasks.spans = 0.05
    config.paradigm.tasks.scattered = 0.05

    config.sampling.temperature = 1.0  # a lower value would make some captions rare
    if kind == "mask_flow":
        config.sampling.time_grid = "learned"
    if kind == "edit_flow":
        config.paradigm.time_coupling.interleaved, config.paradigm.time_coupling.independent = (
            0.3,
            0.2,
        )
        config.paradigm.time_coupling.together, config.paradigm.time_coupling.edited = (
            0.5,
            0.0,
        )  # evaluation does not score editing
    if kind == "velocity":
        config.model.embed_width = 16  # small, since the network also predicts noise of this width
        config.paradigm.text_weight = 2.0
    config.evaluation.suite = "digits"
    config.evaluation.nfe = (1, 2, 4, 8, 16, 40, 100)
    config.evaluation.num_samples = 400
    config.evaluation.batch_size = 200
    config.evaluation.every = 1_000
    config.checkpoint.every = 1_000
    return config
