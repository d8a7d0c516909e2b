"""Shapes of images: the aspect ratios of a model's images, and their sizes in slots and pixels.

An image of each shape has at most as many slots as the square. So rows that hold square images also
hold images of other shapes. An image gets the shape whose aspect ratio is nearest to its own.
"""

import dataclasses
import functools
import math
from collections.abc import Sequence

from oneflow_jax.errors import UserError

SQUARE = "1:1"
"""The aspect ratio of the image gap `<image>`, which every model has."""

MAX_SIDE = 10_000
"""Maximum width and height of an aspect ratio, after its fraction is reduced."""

Size = tuple[int, int]
"""Height and width of an image, in pixels; or its rows and columns, in slots."""


@dataclasses.dataclass(frozen=True)
class ImageShapes:
    """The shapes of a model's images.

    Attributes:
        pixels: height and width of square images, in pixels.
        slot_pixels: height and width of a slot, in pixels; a divisor of `pixels`.
        ratios: aspect ratios, width to height, such as "3:2"; one of them is the square.

    Raises:
        UserError: a ratio is malformed, the square is missing, or two ratios give the same shape.
    """

    pixels: int
    slot_pixels: int
    ratios: tuple[str, ...] = (SQUARE,)

    def __post_init__(self) -> None:
        """Check that the ratios give different shapes."""
        if SQUARE not in self.ratios:
            raise UserError(
                f"data.aspect_ratios={self.ratios!r}: {SQUARE!r} is missing, the shape of <image>. "
                "Add it."
            )
        if len(set(self.ratios)) < len(self.ratios):
            raise UserError(
                f"data.aspect_ratios={self.ratios!r}: a ratio occurs twice. Leave out the second."
            )
        for ratio in self.ratios:
            rows, columns = self.grids[ratio]
            for name in (reduce_ratio(*parse_ratio(ratio)), reduce_ratio(columns, rows)):
                if self._names[name] != ratio:
                    first, second = sorted((self._names[name], ratio), key=self.ratios.index)
                    raise UserError(
                        f"data.aspect_ratios={self.ratios!r}: images of {first!r} and {second!r} "
                        f"have the same shape, {columns} x {rows} slots of {self.slot_pixels} "
                        "pixels. Leave out one of them, or raise codec.pixels."
                    )

    @functools.cached_property
    def _names(self) -> dict[str, str]:
        """The ratio in `ratios`, by this ratio and by that of its slots, as reduced fractions."""
        names = {reduce_ratio(*reversed(self.grids[ratio])): ratio for ratio in self.ratios}
        return names | {reduce_ratio(*parse_ratio(ratio)): ratio for ratio in self.ratios}

    @functools.cached_property
    def grids(self) -> dict[str, Size]:
        """Rows and columns of slots of each shape, by aspect ratio."""
        side = self.pixels // self.slot_pixels
        return {ratio: choose_grid(side, *parse_ratio(ratio)) for ratio in self.ratios}

    @property
    def crop_sizes(self) -> tuple[Size, ...]:
        """Size of each shape in pixels, to which images are cropped; () if all are padded squares.

        With the square as the only shape, nothing of an image is cut off: white margins fill it.
        """
        if self.ratios == (SQUARE,):
            return ()
        return tuple(
            (rows * self.slot_pixels, columns * self.slot_pixels)
            for rows, columns in self.grids.values()
        )

    def find_ratio(self, width: int, height: int) -> str:
        """Return the ratio in `ratios` of an image of a size in any unit, such as pixels.

        The size may be in the proportion of the ratio, or in that of the shape's slots.

        Raises:
            UserError: no shape has this size.
        """
        wanted = reduce_ratio(width, height)
        if wanted in self._names:
            return self._names[wanted]
        raise UserError(
            f"<image {wanted}>: this model has no images of this aspect ratio. Use one of "
            f"data.aspect_ratios={self.ratios!r}."
        )


@functools.cache
def choose_grid(side: int, width: int, height: int) -> Size:
    """Return the rows and columns of slots of a shape.

    They maximize the product of two fractions: that of the square's slots which the shape uses, and
    that of an image of exactly this aspect ratio which is left after cropping.

    Args:
        side: rows and columns of the square.
        width: width of the aspect ratio.
        height: height of the aspect ratio.
    """

    def score(grid: Size) -> float:
        return math.prod(grid) * compute_kept_fraction((width, height), grid)

    candidates = (
        (rows, columns)
        for rows in range(1, side**2 + 1)
        for exact in (rows * width / height,)
        for columns in {max(1, math.floor(exact)), math.ceil(exact)}
        if rows * columns <= side**2
    )
    return max(candidates, key=lambda grid: (score(grid), grid))


def parse_ratio(ratio: str) -> tuple[int, int]:
    """Return width and height of an aspect ratio such as "3:2", as a reduced fraction.

    Raises:
        UserError: the ratio is malformed, or a side exceeds `MAX_SIDE`.
    """
    sides = ratio.split(":")
    if len(sides) == 2 and all(side.isascii() and side.isdigit() for side in sides):
        width, height = map(int, sides)
        if width and height:
            factor = math.gcd(width, height)
            width, height = width // factor, height // factor
            if max(width, height) <= MAX_SIDE:
                return width, height
    raise UserError(
        f"aspect ratio {ratio[:40]!r}: not WIDTH:HEIGHT with integers from 1 to {MAX_SIDE}. Write "
        "it as in '3:2'."
    )


def reduce_ratio(width: int, height: int) -> str:
    """Return the aspect ratio of a size as text, as a reduced fraction."""
    factor = math.gcd(width, height)
    return f"{width // factor}:{height // factor}"


def choose_size(width: int, height: int, sizes: Sequence[Size]) -> Size:
    """Return the size to which an image is cropped: the one of which the most is kept.

    Args:
        width: width of the image, in pixels.
        height: height of the image, in pixels.
        sizes: sizes to choose from; of equally good ones, the first is chosen.
    """
    return max(sizes, key=lambda size: compute_kept_fraction((width, height), size))


def compute_kept_fraction(shape: tuple[int, int], size: Size) -> float:
    """Return the fraction of an image that is left if it is scaled and cropped to a size.

    Args:
        shape: width and height of the image, in any unit.
        size: height and width of the result, in any unit.
    """
    quotient = shape[0] * size[0] / (shape[1] * size[1])
    return min(quotient, 1 / quotient)
