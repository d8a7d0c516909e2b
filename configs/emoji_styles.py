"""Learns 64 emoji in ten drawing styles, where an image is not its name; first run `make hands`.

    python -m oneflow_jax.main --config=configs/emoji_styles.py             (oneflow)
    python -m oneflow_jax.main --config=configs/emoji_styles.py:transfusion

It is the quickstart on other documents: up to ten artists drew each name, and half of the captions
name the artist's style ("a noto fox"). One pair of a name and a style in eight is not in training.
The metric `composition` is the fraction of such pairs that are drawn with both right, so copying
training images does not help. `kind` is any that configs/quickstart.py has, except "latents".
"""

import ml_collections

from oneflow_jax.configs import quickstart
from oneflow_jax.data import style_packages
from oneflow_jax.errors import UserError


def get_config(kind: str = "oneflow") -> ml_collections.ConfigDict:
    """Return the configuration; `kind` is a paradigm's name.

    Raises:
        UserError: `kind` is "latents", for which no codec of these images is configured.
    """
    if kind == "latents":
        raise UserError("configs/emoji_styles.py:latents: not supported. Give a paradigm's name.")
    config = quickstart.get_config(kind)
    config.name = config.name.replace("quickstart", "emoji-styles")
    config.steps = 6_000

    pixels = config.source.get_ref("pixels")
    config.source = ml_collections.ConfigDict()
    config.source.name = "emoji_styles"
    config.source.path = "data/emoji_styles"
    config.source.concepts = 64
    config.source.styles = style_packages.NAMES
    config.source.min_styles = 5  # styles that must have a drawing of a name
    config.source.pixels = pixels
    config.source.documents = 20_000
    config.source.interleaved = 0.2
    config.source.styled = 0.5
    config.source.keywords = 0.2
    config.data.vocab_size = 600

    if config.evaluation.suite:
        config.evaluation.suite = "emoji_styles"
        config.sampling.prompts += ("a picture of a noto fox: <image>",)
    return config
