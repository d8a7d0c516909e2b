"""Pixel-level similarity of image pairs: PSNR and SSIM."""

import numpy as np
from jaxtyping import Float, UInt8
from scipy import ndimage

from oneflow_jax.errors import UserError

WINDOW = 11
"""Height and width of SSIM's window, in pixels."""

_STD = 1.5  # std of the window's Gaussian, in pixels
_DATA_RANGE = 255
_C1, _C2 = (0.01 * _DATA_RANGE) ** 2, (0.03 * _DATA_RANGE) ** 2


def psnr(
    x: UInt8[np.ndarray, "B h w 3"], y: UInt8[np.ndarray, "B h w 3"]
) -> Float[np.ndarray, "B"]:
    """Compute the peak signal-to-noise ratio of each pair, in dB: 10 log10(255² / MSE).

    The PSNR of identical images is infinite, and so is a mean that includes them. Report the
    median, or the number of identical pairs and the mean of the other pairs.

    Raises:
        UserError: the images are not uint8, or their shapes differ.
    """
    x, y = _validate_images(x, y)
    error = np.mean(np.square(x - y), axis=(1, 2, 3))
    with np.errstate(divide="ignore"):
        return 10 * np.log10(_DATA_RANGE**2 / error)


def ssim(
    x: UInt8[np.ndarray, "B h w 3"], y: UInt8[np.ndarray, "B h w 3"]
) -> Float[np.ndarray, "B"]:
    """Compute the structural similarity of each pair: 1 if identical, about 0 if unrelated.

    The metric is eq. 13 of Wang, Bovik, Sheikh, Simoncelli, Image Quality Assessment: From Error
    Visibility to Structural Similarity (2004), with K1 = 0.01, K2 = 0.03, and a Gaussian window of
    11 x 11 pixels with std 1.5 pixels. The result is the mean over the color channels and over all
    windows that lie inside the image.

    Raises:
        UserError: the images are not uint8, their shapes differ, or they are smaller than the
            window.
    """
    x, y = _validate_images(x, y)
    if min(x.shape[1:3]) < WINDOW:
        raise UserError(
            f"SSIM needs images of at least {WINDOW} x {WINDOW} pixels, not "
            f"{x.shape[1]} x {x.shape[2]}. Enlarge them."
        )
    mean, other_mean = _gaussian_blur(x), _gaussian_blur(y)
    variance = _gaussian_blur(x**2) - mean**2
    other_variance = _gaussian_blur(y**2) - other_mean**2
    covariance = _gaussian_blur(x * y) - mean * other_mean
    luminance = (2 * mean * other_mean + _C1) / (mean**2 + other_mean**2 + _C1)
    structure = (2 * covariance + _C2) / (variance + other_variance + _C2)
    return np.mean(luminance * structure, axis=(1, 2, 3))


def _validate_images(x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Check that two batches of images can be compared, and return them in float64."""
    for pictures in (x, y):
        if pictures.dtype != np.uint8 or pictures.ndim != 4 or pictures.shape[3] != 3:
            raise UserError(f"Give uint8 images [B H W 3], not {pictures.dtype} {pictures.shape}.")
    if x.shape != y.shape:
        raise UserError(f"Give image batches of equal shape, not {x.shape} and {y.shape}.")
    return x.astype(np.float64), y.astype(np.float64)


def _gaussian_blur(values: Float[np.ndarray, "B h w 3"]) -> Float[np.ndarray, "B r s 3"]:
    """Return Gaussian-weighted means over all windows that lie inside the image."""
    edge = WINDOW // 2
    means = ndimage.gaussian_filter(values, _STD, radius=edge, axes=(1, 2))
    return means[:, edge:-edge, edge:-edge]
