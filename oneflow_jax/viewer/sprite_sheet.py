"""Packs all images of a page into a few sprite sheets: tall images of equal tiles, as data URIs.

A page of 16 documents with 40 steps has thousands of tiny images. Most of them are noise, which
lossless compression hardly shrinks. Given and finished images, which people look at longest, are
always stored losslessly. For all other images, the packer tries `ENCODINGS` in order, the first of
which is lossless, and takes the first one for which all sheets fit into the budget.
"""

import base64
import dataclasses
import functools
import io
from collections.abc import Callable, Hashable

import numpy as np
from PIL import Image

from oneflow_jax.viewer import trajectory

MAX_SHEET_HEIGHT = 8192  # In pixels; browsers refuse images taller than 16k to 32k pixels.


def _encode_png(sheet: Image.Image) -> tuple[str, bytes]:
    """Encode a sheet as PNG, which is lossless."""
    file = io.BytesIO()
    sheet.save(file, "PNG")
    return "image/png", file.getvalue()


def _encode_palette_png(sheet: Image.Image) -> tuple[str, bytes]:
    """Encode a sheet as PNG with a palette of 256 colors, in 1/3 of the bytes if it is noise."""
    return _encode_png(sheet.quantize(256, dither=Image.Dither.NONE))


def _encode_webp(sheet: Image.Image, quality: int) -> tuple[str, bytes]:
    """Encode a sheet as lossy WebP."""
    file = io.BytesIO()
    sheet.save(file, "WEBP", quality=quality)
    return "image/webp", file.getvalue()


@dataclasses.dataclass(frozen=True)
class SheetEncoding:
    """An encoding of sheets, with a note for readers of the page ("" if it is lossless)."""

    encode: Callable[[Image.Image], tuple[str, bytes]]
    note: str


def _lossy_note(method: str) -> str:
    return f"Images between the first and the last step are stored {method} to keep the page small."


ENCODINGS = (
    SheetEncoding(_encode_png, ""),
    SheetEncoding(_encode_palette_png, _lossy_note("with 256 colors each")),
    SheetEncoding(
        functools.partial(_encode_webp, quality=80), _lossy_note("as WebP of quality 80")
    ),
    SheetEncoding(
        functools.partial(_encode_webp, quality=50), _lossy_note("as WebP of quality 50")
    ),
    SheetEncoding(
        functools.partial(_encode_webp, quality=20), _lossy_note("as WebP of quality 20")
    ),
)


@dataclasses.dataclass(frozen=True)
class TilePosition:
    """Position of a tile: index of its sheet, and its row in the sheet, counted in tiles."""

    sheet: int
    row: int


@dataclasses.dataclass
class _Sheet:
    lossless: bool
    tiles: list[trajectory.Pixels]

    def to_image(self) -> Image.Image:
        """Stack the tiles vertically."""
        return Image.fromarray(np.concatenate(self.tiles))


class SpritePacker:
    """Collects distinct tiles and packs them into sheets."""

    def __init__(self) -> None:
        self._sheets: list[_Sheet] = []
        self._positions: dict[Hashable, TilePosition] = {}
        self._current_sheets: dict[Hashable, int] = {}

    def add(self, pixels: trajectory.Pixels, group: Hashable, lossless: bool) -> TilePosition:
        """Add a tile if it is new, and return its position.

        Args:
          pixels: pixels of the tile.
          group: group of the tile. Tiles of one group share sheets; they should look alike, which
              improves compression.
          lossless: whether to store the tile losslessly regardless of the budget.
        """
        tile = (lossless, pixels.shape, pixels.tobytes())
        if tile not in self._positions:
            self._positions[tile] = self._add_tile(pixels, group, lossless)
        return self._positions[tile]

    def _add_tile(self, pixels: trajectory.Pixels, group: Hashable, lossless: bool) -> TilePosition:
        """Add a tile to the current sheet of its group; start a new sheet if that one is full."""
        kind = (lossless, pixels.shape, None if lossless else group)
        full = max(1, MAX_SHEET_HEIGHT // pixels.shape[0])
        if (
            kind not in self._current_sheets
            or len(self._sheets[self._current_sheets[kind]].tiles) == full
        ):
            self._current_sheets[kind] = len(self._sheets)
            self._sheets.append(_Sheet(lossless, []))
        sheet = self._current_sheets[kind]
        self._sheets[sheet].tiles.append(pixels)
        return TilePosition(sheet, len(self._sheets[sheet].tiles) - 1)

    def encode(self, max_bytes: int) -> tuple[list[dict[str, int | str]], str]:
        """Encode all sheets with the first encoding that fits into `max_bytes`.

        Args:
          max_bytes: maximum size of all data URIs. If no encoding fits, the last one is used.

        Returns:
          The data URI of each sheet, with width and height of *one tile* in pixels; and a note for
          the reader of the page, or "" if all tiles are stored losslessly.
        """
        for encoding in ENCODINGS:
            uris = [
                _data_uri((_encode_png if s.lossless else encoding.encode)(s.to_image()))
                for s in self._sheets
            ]
            if sum(map(len, uris)) <= max_bytes:
                break
        remark = "" if all(sheet.lossless for sheet in self._sheets) else encoding.note
        shapes = [sheet.tiles[0].shape for sheet in self._sheets]
        return [
            {"width": shape[1], "height": shape[0], "uri": uri}
            for shape, uri in zip(shapes, uris, strict=True)
        ], remark


def _data_uri(encoded: tuple[str, bytes]) -> str:
    """Return the data URI of (media type, bytes)."""
    return f"data:{encoded[0]};base64,{base64.b64encode(encoded[1]).decode('ascii')}"
