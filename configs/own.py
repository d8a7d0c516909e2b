"""Learns from a folder of yours: documents of words and pictures (docs/own_data.md).

    python -m oneflow_jax.main --config=configs/own.py --config.source.path=FOLDER --mode=prepare
    python -m oneflow_jax.main --config=configs/own.py --config.source.path=FOLDER
    python -m oneflow_jax.main --workdir=runs/own --mode=sample --prompt="<text> <image>"

Sizes are for a laptop: pictures of 32 x 32 pixels, some 15 minutes of training.
"""

import ml_collections

from configs import common


def get_config(paradigm: str = "oneflow") -> ml_collections.ConfigDict:
    """The configuration; `paradigm` is a paradigm's name."""
    config = common.document_model_config("own" if paradigm == "oneflow" else f"own-{paradigm}")
    config.steps = 2_000
    config.batch = 16

    config.codec.pixels = 32
    config.codec.patch = 8
    config.codec.mean = 0.3
    config.codec.deviation = 1.3

    config.source = ml_collections.ConfigDict()
    config.source.name = "own"
    config.source.path = ""  # a folder or file of yours; of kind "tfds" a data set's name
    # "auto", "jsonl", "webdataset", "parquet", "pages", "pairs" or "tfds": see docs/own_data.md.
    config.source.kind = "auto"
    config.source.files = "*"  # a pattern of what is read below the folder, as in "guide/*"
    config.source.pixels = config.codec.get_ref("pixels")
    config.source.images = ""  # folder of the pictures that JSON lines name; "": where these are
    config.source.fields = ()  # columns, features or endings in reading order; (): all there are
    config.source.split = "train"  # of the data set that kind "tfds" names
    config.source.held_out = 0.05  # share of the documents that training does not see
    config.source.megapixels = 50.0  # larger pictures are dropped
    config.source.patience = 60.0  # seconds over one document before its reader is stopped

    config.data.length = 128
    config.data.text_slots = 8
    config.data.vocab = 2_048  # from here on, symbols outside the corpus are spelled in bytes
    config.data.coverage = 0.9995  # of the text's symbols: any script, but no rare ideograph
    config.data.long = "cut"

    config.model = common.transformer_config(layers=4, width=128, heads=2, hidden=384)
    config.model.embed_width = 256

    config.paradigm.image_weight = 3.0
    common.set_paradigm(config, paradigm)
    config.paradigm.joint = 0.5
    config.paradigm.text_to_image = 0.2
    config.paradigm.image_to_text = 0.2
    config.paradigm.spans = 0.05
    config.paradigm.scattered = 0.05
    config.paradigm.floor = 0.3
    config.paradigm.clock = ("power", 1.5)

    config.optimizer.learning_rate = 3e-3
    config.checkpoint.every = 500
    return config
