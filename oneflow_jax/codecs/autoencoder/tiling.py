"""Large pictures in tiles that overlap, so that a network's memory does not grow with the picture.

Tiles are of one size and evenly spaced, so that a jitted network is compiled once for them all.
Where two overlap, the weight of one falls in a straight line while that of the other rises. To be
called outside of `jax.jit`, which would put as many copies of the network into one program.
"""

import functools
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from oneflow_jax.errors import UserError
from oneflow_jax.shapes import Array, Float, Int, PyTree

TILE_SIZE = 512
"""Pixels that a tile is high and wide."""

OVERLAP = 0.25
"""Least share of a tile's side that the next one covers again; 0 or more, less than 1."""


def encode(
    encoder: Callable[[Float[Array, "B t u 3"]], PyTree],
    pixels: Float[Array, "B H W 3"],
    downscale_factor: int,
    tile_size: int = TILE_SIZE,
    overlap: float = OVERLAP,
) -> PyTree:
    """Latents, or whatever arrays `[B h w c]` the encoder makes of pictures; no codes.

    Args:
        encoder: its arrays are 1 / factor as high and wide as the picture, which is `tile_size`
            pixels high and wide, or as the whole if that is less.
        pixels: pictures, H and W multiples of `downscale_factor`.
        downscale_factor: pixels that a latent is high and wide.
        tile_size: pixels, a multiple of `downscale_factor`.
        overlap: see `OVERLAP`.

    Raises:
        UserError: a size is no such multiple, or the overlap is out of range.
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
    """Pictures of latents.

    Args:
        decoder: from latents to pictures, `downscale_factor` times as high and wide.
        latents: as `encode` makes them.
        downscale_factor: pixels that a latent is high and wide.
        tile_size: pixels, a multiple of `downscale_factor`.
        overlap: see `OVERLAP`.

    Raises:
        UserError: `tile_size` is no such multiple, or the overlap is out of range.
    """
    _validate(downscale_factor, overlap, {"tile_size": tile_size})
    rows, columns = (
        tile_axis(size, tile_size // downscale_factor, overlap) for size in latents.shape[1:3]
    )
    return _apply_tiled(decoder, latents, (1, rows, columns), (downscale_factor, rows, columns))


class AxisTiling(NamedTuple):
    """Tiles along one axis, in places of the latent grid.

    Attributes:
        length: places in all.
        tile: places in a tile.
        starts: first place of each tile.
    """

    length: int
    tile: int
    starts: tuple[int, ...]

    def weights(self, scale: int) -> Float[np.ndarray, "n t"]:
        """Each tile's weights, which at every place sum to one, `scale` to a place of the grid.

        A tile's weight is how much of it has come in since its start, less how much of the next
        one has.
        """
        place = (np.arange(self.length * scale) + 0.5) / scale
        come = [np.ones_like(place)]
        for before, start in zip(self.starts, self.starts[1:], strict=False):
            shared = max(before + self.tile - start, 1e-9)  # A step where they share nothing.
            come.append(np.clip((place - start) / shared, 0, 1))
        come.append(np.zeros_like(place))
        cuts = [
            (come[n] - come[n + 1])[start * scale : (start + self.tile) * scale]
            for n, start in enumerate(self.starts)
        ]
        return np.stack(cuts).astype(np.float32)


def tile_axis(length: int, tile_size: int, overlap: float) -> AxisTiling:
    """As few tiles as cover an axis and overlap enough, spaced evenly; one if it is no longer."""
    tile_size = min(length, tile_size)
    step = max(1, tile_size - int(np.ceil(tile_size * overlap)))
    count = 1 + -(-(length - tile_size) // step)
    starts = np.linspace(0, length - tile_size, count).astype(int)
    return AxisTiling(length, tile_size, tuple(starts.tolist()))


TileGrid = tuple[int, AxisTiling, AxisTiling]
"""Numbers of an array to a place of the latent grid, and the tiles along its height and width."""


def _apply_tiled(
    apply: Callable[[Array], PyTree], x: Array, input_grid: TileGrid, output_grid: TileGrid
) -> PyTree:
    """`apply` on each tile of x, and the results blended."""
    zoom, rows, columns = input_grid
    if len(rows.starts) == len(columns.starts) == 1:
        return apply(x)
    scale = output_grid[0]
    size = (x.shape[0], rows.tile * zoom, columns.tile * zoom, x.shape[-1])
    whole = (x.shape[0], rows.length * scale, columns.length * scale)
    canvas = None
    for top, by_row in zip(rows.starts, rows.weights(scale), strict=True):
        for left, by_column in zip(columns.starts, columns.weights(scale), strict=True):
            # dynamic_slice, since a program is compiled for each place that x[...] would cut at.
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
    """The canvas with a weighted tile added at a corner, in the canvas's own memory."""
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
                f"{name}={size}: give a multiple of {downscale_factor}, a latent's pixels."
            )
    if not 0 <= overlap < 1:
        raise UserError(f"overlap={overlap}: give a share of a tile's side, from 0 to below 1.")
