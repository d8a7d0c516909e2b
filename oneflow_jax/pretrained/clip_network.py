"""Forward passes of CLIP's two transformers, with the tensor names of Hugging Face's transformers.

Radford et al., Learning Transferable Visual Models From Natural Language Supervision (2021).
"""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import UInt8

from oneflow_jax.pretrained import clip_config
from oneflow_jax.pretrained.clip_config import ClipConfig, TextConfig, TowerConfig
from oneflow_jax.pretrained.tensors import TensorFile
from oneflow_jax.shapes import Array, Float, Int


class Affine(NamedTuple):
    """Weight and bias. The weight is `[*n i o]` in a linear layer and `[*n d]` in a norm layer."""

    weight: Float[Array, "..."]
    bias: Float[Array, "..."]


class LayerParams(NamedTuple):
    """Weights of all layers of a transformer, stacked along the first axis."""

    layer_norm1: Affine
    query: Affine
    key: Affine
    value: Affine
    out: Affine
    layer_norm2: Affine
    fc1: Affine
    fc2: Affine


class TextParams(NamedTuple):
    """Weights of the text transformer."""

    token_embedding: Float[Array, "V D"]
    position_embedding: Float[Array, "L D"]
    layers: LayerParams
    final_layer_norm: Affine
    projection: Float[Array, "D P"]


class VisionParams(NamedTuple):
    """Weights of the vision transformer."""

    class_embedding: Float[Array, "D"]
    patch_embedding: Float[Array, "p p 3 D"]
    position_embedding: Float[Array, "L D"]
    pre_layer_norm: Affine
    layers: LayerParams
    post_layer_norm: Affine
    projection: Float[Array, "D P"]


def read_text_params(tensors: TensorFile, config: ClipConfig) -> TextParams:
    """Pop the weights of the text transformer from the tensors of a file.

    Raises:
        UserError: a tensor is missing or has another shape.
    """
    shape, take = config.text, functools.partial(_pop_array, tensors)
    width, at = shape.hidden_size, "text_model."
    return TextParams(
        take(f"{at}embeddings.token_embedding.weight", shape.vocab_size, width),
        take(f"{at}embeddings.position_embedding.weight", shape.max_position_embeddings, width),
        _read_layers(tensors, at, shape),
        _read_affine(tensors, f"{at}final_layer_norm", width),
        take("text_projection.weight", config.projection_dim, width).T,
    )


def read_vision_params(tensors: TensorFile, config: ClipConfig) -> VisionParams:
    """Pop the weights of the vision transformer from the tensors of a file.

    Raises:
        UserError: a tensor is missing or has another shape.
    """
    shape, take = config.vision, functools.partial(_pop_array, tensors)
    width, patch, at = shape.hidden_size, shape.patch_size, "vision_model."
    places = (shape.image_size // patch) ** 2 + 1
    patches = take(f"{at}embeddings.patch_embedding.weight", width, 3, patch, patch)
    return VisionParams(
        take(f"{at}embeddings.class_embedding", width),
        patches.transpose(2, 3, 1, 0),
        take(f"{at}embeddings.position_embedding.weight", places, width),
        _read_affine(tensors, f"{at}pre_layrnorm", width),  # The misspelling is in the files.
        _read_layers(tensors, at, shape),
        _read_affine(tensors, f"{at}post_layernorm", width),
        take("visual_projection.weight", config.projection_dim, width).T,
    )


@functools.partial(jax.jit, static_argnames="config")
def encode_text(
    params: TextParams, config: TextConfig, tokens: Int[Array, "B L"]
) -> Float[Array, "B P"]:
    """Encode captions as unit vectors: the projected output at the first end token.

    Args:
        params: weights.
        config: configuration of the text transformer.
        tokens: token ids. The tokens after the end token have no effect.
    """
    is_end = (
        tokens if config.eos_token_id == clip_config.LEGACY_EOS else tokens == config.eos_token_id
    )
    with jax.default_matmul_precision("highest"):
        x = params.token_embedding[tokens] + params.position_embedding[None]
        x = _transformer(x, params.layers, config, causal=True)
        end = jnp.argmax(is_end, axis=1)
        x = jnp.take_along_axis(x, end.reshape(-1, 1, 1), axis=1)
        return _l2_normalize(
            _layer_norm(x, params.final_layer_norm, config)[:, 0] @ params.projection
        )


@functools.partial(jax.jit, static_argnames="config")
def encode_image(
    params: VisionParams, config: ClipConfig, images: UInt8[Array, "B s s 3"]
) -> Float[Array, "B P"]:
    """Encode images as unit vectors: the projected output at the class token.

    Args:
        params: weights.
        config: configuration of the model.
        images: images of `image_size` pixels, 0 to 255.
    """
    shape = config.vision
    mean, deviation = (
        np.asarray(color, np.float32).reshape(1, 1, 1, 3) for color in (config.mean, config.std)
    )
    pixels = (images / jnp.float32(255) - mean) / deviation
    with jax.default_matmul_precision("highest"):
        stride = (shape.patch_size, shape.patch_size)
        axes = ("NHWC", "HWIO", "NHWC")
        x = lax.conv_general_dilated(
            pixels, params.patch_embedding, stride, "VALID", dimension_numbers=axes
        )
        x = x.reshape(len(x), -1, shape.hidden_size)
        whole = jnp.broadcast_to(params.class_embedding, (len(x), 1, shape.hidden_size))
        x = jnp.concatenate([whole, x], axis=1) + params.position_embedding[None]
        x = _transformer(
            _layer_norm(x, params.pre_layer_norm, shape), params.layers, shape, causal=False
        )
        return _l2_normalize(
            _layer_norm(x[:, :1], params.post_layer_norm, shape)[:, 0] @ params.projection
        )


def _pop_array(tensors: TensorFile, name: str, *shape: int) -> Float[Array, "..."]:
    return jnp.asarray(tensors.pop(name, shape))


def _read_affine(tensors: TensorFile, name: str, output_size: int, *input_size: int) -> Affine:
    """Read a linear layer or, without `input_size`, a layer norm; the weight is transposed."""
    weight = tensors.pop(f"{name}.weight", (output_size, *input_size))
    return Affine(jnp.asarray(weight.T), _pop_array(tensors, f"{name}.bias", output_size))


def _read_layers(tensors: TensorFile, prefix: str, config: TowerConfig) -> LayerParams:
    width, inner = config.hidden_size, config.intermediate_size
    parts = LayerParams(
        ("layer_norm1", width),
        ("self_attn.q_proj", width, width),
        ("self_attn.k_proj", width, width),
        ("self_attn.v_proj", width, width),
        ("self_attn.out_proj", width, width),
        ("layer_norm2", width),
        ("mlp.fc1", inner, width),
        ("mlp.fc2", width, inner),
    )
    layers = [
        LayerParams(
            *(
                _read_affine(tensors, f"{prefix}encoder.layers.{i}.{name}", *size)
                for name, *size in parts
            )
        )
        for i in range(config.num_hidden_layers)
    ]
    return jax.tree.map(lambda *leaves: jnp.stack(leaves), *layers)


def _transformer(
    x: Float[Array, "B L D"], layers: LayerParams, config: TowerConfig, causal: bool
) -> Float[Array, "B L D"]:
    def layer(x: Array, weights: LayerParams) -> tuple[Array, None]:
        normal = _layer_norm(x, weights.layer_norm1, config)
        x = x + _attention(normal, weights, config.num_attention_heads, causal)
        inner = _linear(_layer_norm(x, weights.layer_norm2, config), weights.fc1)
        if config.hidden_act == "quick_gelu":
            inner = inner * jax.nn.sigmoid(1.702 * inner)
        else:
            inner = jax.nn.gelu(inner, approximate=False)
        return x + _linear(inner, weights.fc2), None

    return lax.scan(layer, x, layers)[0]


def _attention(
    x: Float[Array, "B L D"], weights: LayerParams, num_heads: int, causal: bool
) -> Float[Array, "B L D"]:
    """Compute multi-head self-attention, optionally with a causal mask."""
    length = x.shape[1]
    query, key, value = (
        _linear(x, part).reshape(len(x), length, num_heads, -1)
        for part in (weights.query, weights.key, weights.value)
    )
    match = jnp.einsum("blha,bmha->bhlm", query, key) / np.sqrt(query.shape[-1])
    if causal:
        seen = np.tril(np.ones((1, 1, length, length), bool))
        match = jnp.where(seen, match, -jnp.inf)
    gathered = jnp.einsum("bhlm,bmha->blha", jax.nn.softmax(match), value)
    return _linear(gathered.reshape(x.shape), weights.out)


def _linear(x: Float[Array, "B L i"], affine: Affine) -> Float[Array, "B L o"]:
    return x @ affine.weight + affine.bias.reshape(1, 1, -1)


def _layer_norm(
    x: Float[Array, "B L D"], affine: Affine, config: TowerConfig
) -> Float[Array, "B L D"]:
    """Apply layer normalization."""
    x = x - jnp.mean(x, axis=-1, keepdims=True)
    x = x * lax.rsqrt(jnp.mean(jnp.square(x), axis=-1, keepdims=True) + config.layer_norm_eps)
    return x * affine.weight.reshape(1, 1, -1) + affine.bias.reshape(1, 1, -1)


def _l2_normalize(x: Float[Array, "B P"]) -> Float[Array, "B P"]:
    return x / jnp.linalg.norm(x, axis=-1, keepdims=True)
