"""Learns 64 emoji and their names in about 15 minutes on two CPU cores; `make quickstart`.

    python -m oneflow_jax.main --config=configs/quickstart.py             (oneflow)
    python -m oneflow_jax.main --config=configs/quickstart.py:mask_flow
    python -m oneflow_jax.main --config=configs/quickstart.py:edit_flow
    python -m oneflow_jax.main --config=configs/quickstart.py:transfusion
    python -m oneflow_jax.main --config=configs/quickstart.py:language    (words alone; then ...)
    python -m oneflow_jax.main --config=configs/quickstart.py:lmfusion    (... pictures beside them)
    python -m oneflow_jax.main --config=configs/quickstart.py:latents     (oneflow, on a codec)

Documents with one named picture, or several in a sentence, of 24 x 24 pixels. The run prepares
them, learns the tokenizer, trains, scores 128 samples of each task with 16 forward passes, and
writes a page on which words and pictures form at the same time. `latents` has pictures of 64 x 64
pixels, as latents of the codec that configs/codec.py:kl trains, which is to be run first.
"""

import ml_collections

from configs import common

CODEC = "runs/codec-kl/codec"
"""Where configs/codec.py:kl leaves its autoencoder."""

LANGUAGE = "runs/quickstart-language"
"""Where the text model is that lmfusion begins from."""


def get_config(kind: str = "oneflow") -> ml_collections.ConfigDict:
    """The configuration; `kind` is a paradigm's name, or "latents"."""
    config = common.document_model_config(
        "quickstart" if kind == "oneflow" else f"quickstart-{kind}"
    )
    config.steps = 2_600
    config.batch = 16

    config.codec.pixels = 24
    config.codec.patch = 8
    config.codec.mean = 0.55
    # Twice the data's: the fainter a picture in its noise, the later it must be settled, and the
    # more the words, settled first, have a say in it.
    config.codec.deviation = 1.3

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
    config.data.length = 96
    config.data.text_slots = 6
    config.data.vocab = 400

    config.model = common.transformer_config(layers=4, width=128, heads=2, hidden=384)
    config.model.embed_width = 512  # the wider, the clearer a word in its noise

    config.paradigm.image_weight = 3.0  # for patches of a third of unit variance
    common.set_paradigm(config, "oneflow" if kind == "latents" else kind)
    config.paradigm.joint = 0.5
    config.paradigm.text_to_image = 0.15
    config.paradigm.image_to_text = 0.25
    config.paradigm.spans = 0.05
    config.paradigm.scattered = 0.05
    config.paradigm.floor = 0.3
    config.paradigm.clock = ("power", 1.5)

    config.optimizer.learning_rate = 3e-3

    config.evaluation.score = "emoji"
    config.evaluation.every = 1_000
    config.checkpoint.every = 500

    config.sampling.prompts = (
        "<text> <image> and <text> <image>",
        "<text> <image>",
        "a picture of a tiger: <image>",
        "first a fox <image>, then <text> <image>",
    )
    if kind == "lmfusion":
        config.start = LANGUAGE
    if kind == "language":
        config.evaluation.score = ""
        config.sampling.prompts = ("<text>",)
    if kind in ("transfusion", "lmfusion"):
        config.sampling.prompts = ("<document>", "<text> <image>", "a picture of a tiger: <image>")
    if kind == "latents":
        config.codec = common.latent_codec(CODEC, pixels=64, patch=4)
        config.codec.deviation = 2.0
        config.source.pixels = 64
        config.source.interleaved = 0.0
        config.data.length = 48  # two documents of 23 slots
        config.sampling.prompts = ("<text> <image>", "a picture of a tiger: <image>")
    return config
