"""Learns 64 emoji and their names in about 5 minutes on two CPU cores; `make quickstart`.

    python -m oneflow_jax.main --config=configs/quickstart.py             (oneflow)
    python -m oneflow_jax.main --config=configs/quickstart.py:mask_flow
    python -m oneflow_jax.main --config=configs/quickstart.py:edit_flow
    python -m oneflow_jax.main --config=configs/quickstart.py:transfusion
    python -m oneflow_jax.main --config=configs/quickstart.py:language    (text only)
    python -m oneflow_jax.main --config=configs/quickstart.py:lmfusion    (needs `language` first)
    python -m oneflow_jax.main --config=configs/quickstart.py:latents     (oneflow, on a codec)

A document has one named image of 24 x 24 pixels, or several in a sentence. The run prepares the
documents, trains the tokenizer and the model, evaluates 128 samples of each task with NFE 16, and
writes a page on which text and images form at the same time. With `latents`, images have 64 x 64
pixels and are encoded by the codec of configs/codec.py:kl, which must be trained first.
"""

import ml_collections

from oneflow_jax.configs import common

CODEC = "runs/codec-kl/codec"
"""Folder of the autoencoder that configs/codec.py:kl trains."""

LANGUAGE = "runs/quickstart-language"
"""Folder of the run that trains the text model, from which lmfusion is initialized."""


def get_config(kind: str = "oneflow") -> ml_collections.ConfigDict:
    """Return the configuration; `kind` is a paradigm's name, or "latents"."""
    config = common.document_model_config(
        "quickstart" if kind == "oneflow" else f"quickstart-{kind}"
    )
    config.steps = 1_200
    config.batch_size = 16

    config.codec.pixels = 24
    config.codec.patch_size = 8
    config.codec.mean = 0.55
    # This std is over twice that of the data. If the variance of an image is small relative to its
    # noise, its content is determined late in sampling. Then the text, which is determined earlier,
    # influences the image more.
    config.codec.std = 1.3

    config.source = ml_collections.ConfigDict()
    config.source.name = "emoji"
    config.source.concepts = 64
    config.source.pixels = config.codec.get_ref("pixels")
    config.source.documents = 5_000
    config.source.interleaved = 0.2
    config.source.captions = (
        "a picture of {0}: [0]",
        "here is {0}: [0]",
        "[0] {0}",
        "[0] this is {0}",
    )
    config.data.sequence_length = 96
    config.data.text_slot_multiple = 6
    config.data.vocab_size = 400

    config.model = common.transformer_config(layers=4, width=128, heads=2, hidden=384)
    config.model.embed_width = 512  # wider embeddings are easier to recognize in noise

    config.paradigm.image_weight = 3.0  # high, because normalized patches have variance 0.2, not 1
    common.set_paradigm(config, "oneflow" if kind == "latents" else kind)
    config.paradigm.tasks.joint = 0.5
    config.paradigm.tasks.text_to_image = 0.15
    config.paradigm.tasks.image_to_text = 0.25
    config.paradigm.tasks.spans = 0.05
    config.paradigm.tasks.scattered = 0.05
    config.paradigm.min_one_minus_t = 0.3
    config.paradigm.time_sampler = ("power", 1.5)

    # With Muon, fewer than half of AdamW's steps give better samples (docs/quickstart.md).
    config.optimizer.name = "muon"
    config.optimizer.learning_rate = 1.2e-2

    config.evaluation.suite = "emoji"
    config.evaluation.every = 1_000
    config.checkpoint.every = 500

    config.sampling.prompts = (
        "<text> <image> and <text> <image>",
        "<text> <image>",
        "a picture of a tiger: <image>",
        "first a fox <image>, then <text> <image>",
    )
    if kind in ("oneflow", "latents"):
        # Words of a document learn to agree (docs/oneflow.md#words-that-agree).
        config.paradigm.tasks.joint = 0.25
        config.paradigm.tasks.text_first = 0.15
        config.paradigm.tasks.image_to_text = 0.35
        config.sampling.solver = "renoise"
        config.sampling.time_grid = "quadratic"
        config.sampling.steps = 16
    if kind == "lmfusion":
        config.init_from = LANGUAGE
    if kind == "language":
        config.evaluation.suite = ""
        config.sampling.prompts = ("<text>",)
    if kind in ("transfusion", "lmfusion"):
        config.sampling.prompts = ("<document>", "<text> <image>", "a picture of a tiger: <image>")
    if kind == "latents":
        config.codec = common.latent_codec(CODEC, pixels=64, patch=4)
        config.codec.divisor = 2.0
        config.source.pixels = 64
        config.source.interleaved = 0.0
        config.data.sequence_length = 48  # two documents of 23 slots
        config.sampling.prompts = ("<text> <image>", "a picture of a tiger: <image>")
    return config
