"""Repeats the table of docs/oneflow.md on real handwritten digits with captions.

    python -m oneflow_jax.main --config=configs/digits.py             (or :endpoint)
    python -m oneflow_jax.main --config=configs/digits.py:velocity
    python -m oneflow_jax.main --config=configs/digits.py:literal
    python -m oneflow_jax.main --config=configs/digits.py:mask_flow
    python -m oneflow_jax.main --config=configs/digits.py:edit_flow

1,797 scans of 8 x 8 pixels, 40 captions; 3,000 steps of 64 documents, then joint generation of 400
documents with 1 to 100 forward passes: `valid` is the share of captions that are one of the 40,
`match` the share of those whose picture is the digit that the caption names, `variety` how many of
the 40 come.
"""

import ml_collections

from configs import common


def get_config(kind: str = "endpoint") -> ml_collections.ConfigDict:
    """The configuration; `kind` is an objective of oneflow, or another paradigm's name."""
    config = common.document_model_config(f"digits-{kind}")
    config.steps = 3_000
    config.batch = 64

    config.source = ml_collections.ConfigDict({"name": "digits"})
    config.data.length = 25  # BOS, 8 slots of text, 16 patches: one document a row
    config.data.text_slots = 8
    config.data.vocab = 128

    config.codec.pixels = 8
    config.codec.patch = 2
    config.codec.colors = 1
    config.codec.mean = -0.39
    # Twice the data's, and narrow token vectors: words are settled a little before the picture,
    # and over enough of the flow that a few steps see them hesitate.
    config.codec.deviation = 1.5

    config.model = common.transformer_config(layers=3, width=96, heads=3)
    config.model.embed_width = 32
    if kind in ("mask_flow", "edit_flow"):
        common.set_paradigm(config, kind)
    else:
        config.paradigm.objective = kind
    config.paradigm.image = "velocity"  # four numbers a patch are few enough to carry
    config.paradigm.clock = ("power", 1.5)
    config.paradigm.joint = 0.8  # what is scored
    config.paradigm.text_to_image = 0.05
    config.paradigm.image_to_text = 0.05
    config.paradigm.spans = 0.05
    config.paradigm.scattered = 0.05

    config.sampling.temperature = 1.0  # all 40 captions are to come
    if kind == "mask_flow":
        config.sampling.grid = "learned"
    if kind == "edit_flow":
        config.paradigm.interleaved, config.paradigm.independent = 0.3, 0.2
        config.paradigm.together, config.paradigm.revised = 0.5, 0.0  # only what is scored
    if kind == "velocity":
        config.model.embed_width = 16  # a velocity has to carry all of its noise
        config.paradigm.text_weight = 2.0
    config.evaluation.score = "digits"
    config.evaluation.passes = (1, 2, 4, 8, 16, 40, 100)
    config.evaluation.samples = 400
    config.evaluation.batch = 200
    config.evaluation.every = 1_000
    config.checkpoint.every = 1_000
    return config
