"""Inception v3 image features for FID: 2,048 values.

The network is that of Szegedy et al., Rethinking the Inception Architecture (2015), in the version
that Google published on 2015-12-05. Heusel et al., GANs Trained by a Two Time-Scale Update Rule
(2017), used this version for the Fréchet Inception distance (FID).

The user provides the weights: the file that pytorch-fid downloads,
`pt_inception-2015-12-05-6726825d.pth`, or a `.safetensors` file with the same tensor names. The
architecture is that of pytorch-fid, which follows TensorFlow's graph. It differs from torchvision's
architecture in two ways: average pooling does not count padding, and the last block uses max
pooling.

For two sets of these features, `evaluation.fid_kid.frechet_distance` computes FID and
`kernel_distance` computes KID.
"""

import functools
import os
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from etils import epath
from jax import lax
from jaxtyping import UInt8

from oneflow_jax.pretrained import batches
from oneflow_jax.pretrained.tensors import TensorFile
from oneflow_jax.shapes import Array, Float

IMAGE_SIZE = 299
"""Height and width to which images are resized, in pixels."""

NUM_FEATURES = 2048

_NUM_CLASSES = 1008
"""Number of classes of the classifier, which FID does not use. In torchvision it is 1,000."""

_EPSILON = 1e-3
"""Constant that batch normalization adds to the variance; the default of TensorFlow."""

_Size = int | tuple[int, int]
_ConvFn = Callable[..., Float[Array, "B r s o"]]
"""Convolution followed by ReLU: (x, name, outputs, size, stride=1, padding="SAME") -> y."""


class Conv(NamedTuple):
    """A convolution into which the next batch normalization has been folded.

    Attributes:
        kernel: `[height, width, inputs, outputs]`.
        bias: `[outputs]`.
    """

    kernel: Float[Array, "h w i o"]
    bias: Float[Array, "o"]


class Inception(NamedTuple):
    """Weights of the network.

    Attributes:
        convs: convolutions by layer name. The names are those of torchvision.
    """

    convs: dict[str, Conv]


def load(path: str | os.PathLike) -> Inception:
    """Load the weights from the user's file.

    Raises:
        UserError: the file does not exist, or belongs to a network other than FID's. The message
            names the file and the tensor.
    """
    stored = TensorFile(epath.Path(path))
    convs = {
        name: _fold_batch_norm(stored, name, shape) for name, shape in _kernel_shapes().items()
    }
    # Check the classifier's shape, so that torchvision's ImageNet network is rejected.
    stored.pop("fc.weight", (_NUM_CLASSES, NUM_FEATURES))
    stored.pop("fc.bias", (_NUM_CLASSES,))
    stored.discard(".bn.num_batches_tracked")
    stored.assert_empty()
    return Inception(convs)


def features(
    inception: Inception, images: UInt8[np.ndarray, "n h w 3"], batch_size: int = 16
) -> Float[np.ndarray, "n 2048"]:
    """Compute the features of each image: activations >= 0, averaged over all positions.

    Args:
        inception: weights returned by `load`.
        images: RGB images, 0 to 255, all of one size. As in pytorch-fid, the function resizes them
            to 299 x 299 pixels bilinearly, without aligned corners and without antialiasing.
            Downscale much larger images beforehand.
        batch_size: images per forward pass.

    Raises:
        UserError: the images are not uint8 RGB images, or `batch_size` is below 1.
    """
    batches.validate_images(images, "Inception")
    return batches.apply_batched(
        functools.partial(_features, inception), images, batch_size, NUM_FEATURES
    )


def _kernel_shapes() -> dict[str, tuple[int, int, int, int]]:
    """Return the shape of each convolution's kernel in PyTorch's order: OIHW."""
    shapes = {}

    def noted(
        x: Array, name: str, outputs: int, size: _Size, stride: int = 1, padding: str = "SAME"
    ) -> Array:
        height, width = np.broadcast_to(size, 2).tolist()
        shapes[name] = (outputs, x.shape[-1], height, width)
        kernel = jnp.zeros((height, width, x.shape[-1], outputs))
        return _conv_relu(x, Conv(kernel, jnp.zeros(outputs)), stride, padding)

    picture = jax.ShapeDtypeStruct((1, IMAGE_SIZE, IMAGE_SIZE, 3), jnp.float32)
    jax.eval_shape(functools.partial(_forward, conv=noted), picture)
    return shapes


def _fold_batch_norm(tensors: TensorFile, name: str, shape: tuple[int, int, int, int]) -> Conv:
    """Fold batch normalization into the preceding convolution, which has no bias."""
    kernel = tensors.pop(f"{name}.conv.weight", shape)
    gain, bias, mean, variance = (
        tensors.pop(f"{name}.bn.{part}", shape[:1])
        for part in ("weight", "bias", "running_mean", "running_var")
    )
    scale = gain / np.sqrt(variance + _EPSILON)
    kernel = np.transpose(kernel, (2, 3, 1, 0)) * scale.reshape(1, 1, 1, -1)
    return Conv(jnp.asarray(kernel), jnp.asarray(bias - mean * scale))


@jax.jit
def _features(inception: Inception, images: UInt8[Array, "B h w 3"]) -> Float[Array, "B 2048"]:
    def conv(
        x: Array, name: str, outputs: int, size: _Size, stride: int = 1, padding: str = "SAME"
    ) -> Array:
        del outputs, size  # The kernel's shape determines both.
        return _conv_relu(x, inception.convs[name], stride, padding)

    shape = (len(images), IMAGE_SIZE, IMAGE_SIZE, 3)
    x = images.astype(jnp.float32) / 255
    return _forward(2 * jax.image.resize(x, shape, "bilinear", antialias=False) - 1, conv)


def _forward(x: Float[Array, "B 299 299 3"], conv: _ConvFn) -> Float[Array, "B 2048"]:
    x = conv(x, "Conv2d_1a_3x3", 32, 3, 2, "VALID")
    x = conv(x, "Conv2d_2a_3x3", 32, 3, 1, "VALID")
    x = _max_pool(conv(x, "Conv2d_2b_3x3", 64, 3), 2, "VALID")
    x = conv(x, "Conv2d_3b_1x1", 80, 1)
    x = _max_pool(conv(x, "Conv2d_4a_3x3", 192, 3, 1, "VALID"), 2, "VALID")
    for name, pooled in (("Mixed_5b", 32), ("Mixed_5c", 64), ("Mixed_5d", 64)):
        x = _block_a(x, conv, name, pooled)
    x = _block_b(x, conv, "Mixed_6a")
    for name, inner in (("Mixed_6b", 128), ("Mixed_6c", 160), ("Mixed_6d", 160), ("Mixed_6e", 192)):
        x = _block_c(x, conv, name, inner)
    x = _block_d(x, conv, "Mixed_7a")
    x = _block_e(x, conv, "Mixed_7b", _avg_pool)
    x = _block_e(x, conv, "Mixed_7c", functools.partial(_max_pool, stride=1, padding="SAME"))
    return jnp.mean(x, axis=(1, 2))


def _block_a(x: Array, conv: _ConvFn, name: str, pool_features: int) -> Array:
    return jnp.concatenate([
        conv(x, f"{name}.branch1x1", 64, 1),
        _sequence(x, conv, f"{name}.branch5x5", (48, 1), (64, 5)),
        _sequence(x, conv, f"{name}.branch3x3dbl", (64, 1), (96, 3), (96, 3)),
        conv(_avg_pool(x), f"{name}.branch_pool", pool_features, 1),
    ], axis=-1)  # fmt: skip


def _block_b(x: Array, conv: _ConvFn, name: str) -> Array:
    """Apply a reduction block, which halves height and width."""
    halved = (96, 3, 2, "VALID")
    return jnp.concatenate([
        conv(x, f"{name}.branch3x3", 384, 3, 2, "VALID"),
        _sequence(x, conv, f"{name}.branch3x3dbl", (64, 1), (96, 3), halved),
        _max_pool(x, 2, "VALID"),
    ], axis=-1)  # fmt: skip


def _block_c(x: Array, conv: _ConvFn, name: str, channels: int) -> Array:
    wide, high = (channels, (1, 7)), (channels, (7, 1))
    double = ((channels, 1), high, wide, high, (192, (1, 7)))
    return jnp.concatenate([
        conv(x, f"{name}.branch1x1", 192, 1),
        _sequence(x, conv, f"{name}.branch7x7", (channels, 1), wide, (192, (7, 1))),
        _sequence(x, conv, f"{name}.branch7x7dbl", *double),
        conv(_avg_pool(x), f"{name}.branch_pool", 192, 1),
    ], axis=-1)  # fmt: skip


def _block_d(x: Array, conv: _ConvFn, name: str) -> Array:
    """Apply a reduction block, which halves height and width."""
    wide, high, halved = (192, (1, 7)), (192, (7, 1)), (192, 3, 2, "VALID")
    return jnp.concatenate([
        _sequence(x, conv, f"{name}.branch3x3", (192, 1), (320, 3, 2, "VALID")),
        _sequence(x, conv, f"{name}.branch7x7x3", (192, 1), wide, high, halved),
        _max_pool(x, 2, "VALID"),
    ], axis=-1)  # fmt: skip


def _block_e(x: Array, conv: _ConvFn, name: str, pool: Callable[[Array], Array]) -> Array:
    single = conv(x, f"{name}.branch3x3_1", 384, 1)
    double = _sequence(x, conv, f"{name}.branch3x3dbl", (448, 1), (384, 3))
    return jnp.concatenate([
        conv(x, f"{name}.branch1x1", 320, 1),
        conv(single, f"{name}.branch3x3_2a", 384, (1, 3)),
        conv(single, f"{name}.branch3x3_2b", 384, (3, 1)),
        conv(double, f"{name}.branch3x3dbl_3a", 384, (1, 3)),
        conv(double, f"{name}.branch3x3dbl_3b", 384, (3, 1)),
        conv(pool(x), f"{name}.branch_pool", 192, 1),
    ], axis=-1)  # fmt: skip


def _sequence(x: Array, conv: _ConvFn, name: str, *layers: tuple) -> Array:
    """Apply convolutions in sequence. The names of the convolutions are numbered from 1."""
    for number, layer in enumerate(layers, 1):
        x = conv(x, f"{name}_{number}", *layer)
    return x


def _conv_relu(
    x: Float[Array, "B h w i"], conv: Conv, stride: int, padding: str
) -> Float[Array, "B r s o"]:
    y = lax.conv_general_dilated(
        x,
        conv.kernel,
        (stride, stride),
        padding,
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
        # Metrics must not depend on the device, and by default TPUs multiply in bfloat16.
        precision=lax.Precision.HIGHEST,
    )
    return jax.nn.relu(y + conv.bias.reshape(1, 1, 1, -1))


def _max_pool(x: Float[Array, "B h w c"], stride: int, padding: str) -> Float[Array, "B r s c"]:
    """Apply 3 x 3 max pooling."""
    return lax.reduce_window(x, -jnp.inf, lax.max, (1, 3, 3, 1), (1, stride, stride, 1), padding)


def _avg_pool(x: Float[Array, "B h w c"]) -> Float[Array, "B h w c"]:
    """Apply 3 x 3 average pooling with stride 1. The average does not include padding."""
    total, count = (
        lax.reduce_window(y, 0.0, lax.add, (1, 3, 3, 1), (1, 1, 1, 1), "SAME")
        for y in (x, jnp.ones((1, *x.shape[1:3], 1), x.dtype))
    )
    return total / count
