"""Trains an autoencoder of the Stable Diffusion family on all emoji, 64 x 64 pixels.

    python -m oneflow_jax.main --config=configs/codec.py:kl         latents of 16 x 16 x 4
    python -m oneflow_jax.main --config=configs/codec.py:vq         16 x 16 codes out of 1,024
    python -m oneflow_jax.main --config=configs/codec.py:styles     `kl` on emoji in ten styles

The autoencoder that comes with the project is trained by `styles`, which needs
`make emoji-styles` first.

One emoji in ten is held out, and the metrics score reconstructions of held-out emoji. The run
writes a page with originals next to reconstructions. It also writes the autoencoder in diffusers
format to the folder `codec/`. To use it in another configuration, set `codec.path` to this folder.
"""

import ml_collections

from oneflow_jax.configs import common
from oneflow_jax.data import emoji_concepts, style_packages


def get_config(kind: str = "kl") -> ml_collections.ConfigDict:
    """Return the configuration; `kind` is "kl", "vq" or "styles"."""
    if kind not in ("kl", "vq", "styles"):
        raise ValueError(f"configs/codec.py:{kind}: unknown kind. Give kl, vq or styles.")
    config = common.base_config(f"codec-{kind}")
    config.steps = 3_000
    config.batch_size = 8

    config.source = ml_collections.ConfigDict()
    config.source.name = "emoji"
    config.source.concepts = None
    config.source.categories = emoji_concepts.CATEGORIES
    config.source.pixels = 64
    config.source.documents = 8_000
    config.source.held_out_documents = 1_000
    config.source.interleaved = 0.0
    config.data.pixels = config.source.get_ref("pixels")
    if kind == "styles":
        config.source.name = "emoji_styles"
        config.source.path = "data/emoji_styles"
        config.source.styles = style_packages.NAMES
        config.source.min_styles = 2
        config.source.documents = 20_000
        config.source.styled = config.source.keywords = 0.0

    # `kind` is a class of diffusers. The other keys and values are those of its config.json.
    config.autoencoder = ml_collections.ConfigDict()
    config.autoencoder.kind = "VQModel" if kind == "vq" else "AutoencoderKL"
    config.autoencoder.block_out_channels = (16, 32, 64)
    config.autoencoder.layers_per_block = 1
    config.autoencoder.latent_channels = 4
    config.autoencoder.norm_num_groups = 8
    config.autoencoder.mid_block_add_attention = False

    config.objective = ml_collections.ConfigDict()
    config.objective.perceptual_weight = 0.02  # loss weight of LPIPS; 0 needs no LPIPS package
    if kind == "vq":
        config.autoencoder.num_vq_embeddings = 1_024
        config.objective.codebook_weight = 1.0
        config.objective.commitment_weight = 0.25
        config.objective.entropy_weight = 0.01
        config.objective.dead_code_restart_prob = 0.01
    else:
        config.objective.kl_weight = 1e-6

    config.optimizer.learning_rate = 1.5e-3
    config.optimizer.warmup_steps = 200
    config.optimizer.ema_decay = 0.998
    config.evaluation.num_samples = 256
    # Number of training images to which the baseline codec, a PCA of image patches, is fitted.
    config.evaluation.pca_images = 2_000
    config.checkpoint.every = 500
    return config
