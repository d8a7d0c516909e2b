"""Conversion of Pillow images of any mode, bit depth and color profile to 8-bit sRGB."""

import functools
import io
from typing import Literal

import numpy as np
import PIL.Image
import PIL.ImageCms

from oneflow_jax.data import stated_colors

CONVERTED = "color profile"
UNUSABLE = "unusable color profile"

_SRGB = PIL.ImageCms.ImageCmsProfile(PIL.ImageCms.createProfile("sRGB"))
_MODES = {"RGB": "RGB", "GRAY": "L", "CMYK": "CMYK"}
"""Pillow's image mode for each supported color space of a profile."""

_MAX_SRGB_ERROR = 2
"""A profile counts as sRGB if no 8-bit color value differs from sRGB by more than this number."""

_WHITE_IS_ZERO, _PHOTOMETRIC, _BITS_PER_SAMPLE = 0, 262, 258
_RANGE_TAGS = ((340, 341), (280, 281))
"""TIFF tags of the smallest and the largest value, in order of precedence.

The first pair is SMinSampleValue and SMaxSampleValue. The second pair is MinSampleValue and
MaxSampleValue.
"""


class UnknownRangeError(ValueError):
    """The values of black and white are unknown in an image of floats or 32-bit integers."""


UNCONVERTIBLE = (UnknownRangeError, stated_colors.UnknownColorsError)
"""Exceptions for images that cannot be converted. Their messages say what to do."""

Range = tuple[float, float]
"""(black, white): the values that mean black and white in an image."""


def read_range(image: PIL.Image.Image) -> Range | None:
    """Return the values of black and white in an image, or None if the file does not give them.

    The image must be the object that Pillow opened, since copies lose the tags of a TIFF file.
    """
    tags = getattr(image, "tag_v2", None)
    if tags is None:
        deep = image.mode.startswith("I;16") or image.format in ("PNG", "PPM")
        return (0, 65_535) if deep and image.mode.startswith("I") else None
    for low, high in _RANGE_TAGS:
        if image.mode in ("I", "F") and low in tags and high in tags:
            limits = [float(np.ravel(tags[tag])[0]) for tag in (low, high)]
            return (limits[0], limits[1]) if limits[0] < limits[1] else None
    if not image.mode.startswith("I;16"):
        return None
    white = float(2 ** np.ravel(tags.get(_BITS_PER_SAMPLE, 16))[0] - 1)
    return (white, 0) if tags.get(_PHOTOMETRIC) == _WHITE_IS_ZERO else (0, white)


def to_srgb(image: PIL.Image.Image, limits: Range | None) -> PIL.Image.Image:
    """Convert an image to sRGB, in mode RGB, or in mode RGBA if it has transparency.

    A color profile that is damaged or belongs to another kind of image is ignored. `check_profile`
    reports such profiles. A file without a profile may state its colors; see `stated_colors`.

    Args:
        image: the image.
        limits: result of `read_range` for the image as Pillow opened it.

    Raises:
        UnknownRangeError: the image has floats or 32-bit integers whose values of black and white
            are unknown, or has values that are not finite.
        UnknownColorsError: the image states colors that cannot be converted.
    """
    transform, mode = _find_transform(image)
    if image.mode.startswith("I") or image.mode == "F":
        image = _scale_to_8_bits(image, limits)
    alpha = image.convert("RGBA").getchannel("A") if image.has_transparency_data else None
    if transform is not None:
        image = PIL.ImageCms.applyTransform(image.convert(mode), transform)
    image = image.convert("RGB")
    if alpha is not None:
        image.putalpha(alpha)
    return image


def check_profile(
    image: PIL.Image.Image,
) -> Literal["color profile", "unusable color profile"] | None:
    """Return what `to_srgb` does with the color profile of an image.

    Returns:
        "color profile" if `to_srgb` converts the colors, "unusable color profile" if it ignores the
        profile, or None if the image has no profile or the profile is sRGB.

    Raises:
        UnknownColorsError: the image states colors that cannot be converted.
    """
    profile = stated_colors.find_profile(image)
    if profile is None:
        return None
    space, transform = _make_transform(profile)
    if space is None or not _fits(image.mode, space):
        return UNUSABLE
    return CONVERTED if transform is not None else None


def _find_transform(
    image: PIL.Image.Image,
) -> tuple[PIL.ImageCms.ImageCmsTransform | None, str]:
    """Return the transform that converts an image to sRGB, and the input mode of the transform.

    The transform is None if the image needs no conversion.
    """
    if check_profile(image) != CONVERTED:
        return None, ""
    space, transform = _make_transform(stated_colors.find_profile(image))
    return transform, _MODES[space]


def _fits(mode: str, space: str) -> bool:
    """Return whether a profile of the color space `space` fits an image of the mode `mode`."""
    if space == "CMYK" or mode == "CMYK":
        return space == mode
    if space == "GRAY":
        return mode in ("1", "L", "LA", "La", "F") or mode.startswith("I")
    return mode != "LAB"


@functools.lru_cache(maxsize=32)
def _make_transform(profile: bytes) -> tuple[str | None, PIL.ImageCms.ImageCmsTransform | None]:
    """Return the color space of a profile and its transform to sRGB.

    The color space is None if the profile is unusable. The transform is None if the profile is
    sRGB.
    """
    try:
        source = PIL.ImageCms.ImageCmsProfile(io.BytesIO(profile))
        space = source.profile.xcolor_space.strip()
        if space not in _MODES:
            return None, None
        mode = _MODES[space]
        transform = PIL.ImageCms.buildTransform(source, _SRGB, mode, "RGB")
    except (OSError, ValueError, TypeError, PIL.ImageCms.PyCMSError):
        return None, None
    return space, None if _is_identity(transform, mode) else transform


def _is_identity(transform: PIL.ImageCms.ImageCmsTransform, mode: str) -> bool:
    """Return whether a transform changes no color by more than `_MAX_SRGB_ERROR`."""
    if mode == "CMYK":
        return False
    levels = np.arange(0, 256, 15, dtype=np.uint8)
    colors = levels[None] if mode == "L" else np.stack(np.meshgrid(levels, levels, levels), -1)
    image = PIL.Image.fromarray(colors.reshape(1, -1, *colors.shape[3:]))
    before = np.asarray(image.convert("RGB")).astype(int)
    after = np.asarray(PIL.ImageCms.applyTransform(image, transform)).astype(int)
    return bool(abs(after - before).max() <= _MAX_SRGB_ERROR)


def _scale_to_8_bits(image: PIL.Image.Image, limits: Range | None) -> PIL.Image.Image:
    """Convert a gray image of floats, or of more than 8 bits, to 8 bits."""
    values = np.asarray(image).astype(np.float64)
    if not np.isfinite(values).all():
        raise UnknownRangeError(
            "it has values that are not finite, so its range of values is unknown. Convert it to 8 "
            "bits"
        )
    if limits is None:
        if image.mode != "F" or values.min() < 0 or values.max() > 1:
            raise UnknownRangeError(
                f"it has values from {values.min():g} to {values.max():g}, and does not state "
                "which values are black and white. Convert it to 8 bits"
            )
        limits = (0, 1)
    black, white = limits
    if (black, white) == (0, 65_535):
        scaled = values // 257
    else:
        scaled = np.round((values - black) / (white - black) * 255)
    return PIL.Image.fromarray(scaled.clip(0, 255).astype(np.uint8))
