"""How alike two pictures are, pixel by pixel: PSNR, and SSIM in windows."""

import numpy as np
from jaxtyping import Float, UInt8
from scipy import ndimage

from oneflow_jax.errors import UserError

WINDOW = 11
"""Pixels that SSIM's window is high and wide."""

_DEVIATION = 1.5  # of the window's Gaussian, in pixels
_RANGE = 255
_C1, _C2 = (0.01 * _RANGE) ** 2, (0.03 * _RANGE) ** 2


def psnr(
    one: UInt8[np.ndarray, "B h w 3"], other: UInt8[np.ndarray, "B h w 3"]
) -> Float[np.ndarray, "B"]:
    """Peak signal-to-noise ratio of each pair in dB: 10 log10(255² / mean squared difference).

    Infinite for a picture and itself, and so is then the mean over pictures: take the median, or
    say how many are the same and average the rest.

    Raises:
        UserError: no uint8 pictures of one shape.
    """
    one, other = _pictures(one, other)
    error = np.mean(np.square(one - other), axis=(1, 2, 3))
    with np.errstate(divide="ignore"):
        return 10 * np.log10(_RANGE**2 / error)


def ssim(
    one: UInt8[np.ndarray, "B h w 3"], other: UInt8[np.ndarray, "B h w 3"]
) -> Float[np.ndarray, "B"]:
    """Structural similarity of each pair: 1 for a picture and itself, about 0 for unlike ones.

    Wang, Bovik, Sheikh, Simoncelli, Image Quality Assessment: From Error Visibility to Structural
    Similarity (2004), eq. 13: a Gaussian window of 11 x 11 pixels with deviation 1.5, K1 = 0.01,
    K2 = 0.03; the mean over red, green and blue and over all places where the window is inside.

    Raises:
        UserError: no uint8 pictures of one shape, or smaller than the window.
    """
    one, other = _pictures(one, other)
    if min(one.shape[1:3]) < WINDOW:
        raise UserError(
            f"SSIM wants pictures of {WINDOW} x {WINDOW} pixels or larger, not "
            f"{one.shape[1]} x {one.shape[2]}: enlarge them."
        )
    mean, other_mean = _blurred(one), _blurred(other)
    variance = _blurred(one**2) - mean**2
    other_variance = _blurred(other**2) - other_mean**2
    covariance = _blurred(one * other) - mean * other_mean
    luminance = (2 * mean * other_mean + _C1) / (mean**2 + other_mean**2 + _C1)
    structure = (2 * covariance + _C2) / (variance + other_variance + _C2)
    return np.mean(luminance * structure, axis=(1, 2, 3))


def _pictures(one: np.ndarray, other: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Both in float64, if they can be compared."""
    for pictures in (one, other):
        if pictures.dtype != np.uint8 or pictures.ndim != 4 or pictures.shape[3] != 3:
            raise UserError(
                f"Give uint8 pictures [B H W 3], not {pictures.dtype} {pictures.shape}."
            )
    if one.shape != other.shape:
        raise UserError(f"Give as many pictures of one size, not {one.shape} and {other.shape}.")
    return one.astype(np.float64), other.astype(np.float64)


def _blurred(values: Float[np.ndarray, "B h w 3"]) -> Float[np.ndarray, "B r s 3"]:
    """Weighted means in the window, wherever it is inside the picture."""
    edge = WINDOW // 2
    means = ndimage.gaussian_filter(values, _DEVIATION, radius=edge, axes=(1, 2))
    return means[:, edge:-edge, edge:-edge]
