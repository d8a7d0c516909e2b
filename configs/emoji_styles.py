"""Trains on 64 emoji in ten drawing styles, which `make emoji-styles` fetches.

    python -m oneflow_jax.main --config=configs/emoji_styles.py             (oneflow)
    python -m oneflow_jax.main --config=configs/emoji_styles.py:transfusion

This configuration is the quickstart on other documents. Each name has drawings in up to ten styles,
and half of the captions name the style ("a noto fox"). One in eight pairs of a name
and a style is held out from training. The metric `composition` is the fraction of held-out pairs
that the model draws with the right name and the right style, so copying training images does not
help. `kind` is any kind of configs/quickstart.py except "latents".
"""

import ml_collections

from oneflow_jax.configs import quickstart
from oneflow_jax.data import style_packages
from oneflow_jax.errors import UserError


def get_config(kind: str = "oneflow") -> ml_collections.ConfigDict:
    """Return the configuration; `kind` is a paradigm's name.

    Raises:
        UserError: `kind` is "latents", because no codec is configured for these images.
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
    config.source.min_styles = 5  # names with drawings in fewer styles are left out
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
