"""Colors that an AVIF file states by code points of ITU-T H.273, in its box `colr`."""

import struct
from collections.abc import Iterator
from typing import BinaryIO

_PATH = (b"meta", b"iprp", b"ipco")
_FULL_BOXES = (b"meta",)
"""Boxes whose content begins with four bytes of version and flags."""

_MAX_BYTES = 2**20

UNSPECIFIED = 2
SRGB_PRIMARIES, SRGB_TRANSFER = 1, 13
_VIDEO_TRANSFERS = (1, 6, 14, 15)
"""Transfer functions of cameras for video. Screens show images with these as they show sRGB."""


def read_code_points(file: BinaryIO) -> tuple[int, int] | None:
    """Return the primaries and the transfer function of the first box `colr` with code points.

    A value that the box leaves unspecified is returned as that of sRGB. The result is None without
    such a box, which also means sRGB. The matrix is not returned, since the decoder applies it.
    """
    position = file.tell()
    file.seek(0)
    data = file.read(_MAX_BYTES)
    file.seek(position)
    for name in _PATH:
        data = next((content for kind, content in _iter_boxes(data) if kind == name), b"")
        data = data[4:] if name in _FULL_BOXES else data
    for kind, content in _iter_boxes(data):
        if kind == b"colr" and content[:4] == b"nclx" and len(content) >= 8:
            primaries, transfer = struct.unpack(">HH", content[4:8])
            is_srgb = transfer in (UNSPECIFIED, *_VIDEO_TRANSFERS)
            return (
                SRGB_PRIMARIES if primaries == UNSPECIFIED else primaries,
                SRGB_TRANSFER if is_srgb else transfer,
            )
    return None


def _iter_boxes(data: bytes) -> Iterator[tuple[bytes, bytes]]:
    """Yield the kind and the content of each box; end at the first malformed box."""
    start = 0
    while start + 8 <= len(data):
        size, kind = struct.unpack(">I4s", data[start : start + 8])
        size = len(data) - start if size == 0 else size
        if size < 8:  # Size 1 marks a box above 4 GiB: image data, which comes after `meta`.
            return
        yield kind, data[start + 8 : start + size]
        start += size
