"""Weights of a pretrained language model, read from Hugging Face's safetensors files.

| `transformers`                          | here, layers stacked along a first axis           |
|-----------------------------------------|---------------------------------------------------|
| embed_tokens, lm_head (unless tied)     | embedding, head `[V D]`                           |
| norm                                    | norm `[D]`                                        |
| input_layernorm                         | attention_norm/scale `[N D]`                      |
| q_proj `[HA D]`, and k, v               | attention/query/kernel `[N D H A]`, key, value    |
| bias of q_proj `[HA]`, and k, v         | attention/query/bias `[N H A]`, key, value        |
| q_norm, k_norm                          | attention/query_norm/scale `[N A]`, key_norm      |
| o_proj `[D HA]`                         | attention/out/kernel `[N H A D]`                  |
| post_attention_layernorm                | mlp_norm/scale `[N D]`                            |
| gate_proj, up_proj `[F D]`              | mlp/gate/kernel, mlp/up/kernel `[N D F]`          |
| down_proj `[D F]`                       | mlp/down/kernel `[N F D]`                         |

Gemma has norms before and after attention and the MLP (`POST_NORMS`). It stores the scales of norms
minus 1, and its scores have another factor. So scales and queries are converted: see `norm_offset`
and `query_scale` of `LanguageModelConfig`.
"""

from typing import NamedTuple

import numpy as np
from etils import epath

from oneflow_jax.pretrained.language_config import LanguageModelConfig
from oneflow_jax.pretrained.tensors import TensorFile
from oneflow_jax.shapes import Float

WEIGHT_FILES = ("model.safetensors", "model.safetensors.index.json")
"""Names of weight files in order of precedence; the first existing file is read."""


PRE_NORMS = {"attention_norm": "input_layernorm", "mlp_norm": "post_attention_layernorm"}
"""Norms of a layer, with their names in the file."""

POST_NORMS = {
    "attention_norm": "input_layernorm",
    "attention_post_norm": "post_attention_layernorm",
    "mlp_norm": "pre_feedforward_layernorm",
    "mlp_post_norm": "post_feedforward_layernorm",
}
"""Norms of a layer with norms before and after attention and the MLP."""


class LanguageModelWeights(NamedTuple):
    """Weights of a language model in float32.

    Attributes:
        embedding: token embeddings.
        head: rows of the output head; None if it is tied to the embeddings.
        norm: scale of the last norm.
        block: parameters of the layers, by path.
    """

    embedding: Float[np.ndarray, "V D"]
    head: Float[np.ndarray, "V D"] | None
    norm: Float[np.ndarray, "D"]
    block: dict[str, np.ndarray]


def read(folder: epath.Path, config: LanguageModelConfig) -> LanguageModelWeights:
    """Read the weights of the language model in a folder.

    Args:
        folder: folder of the model.
        config: the shape of the model, `language_config.read(folder)`.

    Raises:
        UserError: the file does not exist or is damaged, or its tensors do not fit the shape.
    """
    here = [folder / name for name in WEIGHT_FILES if (folder / name).exists()]
    stored = TensorFile(here[0] if here else folder / WEIGHT_FILES[0])
    c = config
    embedding = stored.pop("model.embed_tokens.weight", (c.vocab_size, c.width))
    norm = stored.pop("model.norm.weight", (c.width,)) + np.float32(c.norm_offset)
    head = None
    if not c.tied_embeddings:
        head = stored.pop("lm_head.weight", (c.vocab_size, c.width))
    layers = [_read_layer(stored, f"model.layers.{n}", c) for n in range(c.layers)]
    # Some files have the tied head once more, or the frequencies of the rotary embeddings.
    stored.discard(".rotary_emb.inv_freq", *(("lm_head.weight",) if c.tied_embeddings else ()))
    stored.assert_empty()
    block = {name: np.stack([layer.pop(name) for layer in layers]) for name in list(layers[0])}
    return LanguageModelWeights(embedding, head, norm, block)


def _read_layer(
    stored: TensorFile, prefix: str, c: LanguageModelConfig
) -> dict[str, Float[np.ndarray, "..."]]:
    def pop(name: str, *shape: int) -> np.ndarray:
        return stored.pop(f"{prefix}.{name}", shape)

    def pop_norm(name: str, width: int) -> np.ndarray:
        return pop(f"{name}.weight", width) + np.float32(c.norm_offset)

    norms = POST_NORMS if c.post_norms else PRE_NORMS
    layer = {f"{ours}/scale": pop_norm(theirs, c.width) for ours, theirs in norms.items()}
    for ours, theirs, heads in (
        ("query", "q", c.heads),
        ("key", "k", c.kv_heads),
        ("value", "v", c.kv_heads),
    ):
        kernel = pop(f"self_attn.{theirs}_proj.weight", heads * c.head_width, c.width)
        layer[f"attention/{ours}/kernel"] = kernel.T.reshape(c.width, heads, c.head_width)
        if c.qkv_bias:
            bias = pop(f"self_attn.{theirs}_proj.bias", heads * c.head_width)
            layer[f"attention/{ours}/bias"] = bias.reshape(heads, c.head_width)
    if c.qk_norm:
        layer["attention/query_norm/scale"] = pop_norm("self_attn.q_norm", c.head_width)
        layer["attention/key_norm/scale"] = pop_norm("self_attn.k_norm", c.head_width)
    # The last linear map of queries is their norm, or else their projection, which has no bias in
    # models with this factor.
    last = "attention/query_norm/scale" if c.qk_norm else "attention/query/kernel"
    layer[last] = layer[last] * np.float32(c.query_scale)
    out = pop("self_attn.o_proj.weight", c.width, c.heads * c.head_width)
    layer["attention/out/kernel"] = out.T.reshape(c.heads, c.head_width, c.width)
    for ours, shape in (
        ("gate", (c.hidden, c.width)),
        ("up", (c.hidden, c.width)),
        ("down", (c.width, c.hidden)),
    ):
        layer[f"mlp/{ours}/kernel"] = pop(f"mlp.{ours}_proj.weight", *shape).T
    return layer
