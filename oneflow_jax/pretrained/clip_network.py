"""CLIP's two transformers as functions of their weights, which are stored by transformers' names.

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
from oneflow_jax.pretrained.clip_config import Config, Text, Tower
from oneflow_jax.pretrained.tensors import Stored
from oneflow_jax.shapes import Array, Float, Int


class Affine(NamedTuple):
    """Weights of a matrix `[*n i o]` or of a normalization `[*n d]`, and biases."""

    weight: Float[Array, "..."]
    bias: Float[Array, "..."]


class Layers(NamedTuple):
    """Weights of all layers of a transformer, with the layer as the first axis."""

    before_attention: Affine
    query: Affine
    key: Affine
    value: Affine
    out: Affine
    before_mlp: Affine
    widening: Affine
    narrowing: Affine


class TextParams(NamedTuple):
    """Weights of the transformer for captions."""

    tokens: Float[Array, "V D"]
    positions: Float[Array, "L D"]
    layers: Layers
    after: Affine
    projection: Float[Array, "D P"]


class VisionParams(NamedTuple):
    """Weights of the transformer for pictures."""

    whole: Float[Array, "D"]
    patches: Float[Array, "p p 3 D"]
    positions: Float[Array, "L D"]
    before: Affine
    layers: Layers
    after: Affine
    projection: Float[Array, "D P"]


def text_params(stored: Stored, config: Config) -> TextParams:
    """Takes the weights for captions out of what is stored.

    Raises:
        UserError: some are missing, or of other shapes.
    """
    shape, take = config.text, functools.partial(_taken, stored)
    width, at = shape.hidden_size, "text_model."
    return TextParams(
        take(f"{at}embeddings.token_embedding.weight", shape.vocab_size, width),
        take(f"{at}embeddings.position_embedding.weight", shape.max_position_embeddings, width),
        _layers(stored, at, shape),
        _affine(stored, f"{at}final_layer_norm", width),
        take("text_projection.weight", config.projection_dim, width).T,
    )


def vision_params(stored: Stored, config: Config) -> VisionParams:
    """Takes the weights for pictures out of what is stored.

    Raises:
        UserError: some are missing, or of other shapes.
    """
    shape, take = config.vision, functools.partial(_taken, stored)
    width, patch, at = shape.hidden_size, shape.patch_size, "vision_model."
    places = (shape.image_size // patch) ** 2 + 1
    patches = take(f"{at}embeddings.patch_embedding.weight", width, 3, patch, patch)
    return VisionParams(
        take(f"{at}embeddings.class_embedding", width),
        patches.transpose(2, 3, 1, 0),
        take(f"{at}embeddings.position_embedding.weight", places, width),
        _affine(stored, f"{at}pre_layrnorm", width),  # Spelled so there.
        _layers(stored, at, shape),
        _affine(stored, f"{at}post_layernorm", width),
        take("visual_projection.weight", config.projection_dim, width).T,
    )


@functools.partial(jax.jit, static_argnames="shape")
def read(params: TextParams, shape: Text, tokens: Int[Array, "B L"]) -> Float[Array, "B P"]:
    """Captions as vectors of length 1: what the first token that means the end has gathered.

    Args:
        params: weights.
        shape: of the transformer.
        tokens: what follows the end changes nothing.
    """
    is_end = (
        tokens if shape.eos_token_id == clip_config.LEGACY_END else tokens == shape.eos_token_id
    )
    with jax.default_matmul_precision("highest"):
        x = params.tokens[tokens] + params.positions[None]
        x = _transformed(x, params.layers, shape, causal=True)
        end = jnp.argmax(is_end, axis=1)
        x = jnp.take_along_axis(x, end.reshape(-1, 1, 1), axis=1)
        return _unit(_normalized(x, params.after, shape)[:, 0] @ params.projection)


@functools.partial(jax.jit, static_argnames="config")
def look(
    params: VisionParams, config: Config, pictures: UInt8[Array, "B s s 3"]
) -> Float[Array, "B P"]:
    """Pictures as vectors of length 1: what a token ahead of all patches has gathered.

    Args:
        params: weights.
        config: of the model.
        pictures: of `image_size`, 0 to 255.
    """
    shape = config.vision
    mean, deviation = (
        np.asarray(color, np.float32).reshape(1, 1, 1, 3)
        for color in (config.mean, config.deviation)
    )
    pixels = (pictures / jnp.float32(255) - mean) / deviation
    with jax.default_matmul_precision("highest"):
        stride = (shape.patch_size, shape.patch_size)
        axes = ("NHWC", "HWIO", "NHWC")
        x = lax.conv_general_dilated(
            pixels, params.patches, stride, "VALID", dimension_numbers=axes
        )
        x = x.reshape(len(x), -1, shape.hidden_size)
        whole = jnp.broadcast_to(params.whole, (len(x), 1, shape.hidden_size))
        x = jnp.concatenate([whole, x], axis=1) + params.positions[None]
        x = _transformed(_normalized(x, params.before, shape), params.layers, shape, causal=False)
        return _unit(_normalized(x[:, :1], params.after, shape)[:, 0] @ params.projection)


def _taken(stored: Stored, name: str, *shape: int) -> Float[Array, "..."]:
    return jnp.asarray(stored.take(name, shape))


def _affine(stored: Stored, name: str, outputs: int, *inputs: int) -> Affine:
    """A matrix, if it has inputs, as [i o]; or a normalization."""
    weight = stored.take(f"{name}.weight", (outputs, *inputs))
    return Affine(jnp.asarray(weight.T), _taken(stored, f"{name}.bias", outputs))


def _layers(stored: Stored, at: str, shape: Tower) -> Layers:
    width, inner = shape.hidden_size, shape.intermediate_size
    parts = Layers(
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
        Layers(*(_affine(stored, f"{at}encoder.layers.{i}.{name}", *size) for name, *size in parts))
        for i in range(shape.num_hidden_layers)
    ]
    return jax.tree.map(lambda *every: jnp.stack(every), *layers)


def _transformed(
    x: Float[Array, "B L D"], layers: Layers, shape: Tower, causal: bool
) -> Float[Array, "B L D"]:
    def layer(x: Array, weights: Layers) -> tuple[Array, None]:
        normal = _normalized(x, weights.before_attention, shape)
        x = x + _attention(normal, weights, shape.num_attention_heads, causal)
        inner = _times(_normalized(x, weights.before_mlp, shape), weights.widening)
        if shape.hidden_act == "quick_gelu":
            inner = inner * jax.nn.sigmoid(1.702 * inner)
        else:
            inner = jax.nn.gelu(inner, approximate=False)
        return x + _times(inner, weights.narrowing), None

    return lax.scan(layer, x, layers)[0]


def _attention(
    x: Float[Array, "B L D"], weights: Layers, heads: int, causal: bool
) -> Float[Array, "B L D"]:
    """Each place looks at all places, or if causal at itself and those ahead of it."""
    length = x.shape[1]
    query, key, value = (
        _times(x, part).reshape(len(x), length, heads, -1)
        for part in (weights.query, weights.key, weights.value)
    )
    match = jnp.einsum("blha,bmha->bhlm", query, key) / np.sqrt(query.shape[-1])
    if causal:
        seen = np.tril(np.ones((1, 1, length, length), bool))
        match = jnp.where(seen, match, -jnp.inf)
    gathered = jnp.einsum("bhlm,bmha->blha", jax.nn.softmax(match), value)
    return _times(gathered.reshape(x.shape), weights.out)


def _times(x: Float[Array, "B L i"], affine: Affine) -> Float[Array, "B L o"]:
    return x @ affine.weight + affine.bias.reshape(1, 1, -1)


def _normalized(x: Float[Array, "B L D"], affine: Affine, shape: Tower) -> Float[Array, "B L D"]:
    """Layer normalization."""
    x = x - jnp.mean(x, axis=-1, keepdims=True)
    x = x * lax.rsqrt(jnp.mean(jnp.square(x), axis=-1, keepdims=True) + shape.layer_norm_eps)
    return x * affine.weight.reshape(1, 1, -1) + affine.bias.reshape(1, 1, -1)


def _unit(x: Float[Array, "B P"]) -> Float[Array, "B P"]:
    return x / jnp.linalg.norm(x, axis=-1, keepdims=True)
