"""All pictures of a page in few image files: tall sheets of equal tiles, packed into data URIs.

A run of 16 documents over 40 steps shows thousands of tiny pictures, most of them noise, which
does not compress without loss. Tiles that people look at longest (given and finished pictures) are
always stored exactly. The tiles between are stored exactly too if all sheets then fit the budget;
otherwise in the first way of `ENCODINGS` that fits.
"""

import base64
import dataclasses
import functools
import io
from collections.abc import Callable, Hashable

import numpy as np
from PIL import Image

from oneflow_jax.viewer import trajectory

MAX_SHEET_HEIGHT = 8192  # browsers refuse images taller than 16k to 32k pixels


def _encode_png(sheet: Image.Image) -> tuple[str, bytes]:
    """The sheet as PNG, without loss."""
    file = io.BytesIO()
    sheet.save(file, "PNG")
    return "image/png", file.getvalue()


def _encode_palette_png(sheet: Image.Image) -> tuple[str, bytes]:
    """The sheet as PNG with the 256 colors that suit it best: a third of the bytes of noise."""
    return _encode_png(sheet.quantize(256, dither=Image.Dither.NONE))


def _encode_webp(sheet: Image.Image, quality: int) -> tuple[str, bytes]:
    """The sheet as lossy WebP."""
    file = io.BytesIO()
    sheet.save(file, "WEBP", quality=quality)
    return "image/webp", file.getvalue()


@dataclasses.dataclass(frozen=True)
class SheetEncoding:
    """A way to store sheets, and what to tell the reader about it ("" if nothing is lost)."""

    encode: Callable[[Image.Image], tuple[str, bytes]]
    remark: str


def _lossy_note(method: str) -> str:
    return (
        f"Pictures between the first and the last step are stored {method} to keep the page small."
    )


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
    """Where a tile is: row `row` (in tiles, from the top) of sheet number `sheet`."""

    sheet: int
    row: int


@dataclasses.dataclass
class _Sheet:
    exact: bool
    tiles: list[trajectory.Pixels]

    def image(self) -> Image.Image:
        """The tiles, one below the other."""
        return Image.fromarray(np.concatenate(self.tiles))


class SpritePacker:
    """Collects tiles, each distinct one once, and packs them."""

    def __init__(self) -> None:
        self._sheets: list[_Sheet] = []
        self._places: dict[Hashable, TilePosition] = {}
        self._open: dict[Hashable, int] = {}

    def place(self, pixels: trajectory.Pixels, group: Hashable, exact: bool) -> TilePosition:
        """The place of a tile, which is added if it is new.

        Args:
          pixels: the tile.
          group: tiles of one group look alike and share sheets, which compresses them best.
          exact: store it without loss, whatever the budget.
        """
        tile = (exact, pixels.shape, pixels.tobytes())
        if tile not in self._places:
            self._places[tile] = self._append(pixels, group, exact)
        return self._places[tile]

    def _append(self, pixels: trajectory.Pixels, group: Hashable, exact: bool) -> TilePosition:
        """The place of a new tile, on a new sheet if the open one of its group is full."""
        kind = (exact, pixels.shape, None if exact else group)
        full = max(1, MAX_SHEET_HEIGHT // pixels.shape[0])
        if kind not in self._open or len(self._sheets[self._open[kind]].tiles) == full:
            self._open[kind] = len(self._sheets)
            self._sheets.append(_Sheet(exact, []))
        sheet = self._open[kind]
        self._sheets[sheet].tiles.append(pixels)
        return TilePosition(sheet, len(self._sheets[sheet].tiles) - 1)

    def encode(self, budget: int) -> tuple[list[dict[str, int | str]], str]:
        """The sheets for the page, and a remark for its reader if tiles lost precision.

        Args:
          budget: bytes that the data URIs may take. The smallest encoding is used even above it.

        Returns:
          For each sheet the width and height of *one tile* in pixels and the data URI.
        """
        for encoding in ENCODINGS:
            uris = [
                _data_uri((_encode_png if s.exact else encoding.encode)(s.image()))
                for s in self._sheets
            ]
            if sum(map(len, uris)) <= budget:
                break
        remark = "" if all(sheet.exact for sheet in self._sheets) else encoding.remark
        shapes = [sheet.tiles[0].shape for sheet in self._sheets]
        return [
            {"width": shape[1], "height": shape[0], "uri": uri}
            for shape, uri in zip(shapes, uris, strict=True)
        ], remark


def _data_uri(encoded: tuple[str, bytes]) -> str:
    """A data URI of (media type, bytes)."""
    return f"data:{encoded[0]};base64,{base64.b64encode(encoded[1]).decode('ascii')}"
