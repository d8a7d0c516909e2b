"""Tiled encoding and decoding, so that the network's memory does not depend on the image size.

All tiles have the same size, so JAX compiles a jitted network once for all tiles. Tiles are evenly
spaced. Overlapping tiles are blended with linear weights. Call these functions outside of
`jax.jit`, because a jitted program would contain a copy of the network for each tile.
"""

import functools
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from oneflow_jax.errors import UserError, check_fraction
from oneflow_jax.shapes import Array, Float, Int, PyTree

TILE_SIZE = 512
"""Height and width of a tile, in pixels."""

OVERLAP = 0.25
"""Minimum overlap of neighboring tiles, as a fraction of a tile's side, in [0, 1)."""


def encode(
    encoder: Callable[[Float[Array, "B t u 3"]], PyTree],
    pixels: Float[Array, "B H W 3"],
    downscale_factor: int,
    tile_size: int = TILE_SIZE,
    overlap: float = OVERLAP,
) -> PyTree:
    """Encode images tile by tile.

    Args:
        encoder: function from a tile to arrays `[B h w c]`, whose height and width are those of the
            tile divided by `downscale_factor`. The values must be continuous, because codes cannot
            be blended. A tile has `tile_size` pixels per axis, or fewer if the image is smaller.
        pixels: images; H and W are multiples of `downscale_factor`.
        downscale_factor: height and width of a latent, in pixels.
        tile_size: height and width of a tile, in pixels, a multiple of `downscale_factor`.
        overlap: minimum overlap of tiles; see `OVERLAP`.

    Raises:
        UserError: a size is not a multiple of `downscale_factor`, or the overlap is out of range.
    """
    height, width = pixels.shape[1:3]
    _validate(downscale_factor, overlap, {"height": height, "width": width, "tile_size": tile_size})
    rows, columns = (
        tile_axis(size // downscale_factor, tile_size // downscale_factor, overlap)
        for size in (height, width)
    )
    return _apply_tiled(encoder, pixels, (downscale_factor, rows, columns), (1, rows, columns))


def decode(
    decoder: Callable[[Float[Array, "B s r C"]], PyTree],
    latents: Float[Array, "B h w C"],
    downscale_factor: int,
    tile_size: int = TILE_SIZE,
    overlap: float = OVERLAP,
) -> PyTree:
    """Decode latents to images tile by tile.

    Args:
        decoder: function from latents to images with `downscale_factor` times their height and
            width.
        latents: latents that `encode` returned.
        downscale_factor: height and width of a latent, in pixels.
        tile_size: height and width of a tile, in pixels, a multiple of `downscale_factor`.
        overlap: minimum overlap of tiles; see `OVERLAP`.

    Raises:
        UserError: `tile_size` is not a multiple of `downscale_factor`, or the overlap is out of
            range.
    """
    _validate(downscale_factor, overlap, {"tile_size": tile_size})
    rows, columns = (
        tile_axis(size, tile_size // downscale_factor, overlap) for size in latents.shape[1:3]
    )
    return _apply_tiled(decoder, latents, (1, rows, columns), (downscale_factor, rows, columns))


class AxisTiling(NamedTuple):
    """Tiles along one axis of the latent grid; all lengths are in latents.

    Attributes:
        length: length of the axis.
        tile_size: length of a tile.
        starts: index of the first latent of each tile.
    """

    length: int
    tile_size: int
    starts: tuple[int, ...]

    def weights(self, scale: int) -> Float[np.ndarray, "n t"]:
        """Return the blending weights of each tile, with `scale` weights per latent.

        At each point of the axis, the weights of all tiles sum to 1. Where two tiles overlap, the
        weight of the first tile falls linearly from 1 to 0.
        """
        place = (np.arange(self.length * scale) + 0.5) / scale
        come = [np.ones_like(place)]
        for before, start in zip(self.starts, self.starts[1:], strict=False):
            shared = max(
                before + self.tile_size - start, 1e-9
            )  # Without overlap, the weight steps from 1 to 0.
            come.append(np.clip((place - start) / shared, 0, 1))
        come.append(np.zeros_like(place))
        cuts = [
            (come[n] - come[n + 1])[start * scale : (start + self.tile_size) * scale]
            for n, start in enumerate(self.starts)
        ]
        return np.stack(cuts).astype(np.float32)


def tile_axis(length: int, tile_size: int, overlap: float) -> AxisTiling:
    """Cover an axis with the minimum number of evenly spaced tiles.

    Neighboring tiles overlap by at least `overlap` of a tile. An axis that is no longer than a
    tile has a single tile.
    """
    tile_size = min(length, tile_size)
    step = max(1, tile_size - int(np.ceil(tile_size * overlap)))
    count = 1 + -(-(length - tile_size) // step)
    starts = np.linspace(0, length - tile_size, count).astype(int)
    return AxisTiling(length, tile_size, tuple(starts.tolist()))


TileGrid = tuple[int, AxisTiling, AxisTiling]
"""(array elements per latent along each axis, tiles along the height, tiles along the width)."""


def _apply_tiled(
    apply: Callable[[Array], PyTree], x: Array, input_grid: TileGrid, output_grid: TileGrid
) -> PyTree:
    """Call `apply` on each tile of x, and blend the outputs at the positions in `output_grid`."""
    zoom, rows, columns = input_grid
    if len(rows.starts) == len(columns.starts) == 1:
        return apply(x)
    scale = output_grid[0]
    size = (x.shape[0], rows.tile_size * zoom, columns.tile_size * zoom, x.shape[-1])
    whole = (x.shape[0], rows.length * scale, columns.length * scale)
    canvas = None
    for top, by_row in zip(rows.starts, rows.weights(scale), strict=True):
        for left, by_column in zip(columns.starts, columns.weights(scale), strict=True):
            # x[...] would compile a program for each offset. dynamic_slice compiles one program.
            tile = apply(lax.dynamic_slice(x, (0, top * zoom, left * zoom, 0), size))
            if canvas is None:
                canvas = jax.tree.map(lambda y: jnp.zeros((*whole, y.shape[-1]), y.dtype), tile)
            canvas = _add_tile(canvas, tile, by_row, by_column, top * scale, left * scale)
    return canvas


@functools.partial(jax.jit, donate_argnums=0)
def _add_tile(
    canvas: PyTree,
    tile: PyTree,
    row_weights: Float[Array, "t"],
    column_weights: Float[Array, "u"],
    top: Int[Array, ""],
    left: Int[Array, ""],
) -> PyTree:
    """Add a weighted tile to the output image `canvas` at (top, left), in place by donation."""
    weight = (row_weights[:, None] * column_weights[None])[None, :, :, None]

    def add(canvas: Array, tile: Array) -> Array:
        corner = (0, top, left, 0)
        before = lax.dynamic_slice(canvas, corner, tile.shape)
        after = before + (weight * tile).astype(canvas.dtype)
        return lax.dynamic_update_slice(canvas, after, corner)

    return jax.tree.map(add, canvas, tile)


def _validate(downscale_factor: int, overlap: float, sizes: dict[str, int]) -> None:
    for name, size in sizes.items():
        if size % downscale_factor or not size:
            raise UserError(
                f"{name}={size}: give a multiple of {downscale_factor}, the downscale factor."
            )
    check_fraction("overlap", overlap, allow_one=False)
