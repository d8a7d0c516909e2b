"""Builder of the network from a configuration."""

import jax.numpy as jnp
import ml_collections

from oneflow_jax.canvas import AttentionPattern
from oneflow_jax.errors import UserError
from oneflow_jax.nn import backbone, two_tower
from oneflow_jax.nn.model import Model
from oneflow_jax.paradigms import base

MODELS = {"language": two_tower.TextModel, "lmfusion": two_tower.TwoTowerModel}
"""Classes of the networks of paradigms that do not have the usual network, `Model`."""


def make_model(
    config: ml_collections.ConfigDict, vocab_size: int, paradigm: base.Paradigm
) -> Model:
    """Build the network.

    Raises:
        UserError: sizes contradict each other.
    """
    sizes = config.model.to_dict()
    embedding = {
        name: sizes.pop(name) for name in ("embed_width", "embed_projection", "tied_embeddings")
    }
    scales = {name: sizes.pop(name) for name in ("embed_scale", "logit_cap")}
    _check_embedding(sizes["width"], **embedding)
    if sizes["sliding_window"] and paradigm.attention_pattern is AttentionPattern.BIDIRECTIONAL:
        raise UserError(
            f"model.sliding_window={sizes['sliding_window']}: in {config.paradigm.name} a slot "
            f"attends to {paradigm.attention_pattern.value}. Set it to 0, or use a paradigm that "
            "writes from left to right."
        )
    kv_heads = sizes["kv_heads"]
    for name, divisor, label in (
        ("head_width", 8, "8"),
        ("heads", kv_heads, f"model.kv_heads={kv_heads}"),
    ):
        if sizes[name] % divisor:
            raise UserError(
                f"model.{name}={sizes[name]}: not a multiple of {label}. Give a multiple."
            )
    size = backbone.TransformerConfig(**sizes | {"dtype": jnp.dtype(sizes["dtype"])})
    return MODELS.get(config.paradigm.name, Model)(
        config=size,
        vocab=vocab_size,
        heads=paradigm.heads,
        attention_pattern=paradigm.attention_pattern,
        has_flow_map=config.paradigm.flow_map,
        **embedding,
        **scales,
    )


def _check_embedding(
    width: int, embed_width: int, *, embed_projection: bool, tied_embeddings: bool
) -> None:
    if embed_width != width and (tied_embeddings or not embed_projection):
        raise UserError(
            f"model.embed_width={embed_width}: with model.embed_projection={embed_projection} and "
            f"model.tied_embeddings={tied_embeddings}, it must equal model.width={width}. Set it "
            "to this width."
        )
