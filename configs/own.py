"""Trains on your own documents of text and images, in a folder (docs/own_data.md).

    python -m oneflow_jax.main --config=configs/own.py --config.source.path=FOLDER --mode=prepare
    python -m oneflow_jax.main --config=configs/own.py --config.source.path=FOLDER
    python -m oneflow_jax.main --workdir=runs/own --mode=sample --prompt="<text> <image>"

The sizes suit a laptop: images of 32 x 32 pixels, about 15 minutes of training. With
configs/own.py:latents, the images have 64 x 64 pixels and are encoded by the autoencoder that comes
with the project; it needs longer training (docs/own_data.md#what-was-measured).
"""

import ml_collections

from oneflow_jax.configs import common
from oneflow_jax.runtime import path_keys


def get_config(kind: str = "oneflow") -> ml_collections.ConfigDict:
    """Return the configuration; `kind` is a paradigm's name, or "latents"."""
    paradigm = "oneflow" if kind == "latents" else kind
    config = common.document_model_config("own" if kind == "oneflow" else f"own-{kind}")
    config.batch_size = 16
    config.minutes = 15.0  # time to train, if `steps` is chosen

    config.logging.every = 25  # a short run has about a hundred steps

    config.codec.pixels = 32
    config.codec.patch_size = 8
    config.codec.mean = 0.3
    config.codec.std = 1.3
    if kind == "latents":
        config.codec = common.latent_codec(path_keys.SHIPPED_CODEC, pixels=64, patch=4)
        config.codec.divisor = 2.0

    set_source(config)
    config.data.sequence_length = 128
    config.data.text_slot_multiple = 8
    config.data.vocab_size = 2_048  # sizes from 2,048 on allow byte fallback for rare characters

    config.model = common.transformer_config(layers=4, width=128, heads=2, hidden=384)
    config.model.embed_width = 256

    config.choose = (
        *("source.heldout_fraction", "data.sequence_length", "batch_size", "steps"),
        *config.choose,  # of all runs
        *("evaluation.every", "checkpoint.every", "evaluation.num_samples"),
    )

    config.paradigm.image_weight = 3.0
    config.paradigm.time_sampler = ("power", 1.5)
    common.set_paradigm(config, paradigm)
    if config.data.text_slot_multiple:  # Other paradigms do not pad texts.
        config.choose = ("data.text_slot_multiple", *config.choose)
    config.optimizer.learning_rate = 3e-3
    if paradigm == "oneflow":
        # Measured with a few hundred images (docs/own_data.md#what-was-measured): Muon, text ahead
        # of images, early times, and tokens with times of their own.
        config.optimizer.name = "muon"
        config.optimizer.learning_rate = 1.2e-2
        config.paradigm.text_lead = 8.0
        config.paradigm.time_sampler = ("logit_normal", -3.5, 1.7)
        config.paradigm.tasks.own_slot_times = 0.25
    config.paradigm.tasks.joint = 0.5 - config.paradigm.tasks.own_slot_times
    config.paradigm.tasks.text_to_image = 0.2
    config.paradigm.tasks.image_to_text = 0.2
    config.paradigm.tasks.spans = 0.05
    config.paradigm.tasks.scattered = 0.05
    config.paradigm.min_one_minus_t = 0.3

    config.evaluation.num_samples = 64
    # The model chooses the order of texts and images, as they are in your documents.
    config.sampling.prompts = ("<document>", "<text> <image>")
    return config


def set_source(config: ml_collections.ConfigDict) -> None:
    """Set the data set to the user's documents, and the keys that suit any such documents."""
    config.source = ml_collections.ConfigDict()
    config.source.name = "own"
    config.source.path = ""  # your folder or file; with the format "tfds", the name of a data set
    # Format: "auto", "jsonl", "webdataset", "parquet", "pages", "pairs", "csv", "json" or "tfds";
    # docs/own_data.md describes them.
    config.source.format = "auto"
    config.source.glob = "*"  # pattern of the files to read below the folder, e.g. "guide/*"
    config.source.pixels = config.codec.get_ref("pixels")
    # Folder of the images that JSON lines name; "" for the folder of the JSON file.
    config.source.image_root = ""
    # Fields, columns, features or file endings in reading order; () selects those with known names.
    config.source.columns = ()
    config.source.split = "train"  # split of the data set, for the format "tfds"
    config.source.heldout_fraction = 0.05  # fraction of the documents held out from training
    config.source.deduplicate = False  # whether to drop all but the first of equal documents
    config.source.max_megapixels = 50.0  # larger images are dropped
    # Maximum seconds to read one document. After this time its reader process is stopped.
    config.source.read_timeout = 60.0

    config.data.character_coverage = 0.9995  # covers any script, except rare ideographs
    config.data.overflow = "split"
    config.evaluation.suite = "own"
    config.evaluation.loss_documents = 64
