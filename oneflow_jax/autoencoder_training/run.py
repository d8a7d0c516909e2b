"""What the command line does with the configuration of an autoencoder."""

import json
import logging
import math
from collections.abc import Mapping, Sequence

import numpy as np
from etils import epath
from jaxtyping import UInt8

from oneflow_jax.autoencoder_training import metrics as metrics_lib
from oneflow_jax.autoencoder_training import system as autoencoder_system
from oneflow_jax.codecs.autoencoder import diffusers_weights
from oneflow_jax.codecs.autoencoder.autoencoder import Autoencoder
from oneflow_jax.data import emoji_concepts, prompt
from oneflow_jax.errors import UserError
from oneflow_jax.evaluation import psnr_ssim
from oneflow_jax.pretrained.weights import INSTALL_HINT
from oneflow_jax.runtime import distributed, metric_writer, workdir
from oneflow_jax.training import checkpoint, loop, train_state
from oneflow_jax.viewer import reconstructions as reconstructions_page

MAX_IMAGES = 60
"""Pictures on the page."""

METRIC_LABELS = {
    "psnr": "PSNR, dB ↑",
    "ssim": "SSIM ↑",
    "lpips": "LPIPS (AlexNet) ↓",
    "kid": "KID (EfficientNet-Lite0) ↓",
    "fd": "FD (EfficientNet-Lite0) ↓",
    "trained/psnr": "PSNR of pictures of training, dB ↑",
    "codes": "share of codes in use ↑",
    "perplexity": "perplexity of codes ↑",
    "n": "held-out pictures",
}
"""What figures are called, in order, and which way is better."""

COLUMNS = ("this codec", "best linear codec")
"""Whose figures there are; those of the second begin with `linear/`."""

CURVE_LABEL = "PSNR, dB"

PCA_NOTE = (
    "The best linear codec keeps as many numbers of each square of pixels: principal components of "
    "the pictures of training."
)


def train_autoencoder(system: autoencoder_system.System, folder: epath.Path) -> None:
    """Trains, goes on or finds it done; and writes the averaged autoencoder to `codec/`."""
    loop.run(system, folder)
    like = train_state.abstract_state(system).ema
    with checkpoint.Checkpoints(folder) as checkpoints:
        averaged = checkpoints.restore_ema(like)
    averaged = distributed.to_host(averaged)
    if distributed.is_primary():
        diffusers_weights.save(folder / workdir.CODEC, system.shape, averaged)
    distributed.barrier()
    logging.info("The autoencoder, in the layout of diffusers: %s", folder / workdir.CODEC)


def evaluate(system: autoencoder_system.System, folder: epath.Path) -> dict[str, float]:
    """Scores held-out pictures, and writes `evaluation.json` and the page.

    Raises:
        UserError: nothing was trained yet.
    """
    autoencoder = _load_autoencoder(folder)
    shown = system.pictures("heldout", system.config.evaluation.samples)
    rebuilt = autoencoder.decode(autoencoder.encode(shown))
    seen = system.pictures("train", system.config.evaluation.fitted)
    figures = metrics_lib.measure(autoencoder, shown, rebuilt, seen)
    text = json.dumps(figures, indent=2, sort_keys=True) + "\n"
    workdir.write_atomically(folder / workdir.EVALUATION, text)
    from_emoji = system.config.source.name == "emoji"
    _write_page(
        system,
        folder,
        shown[:MAX_IMAGES],
        rebuilt[:MAX_IMAGES],
        figures,
        description="that the codec was not trained on",
        notes=[PCA_NOTE, *([emoji_concepts.ATTRIBUTION] if from_emoji else [])],
    )
    return figures


def reconstruct_prompts(
    system: autoencoder_system.System, folder: epath.Path, prompts: Sequence[str]
) -> epath.Path:
    """Shows what becomes of pictures of the user's, `<image:cat.png>`; returns the page's path.

    Raises:
        UserError: nothing was trained yet, or a prompt is no picture.
    """
    autoencoder = _load_autoencoder(folder)
    pixels = system.config.data.pixels
    named = [(text, x) for text in prompts for x in prompt.parse(text, pixels).pictures()]
    found = [picture for _, picture in named]
    if not found:
        raise UserError('Give pictures to rebuild: --prompt="<image:cat.png>".')
    shown = np.stack(found)
    rebuilt = autoencoder.decode(autoencoder.encode(shown))
    figures = metrics_lib.pairwise_metrics(shown, rebuilt)
    names = [f"{text}: " for text, _ in named]
    return _write_page(
        system, folder, shown, rebuilt, figures, description="that were given", names=names
    )


def format_table(metrics: Mapping[str, float]) -> str:
    """The figures for people, a line each; and what is missing for want of a package."""
    rows = {"": COLUMNS} | _metric_cells(metrics)
    lines = [f"{name:<38}" + "".join(f"{x:>20}" for x in row) for name, row in rows.items()]
    if missing := metrics_lib.missing_packages():
        lines.append(f"Not measured, for want of {' and '.join(missing)}: {INSTALL_HINT}")
    return "\n".join(lines)


def _load_autoencoder(folder: epath.Path) -> Autoencoder:
    if not (folder / workdir.CODEC).exists():
        raise UserError(f"There is no codec in {folder}: train first, with --mode=train.")
    return Autoencoder.load(folder / workdir.CODEC)


def _write_page(
    system: autoencoder_system.System,
    folder: epath.Path,
    images: UInt8[np.ndarray, "n H W 3"],
    reconstructions: UInt8[np.ndarray, "n H W 3"],
    metrics: Mapping[str, float],
    *,
    description: str,
    names: Sequence[str] | None = None,
    notes: Sequence[str] = (),
) -> epath.Path:
    config, shape = system.config, system.shape
    grid = _size_label(config.data.pixels // shape.factor)
    made = f"{grid} places of {shape.channels} numbers"
    if shape.kind == "VQModel":
        made = f"{grid} codes out of {shape.num_vq_embeddings:,}"
    told = _metric_cells(metrics)
    path = folder / workdir.SAMPLES_PAGE
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
        columns=COLUMNS[: max(map(len, told.values()))],
        metrics=told,
        ylabel=CURVE_LABEL,
        curves=_psnr_curves(folder),
        settings=workdir.flatten_config(config),
        heading=f"{config.name}: pictures as {made}",
        intro=f"Pictures of {_size_label(config.data.pixels)} pixels {description}, "
        "and what comes back of them.",
        notes=notes,
    )
    return path


def _size_label(size: int) -> str:
    return f"{size}\N{NO-BREAK SPACE}×\N{NO-BREAK SPACE}{size}"


def _psnr_label(psnr: float) -> str:
    return f"{psnr:.1f} dB" if math.isfinite(psnr) else "exact"


def _psnr_curves(folder: epath.Path) -> dict[str, list[tuple[float, float]]]:
    """How well pictures were brought back as training went on."""
    found = metric_writer.read_curves(folder / workdir.LOGS, ["train/pixels", "heldout/psnr"])
    # The mean square of a difference of numbers that are 2 apart at most.
    trained = [
        (step, 10 * math.log10(4 / error) if error > 0 else math.nan)
        for step, error in found.get("train/pixels", [])
    ]
    both = {
        "training, of a mean squared error": trained,
        "held out, mean over pictures": found.get("heldout/psnr", []),
    }
    return {name: curve for name, curve in both.items() if curve}


def _metric_cells(metrics: Mapping[str, float]) -> dict[str, tuple[str, ...]]:
    """The figures as people read them: of this codec, and of the linear one if it has them."""
    return {
        text: tuple(f"{metrics[key]:.4g}" for key in (name, f"linear/{name}") if key in metrics)
        for name, text in METRIC_LABELS.items()
        if name in metrics
    }
