"""Conversion of the value of an image field: a path, bytes, base64, a data URI or a mapping."""

import base64
import binascii
import os
import re
from collections.abc import Callable, Mapping

from oneflow_jax.data.custom.errors import DataError
from oneflow_jax.data.custom.reader import RawImage, Settings, find_image, locate_image
from oneflow_jax.data.custom.sandbox import SandboxedFolder

IMAGE_FOLDERS = (
    *("", "images", "Images", "image", "img", "imgs", "photos", "pictures"),
    *("Flicker8k_Dataset", "flickr30k-images", "flickr30k_images"),
)
"""Subfolders in which `make_locator` searches for an image, in this order."""

_DATA_URI = re.compile(r"data:image/[\w.+-]+(?:;[\w=-]+)*;base64,", re.IGNORECASE)
_BASE64_STARTS = ("/9j/", "iVBORw0KGgo", "R0lGOD", "UklGR", "SUkq", "TU0AK", "Qk")
"""Base64 of the first bytes of JPEG, PNG, GIF, WebP, TIFF (both byte orders) and BMP files."""

_BASE64 = re.compile(r"[A-Za-z0-9+/_\s=-]{40,}")
_MAPPING_KEYS = ("path", "url", "src", "file_name", "image", "data")

Locate = Callable[[object], RawImage | DataError]
"""Function that returns the image at a path."""


def to_raw_image(value: object, locate: Locate) -> RawImage | DataError:
    """Convert the value of an image field to the image that it contains or names."""
    match value:
        case DataError() | RawImage():
            return value
        case {"bytes": bytes() | str() as data}:
            return _from_content(data, str(value.get("path") or ""), locate)
        case Mapping():
            content = next(
                (value[key] for key in _MAPPING_KEYS if value.get(key) is not None), None
            )
            if isinstance(content, str | bytes):
                return to_raw_image(content, locate)
            return DataError("bad path", repr(value)[:80])
        case bytes() | str():
            return _from_content(value, "", locate)
    return locate(value)


def make_locator(
    settings: Settings, folder: SandboxedFolder, referrer: str, more: tuple[str, ...] = ()
) -> Locate:
    """Return a function that finds the images whose paths are in the file `referrer`.

    A path is relative to `source.image_root`. If this setting is empty, the function returns the
    first image that exists. It searches in the folder of `referrer`, in its parent folder and in
    `source.path`, and then in the subfolders of these three folders that `IMAGE_FOLDERS` and `more`
    list.
    """
    if settings.image_root:
        return lambda path: locate_image(folder, path, f"{settings.image_root}/.")
    beside = os.path.dirname(referrer)
    roots = dict.fromkeys((beside, os.path.dirname(beside), ""))
    places = [os.path.join(root, name, ".") for name in (*IMAGE_FOLDERS, *more) for root in roots]

    def locate(path: object) -> RawImage | DataError:
        for place in places:
            if (image := find_image(folder, path, place)) is not None:
                return image
        return locate_image(folder, path, referrer)

    return locate


def _from_content(data: bytes | str, name: str, locate: Locate) -> RawImage | DataError:
    """Return the image of `data`, which is a file's content, its base64 encoding, or its path."""
    if isinstance(data, bytes):
        if not data.startswith(tuple(start.encode() for start in _BASE64_STARTS)):
            is_uri = _DATA_URI.match(data[:80].decode("latin-1"))
            return _from_base64(data, name) if is_uri else RawImage(name, lambda: data)
        is_text = _BASE64.fullmatch(data[:4096].decode("latin-1"))
        return _from_base64(data, name) if is_text else RawImage(name, lambda: data)
    if _DATA_URI.match(data) or (data.startswith(_BASE64_STARTS) and _BASE64.fullmatch(data)):
        return _from_base64(data.encode("utf-8", "surrogatepass"), name)
    return locate(data)


def _from_base64(data: bytes, name: str) -> RawImage:
    def load() -> bytes:
        content = data.partition(b",")[2] if data[:5].lower() == b"data:" else data
        try:
            return base64.b64decode(content.translate(bytes.maketrans(b"-_", b"+/")))
        except (binascii.Error, ValueError) as error:
            raise DataError("damaged picture", f"base64: {error}") from error

    return RawImage(name, load)
