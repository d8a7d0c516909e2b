"""Reproducible random weights of FID's Inception."""

import zlib

import numpy as np

from oneflow_jax.pretrained import inception


def random_tensors():
    """Return the tensors of pytorch-fid's file; those of convolutions and norms are random."""
    tensors = {"fc.weight": np.zeros((1008, 2048), "f4"), "fc.bias": np.zeros(1008, "f4")}
    for name, shape in inception._kernel_shapes().items():
        rng = np.random.default_rng(zlib.crc32(name.encode()))
        deviation = float(np.sqrt(0.8 / np.prod(shape[1:])))
        tensors[f"{name}.conv.weight"] = deviation * rng.standard_normal(shape, np.float32)
        tensors[f"{name}.bn.weight"] = 1 + 0.2 * rng.standard_normal(shape[0], np.float32)
        tensors[f"{name}.bn.bias"] = 0.2 * rng.standard_normal(shape[0], np.float32)
        tensors[f"{name}.bn.running_mean"] = 0.2 * rng.standard_normal(shape[0], np.float32)
        # Some variances are so small that the epsilon matters.
        tensors[f"{name}.bn.running_var"] = rng.uniform(0.01, 1.5, shape[0]).astype("f4")
        tensors[f"{name}.bn.num_batches_tracked"] = np.asarray(7)
    return tensors


def smooth_images(count, height, width):
    """Return reproducible images: smooth waves of color, with noise."""
    rng = np.random.default_rng(0)
    rows, columns = np.mgrid[:height, :width]
    phase, speed = rng.uniform(0, 6, (2, count, 1, 1, 3))
    waves = np.sin(phase + speed * (rows / height + 2 * columns / width)[None, :, :, None])
    grain = rng.normal(0, 20, (count, height, width, 3))
    return np.clip(127 + 100 * waves + grain, 0, 255).astype(np.uint8)
