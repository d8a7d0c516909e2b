"""Shared parts of the configurations for TPUs and GPUs: model sizes, data, optimizer.

The argument of these configurations ends in the name of the data: `1B` or `1B,emoji` trains on
emoji, and `1B,own` on your own documents of text and images (docs/large_data.md).
"""

import ml_collections

from oneflow_jax.configs import common, own
from oneflow_jax.data import emoji_concepts
from oneflow_jax.errors import UserError
from oneflow_jax.runtime import path_keys

# Columns: layers, width, heads, KV heads, hidden, vocabulary, embedding width, learning rate.
SIZES = {
    "150M": (12, 1_024, 8, 8, 2_304, 8_192, 512, 6e-4),
    "400M": (20, 1_280, 10, 10, 3_456, 8_192, 512, 4e-4),
    "1B": (24, 2_048, 16, 16, 5_632, 8_192, 512, 3e-4),
    "3B": (28, 3_072, 24, 8, 8_192, 32_768, 1_024, 2e-4),
    "8B": (32, 4_096, 32, 8, 14_336, 128_256, 1_024, 1.5e-4),
}
"""Backbones. 1B is wide for its depth, which suits TPUs. 3B and 8B have the shapes of Llama 3."""

PARAMETERS = {
    "150M": "150 million",
    "400M": "414 million",
    "1B": "1.26 billion",
    "3B": "2.97 billion",
    "8B": "7.66 billion",
}
"""Number of trained parameters of each size, for the error about a wrong platform."""


def split_argument(file: str, argument: str) -> tuple[str, str]:
    """Split the argument of a configuration, such as "1B,own", into the model and the data.

    Args:
        file: the configuration's file, for the message.
        argument: the model, and after a comma the data, one of `SET_DATA`; "emoji" if missing.

    Raises:
        UserError: the data are not in `SET_DATA`.
    """
    model, comma, data = argument.partition(",")
    data = data if comma else "emoji"
    if data not in SET_DATA:
        raise UserError(
            f"--config={file}:{argument}: unknown data. Give {model}, or {model},own to train on "
            "your own data."
        )
    return model, data


def make_config(name: str, size: str, data: str) -> ml_collections.ConfigDict:
    """Return the configuration of one model size, without what depends on the machine.

    Args:
        name: name of the run.
        size: one of `SIZES`.
        data: one of `SET_DATA`.
    """
    config = common.document_model_config(name if data == "emoji" else f"{name}-{data}")
    config.steps = 100_000
    _set_size(config, *SIZES[size])
    config.data.sequence_length = 2_048
    config.data.text_slot_multiple = 16
    config.data.num_workers = 16
    config.data.cache_size = 0
    config.evaluation.num_samples = 512
    SET_DATA[data](config)
    config.paradigm.min_one_minus_t = 0.1
    config.paradigm.time_sampler = ("logit_normal", -0.5, 1.0)
    config.optimizer.warmup_steps = 2_000
    config.optimizer.weight_decay = 0.1
    config.optimizer.b2 = 0.95
    config.optimizer.ema_decay = 0.9999
    config.logging.every = 100
    config.checkpoint.every = 2_000
    config.checkpoint.max_to_keep = 3
    config.evaluation.every = 2_000
    config.evaluation.batch_size = 128
    return config


def _set_size(
    config: ml_collections.ConfigDict,
    layers: int,
    width: int,
    heads: int,
    kv_heads: int,
    hidden: int,
    vocab: int,
    embed_width: int,
    learning_rate: float,
) -> None:
    config.model.update(common.transformer_config(layers, width, heads, kv_heads, hidden))
    config.model.embed_width = embed_width
    config.model.scan_unroll = 1
    config.model.dtype = "bfloat16"
    config.data.vocab_size = vocab
    config.optimizer.learning_rate = learning_rate


def _set_emoji(config: ml_collections.ConfigDict) -> None:
    """Set the data: all of OpenMoji at 64 x 64 pixels.

    A document of one image and its name takes 273 slots, so 7 of them fit in a row.
    """
    config.codec.pixels = 64
    config.codec.patch_size = 4
    config.codec.mean = 0.6
    config.codec.std = 0.6
    config.source = ml_collections.ConfigDict()
    config.source.name = "emoji"
    config.source.concepts = None
    config.source.categories = emoji_concepts.CATEGORIES
    config.source.pixels = config.codec.get_ref("pixels")
    config.source.documents = 200_000
    config.source.held_out_documents = 5_000
    config.source.interleaved = 0.5
    config.evaluation.suite = "emoji"
    config.sampling.prompts = ("<text> <image>", "a picture of a tiger: <image>")


def _set_own(config: ml_collections.ConfigDict) -> None:
    """Set the data: the user's documents, as latents of an autoencoder.

    The autoencoder of the package halves the height and width of images twice. Those of Stable
    Diffusion and Flux halve them three times, so with `codec.pixels=256` an image takes (256 / 8 /
    2)^2 = 256 slots.
    """
    config.codec = common.latent_codec(path_keys.SHIPPED_CODEC, pixels=64, patch=2)
    own.set_source(config)
    config.choose = ("source.heldout_fraction", "data.text_slot_multiple", *config.choose)
    config.data.num_prepare_workers = 16
    config.evaluation.num_samples = 128


SET_DATA = {"emoji": _set_emoji, "own": _set_own}
"""Functions that set the data of a configuration, by the name of the data in its argument."""
