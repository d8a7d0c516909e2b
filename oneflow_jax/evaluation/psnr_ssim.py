"""How alike two pictures are, pixel by pixel: PSNR, and SSIM in windows."""

import numpy as np
from jaxtyping import Float, UInt8
from scipy import ndimage

from oneflow_jax.errors import UserError

WINDOW = 11
"""Pixels that SSIM's window is high and wide."""

_STD = 1.5  # of the window's Gaussian, in pixels
_DATA_RANGE = 255
_C1, _C2 = (0.01 * _DATA_RANGE) ** 2, (0.03 * _DATA_RANGE) ** 2


def psnr(
    x: UInt8[np.ndarray, "B h w 3"], y: UInt8[np.ndarray, "B h w 3"]
) -> Float[np.ndarray, "B"]:
    """Peak signal-to-noise ratio of each pair in dB: 10 log10(255² / mean squared difference).

    Infinite for a picture and itself, and so is then the mean over pictures: take the median, or
    say how many are the same and average the rest.

    Raises:
        UserError: no uint8 pictures of one shape.
    """
    x, y = _validate_images(x, y)
    error = np.mean(np.square(x - y), axis=(1, 2, 3))
    with np.errstate(divide="ignore"):
        return 10 * np.log10(_DATA_RANGE**2 / error)


def ssim(
    x: UInt8[np.ndarray, "B h w 3"], y: UInt8[np.ndarray, "B h w 3"]
) -> Float[np.ndarray, "B"]:
    """Structural similarity of each pair: 1 for a picture and itself, about 0 for unlike ones.

    Wang, Bovik, Sheikh, Simoncelli, Image Quality Assessment: From Error Visibility to Structural
    Similarity (2004), eq. 13: a Gaussian window of 11 x 11 pixels with deviation 1.5, K1 = 0.01,
    K2 = 0.03; the mean over red, green and blue and over all places where the window is inside.

    Raises:
        UserError: no uint8 pictures of one shape, or smaller than the window.
    """
    x, y = _validate_images(x, y)
    if min(x.shape[1:3]) < WINDOW:
        raise UserError(
            f"SSIM wants pictures of {WINDOW} x {WINDOW} pixels or larger, not "
            f"{x.shape[1]} x {x.shape[2]}: enlarge them."
        )
    mean, other_mean = _gaussian_blur(x), _gaussian_blur(y)
    variance = _gaussian_blur(x**2) - mean**2
    other_variance = _gaussian_blur(y**2) - other_mean**2
    covariance = _gaussian_blur(x * y) - mean * other_mean
    luminance = (2 * mean * other_mean + _C1) / (mean**2 + other_mean**2 + _C1)
    structure = (2 * covariance + _C2) / (variance + other_variance + _C2)
    return np.mean(luminance * structure, axis=(1, 2, 3))


def _validate_images(x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Both in float64, if they can be compared."""
    for pictures in (x, y):
        if pictures.dtype != np.uint8 or pictures.ndim != 4 or pictures.shape[3] != 3:
            raise UserError(
                f"Give uint8 pictures [B H W 3], not {pictures.dtype} {pictures.shape}."
            )
    if x.shape != y.shape:
        raise UserError(f"Give as many pictures of one size, not {x.shape} and {y.shape}.")
    return x.astype(np.float64), y.astype(np.float64)


def _gaussian_blur(values: Float[np.ndarray, "B h w 3"]) -> Float[np.ndarray, "B r s 3"]:
    """Weighted means in the window, wherever it is inside the picture."""
    edge = WINDOW // 2
    means = ndimage.gaussian_filter(values, _STD, radius=edge, axes=(1, 2))
    return means[:, edge:-edge, edge:-edge]
