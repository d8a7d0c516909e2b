"""Writes the image in docs/emoji_styles.md: `python -m benchmarks.drawings`.

The image has one row per drawing style and one column per name. Pairs of name and style that are
not in training have a red border. The npm packages must be there (`make emoji-styles`).
"""

import argparse
import pathlib
from collections.abc import Sequence

import numpy as np
import PIL.Image

from oneflow_jax.data import emoji_styles, style_drawings, style_packages

CELL, BORDER = 56, 3  # pixels
HELD_OUT_COLOR, BACKGROUND = (214, 40, 40), 255


def main(argv: list[str] | None = None) -> None:
    """Render the drawings of some names and write the sheet."""
    flags = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    flags.add_argument("--packages", default="data/emoji_styles", help="folder of npm packages")
    flags.add_argument("--names", type=int, default=20, help="number of emoji names (default: 20)")
    flags.add_argument("--out", type=pathlib.Path, default=pathlib.Path("docs/images/styles.png"))
    flags = flags.parse_args(argv)
    settings = emoji_styles.Settings(
        path=flags.packages, concepts=flags.names, pixels=CELL - 2 * BORDER
    )
    drawings = [one for one in settings.load_drawings() if not one.name_held_out]
    PIL.Image.fromarray(make_sheet(drawings)).quantize(255).save(flags.out)
    held_out = sum(one.pair_held_out for one in drawings)
    print(f"{flags.out}: {len(drawings)} drawings, of which {held_out} are not in training.")


def make_sheet(drawings: Sequence[style_drawings.Drawing]) -> np.ndarray:
    """Return the sheet as RGB uint8 `[H W 3]`; a style without a drawing leaves its cell empty."""
    names = list(dict.fromkeys(one.name for one in drawings))
    styles = [name for name in style_packages.NAMES if any(one.style == name for one in drawings)]
    sheet = np.full((len(styles) * CELL, len(names) * CELL, 3), BACKGROUND, np.uint8)
    for one in drawings:
        row, column = styles.index(one.style) * CELL, names.index(one.name) * CELL
        cell = sheet[row : row + CELL, column : column + CELL]
        cell[:] = HELD_OUT_COLOR if one.pair_held_out else BACKGROUND
        cell[BORDER:-BORDER, BORDER:-BORDER] = one.pixels
    return sheet


if __name__ == "__main__":
    main()
