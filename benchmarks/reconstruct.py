"""How well an autoencoder reconstructs the images of a folder (docs/codecs.md).

    python -m benchmarks.reconstruct FOLDER sheet.png --pixels 64

A low PSNR, or a blurred sheet, means that a model on latents of this autoencoder cannot generate
sharp images of this kind. Without --codec, the autoencoder is the one that comes with the project.
"""

import argparse
import pathlib
from collections.abc import Sequence

import numpy as np
from etils import epath
from PIL import Image

from benchmarks import report
from oneflow_jax import shipped
from oneflow_jax.codecs.autoencoder.autoencoder import Autoencoder
from oneflow_jax.data import image_io
from oneflow_jax.errors import UserError
from oneflow_jax.evaluation import psnr_ssim

SUFFIXES = (".png", ".jpg", ".jpeg", ".webp")
COLUMNS, ROWS = 12, 4
"""Images on the sheet; each row of images is followed by the row of their reconstructions."""


def main(argv: Sequence[str] | None = None) -> None:
    """Reconstruct the images, print PSNR and SSIM with intervals, and write the sheet."""
    flags = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    flags.add_argument("folder", type=pathlib.Path, help="folder of images")
    flags.add_argument("sheet", type=pathlib.Path, help="PNG file to write")
    flags.add_argument("--codec", type=pathlib.Path, default=shipped.CODEC, help="autoencoder")
    flags.add_argument("--pixels", type=int, default=64, help="width and height (default: 64)")
    flags.add_argument("--images", type=int, default=256, help="maximum number (default: 256)")
    flags = flags.parse_args(argv)
    paths = [path for path in sorted(flags.folder.rglob("*")) if path.suffix.lower() in SUFFIXES]
    if not paths:
        raise UserError(f"folder={flags.folder}: no images ({', '.join(SUFFIXES)}).")
    images = np.stack([image_io.load(path, flags.pixels) for path in paths[: flags.images]])
    autoencoder = Autoencoder.load(epath.Path(flags.codec))
    reconstructions = autoencoder.decode(autoencoder.encode(images))
    print(f"{len(images)} images of {flags.pixels} x {flags.pixels} pixels, {flags.codec}")
    for name, metric in (("PSNR, dB", psnr_ssim.psnr), ("SSIM", psnr_ssim.ssim)):
        mean, low, high = report.mean_interval(metric(images, reconstructions))
        print(f"{name:10} {mean:.3f} (95 % interval {low:.3f} to {high:.3f})")
    _make_sheet(images, reconstructions).save(flags.sheet)


def _make_sheet(images: np.ndarray, reconstructions: np.ndarray) -> Image.Image:
    rows = []
    for first in range(0, min(len(images), COLUMNS * ROWS) // COLUMNS * COLUMNS, COLUMNS):
        chosen = slice(first, first + COLUMNS)
        rows += [np.concatenate(list(each[chosen]), axis=1) for each in (images, reconstructions)]
    if not rows:  # Fewer images than columns make one short row.
        rows = [np.concatenate(list(each), axis=1) for each in (images, reconstructions)]
    return Image.fromarray(np.concatenate(rows))


if __name__ == "__main__":
    main()
