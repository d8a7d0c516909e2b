"""Command-line modes for autoencoders: train, evaluate, and reconstruct the user's images."""

import json
import logging
import math
from collections.abc import Mapping, Sequence
from typing import Protocol

import numpy as np
from etils import epath
from jaxtyping import UInt8

from oneflow_jax.autoencoder_training import metrics as metrics_lib
from oneflow_jax.autoencoder_training.objectives import Objective
from oneflow_jax.codecs.autoencoder import diffusers_weights
from oneflow_jax.codecs.autoencoder.autoencoder import Autoencoder
from oneflow_jax.codecs.autoencoder.config import Architecture
from oneflow_jax.data import prompt, sources
from oneflow_jax.errors import UserError
from oneflow_jax.evaluation import psnr_ssim
from oneflow_jax.pretrained.weights import INSTALL_HINT
from oneflow_jax.runtime import distributed, metric_writer, workdir
from oneflow_jax.training import checkpoint, loop
from oneflow_jax.viewer import reconstructions as reconstructions_page

MAX_IMAGES = 60
"""Maximum number of images on the page."""

METRIC_LABELS = {
    "psnr": "PSNR, dB ↑",
    "ssim": "SSIM ↑",
    "lpips": "LPIPS (AlexNet) ↓",
    "kid_efficientnet": "KID (EfficientNet-Lite0) ↓",
    "fd_efficientnet": "FD (EfficientNet-Lite0) ↓",
    "train/psnr": "PSNR of training images, dB ↑",
    "codebook_usage": "fraction of codes in use ↑",
    "perplexity": "perplexity of codes ↑",
    "num_images": "held-out images",
}
"""Labels of the metrics in the order of the table; ↑ means higher is better, ↓ lower is better."""

COLUMNS = ("this codec", "best linear codec")
"""Titles of the table's columns; the second has the metrics whose names begin with `pca/`."""

CURVE_LABEL = "PSNR, dB"

PCA_NOTE = (
    "The best linear codec is a PCA of image patches, fitted to training images, with the same "
    "number of values per patch."
)


class AutoencoderSystem(loop.System, Protocol):
    """An autoencoder's run, as this module uses it; see `build.autoencoder_system.System`.

    Attributes:
        config: configuration of the run.
        objective: network and loss.
    """

    config: workdir.Config
    objective: Objective

    @property
    def architecture(self) -> Architecture:
        """The architecture of the autoencoder."""

    def images(self, split: str, count: int) -> UInt8[np.ndarray, "n H W 3"]:
        """Return the first `count` distinct images of a split."""


def train_autoencoder(system: AutoencoderSystem, folder: epath.Path) -> None:
    """Train, or resume training, and write the autoencoder's EMA parameters to `codec/`."""
    loop.run(system, folder)
    like = system.abstract_state.ema
    with checkpoint.Checkpoints(folder) as checkpoints:
        averaged = checkpoints.restore_ema(like)
    averaged = distributed.to_host(averaged)
    if distributed.is_primary():
        diffusers_weights.save(folder / workdir.CODEC, system.architecture, averaged)
    distributed.barrier()
    logging.info("Wrote the autoencoder in the layout of diffusers: %s", folder / workdir.CODEC)


def evaluate(
    system: AutoencoderSystem, folder: epath.Path, output: epath.Path | None = None
) -> dict[str, float]:
    """Evaluate reconstructions of held-out images, and write `evaluation.json` and the page.

    Args:
        system: the objects of the run.
        folder: the run's folder.
        output: existing folder to write to; None for the run's folder.

    Raises:
        UserError: the folder has no trained autoencoder yet.
    """
    autoencoder = _load_autoencoder(folder)
    images = system.images("heldout", system.config.evaluation.num_samples)
    reconstructions = autoencoder.decode(autoencoder.encode(images))
    training_images = system.images("train", system.config.evaluation.pca_images)
    figures = metrics_lib.measure(autoencoder, images, reconstructions, training_images)
    text = json.dumps(figures, indent=2, sort_keys=True) + "\n"
    output = output or folder
    workdir.write_atomically(output / workdir.EVALUATION, text)
    _write_page(
        system,
        folder,
        output,
        images[:MAX_IMAGES],
        reconstructions[:MAX_IMAGES],
        figures,
        description="that were not used for training",
        notes=[PCA_NOTE, *sources.list_attribution(system.config.source.name)],
    )
    return figures


def reconstruct_prompts(
    system: AutoencoderSystem,
    folder: epath.Path,
    prompts: Sequence[str],
    output: epath.Path | None = None,
) -> epath.Path:
    """Reconstruct the images in the user's prompts, such as `<image:cat.png>`, on a page.

    Args:
        system: the objects of the run.
        folder: the run's folder.
        prompts: prompts in the format of `--prompt`, with images.
        output: existing folder to write the page to; None for the run's folder.

    Returns:
        The path of the page.

    Raises:
        UserError: the folder has no trained autoencoder yet, or the prompts contain no image.
    """
    autoencoder = _load_autoencoder(folder)
    pixels = system.config.data.pixels
    named = [(text, x) for text in prompts for x in prompt.parse(text, pixels).images()]
    images = [picture for _, picture in named]
    if not images:
        raise UserError('Give images to reconstruct: --prompt="<image:cat.png>".')
    originals = np.stack(images)
    reconstructions = autoencoder.decode(autoencoder.encode(originals))
    figures = metrics_lib.pairwise_metrics(originals, reconstructions)
    names = [f"{text}: " for text, _ in named]
    return _write_page(
        system,
        folder,
        output or folder,
        originals,
        reconstructions,
        figures,
        description="from the prompts",
        names=names,
    )


def format_table(metrics: Mapping[str, float]) -> str:
    """Format the metrics as text, one per line, and name the packages that are not installed."""
    rows = {"": COLUMNS} | _metric_cells(metrics)
    lines = [f"{name:<38}" + "".join(f"{x:>20}" for x in row) for name, row in rows.items()]
    if missing := metrics_lib.missing_packages():
        lines.append(
            f"Some metrics were not computed: {' and '.join(missing)} not installed. {INSTALL_HINT}"
        )
    return "\n".join(lines)


def _load_autoencoder(folder: epath.Path) -> Autoencoder:
    if not (folder / workdir.CODEC).exists():
        raise UserError(f"{folder} has no trained autoencoder. Train it first, with --mode=train.")
    return Autoencoder.load(folder / workdir.CODEC)


def _write_page(
    system: AutoencoderSystem,
    folder: epath.Path,
    output: epath.Path,
    images: UInt8[np.ndarray, "n H W 3"],
    reconstructions: UInt8[np.ndarray, "n H W 3"],
    metrics: Mapping[str, float],
    *,
    description: str,
    names: Sequence[str] | None = None,
    notes: Sequence[str] = (),
) -> epath.Path:
    config, shape = system.config, system.architecture
    grid = _size_label(config.data.pixels // shape.downscale_factor)
    slots = f"{grid} latents with {shape.channels} channels"
    if shape.kind == "VQModel":
        slots = f"{grid} codes out of {shape.num_vq_embeddings:,}"
    cells = _metric_cells(metrics)
    path = output / workdir.SAMPLES_PAGE
    if not distributed.is_primary():
        return path
    reconstructions_page.write(
        path,
        originals=images,
        reconstructions=reconstructions,
        captions=[
            f"{name}{_psnr_label(ratio)}"
            for name, ratio in zip(
                names or [""] * len(images), psnr_ssim.psnr(reconstructions, images), strict=True
            )
        ],
        columns=COLUMNS[: max(map(len, cells.values()))],
        metrics=cells,
        ylabel=CURVE_LABEL,
        curves=_psnr_curves(folder),
        settings=workdir.flatten_config(config),
        heading=f"{config.name}: images as {slots}",
        intro=f"Images of {_size_label(config.data.pixels)} pixels {description}, "
        "and their reconstructions.",
        notes=notes,
    )
    return path


def _size_label(size: int) -> str:
    return f"{size}\N{NO-BREAK SPACE}×\N{NO-BREAK SPACE}{size}"


def _psnr_label(psnr: float) -> str:
    return f"{psnr:.1f} dB" if math.isfinite(psnr) else "exact"


def _psnr_curves(folder: epath.Path) -> dict[str, list[tuple[float, float]]]:
    """Return the PSNR of training and held-out images at each logged step."""
    curves = metric_writer.read_curves(folder / workdir.LOGS, ["train/pixels", "eval/psnr"])
    # PSNR is 10 log10(peak^2 / MSE). For pixels in [-1, 1] the peak is 2, and its square is 4.
    trained = [
        (step, 10 * math.log10(4 / error) if error > 0 else math.nan)
        for step, error in curves.get("train/pixels", [])
    ]
    both = {
        "training images, from the mean squared error": trained,
        "held-out images, mean of PSNR": curves.get("eval/psnr", []),
    }
    return {name: curve for name, curve in both.items() if curve}


def _metric_cells(metrics: Mapping[str, float]) -> dict[str, tuple[str, ...]]:
    """Return table cells by label: a metric of this codec and, if computed, of the linear codec."""
    return {
        text: tuple(f"{metrics[key]:.4g}" for key in (name, f"pca/{name}") if key in metrics)
        for name, text in METRIC_LABELS.items()
        if name in metrics
    }
