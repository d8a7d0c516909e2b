"""What the command line does with the configuration of an autoencoder."""

import json
import logging
import math
from collections.abc import Mapping, Sequence

import numpy as np
from etils import epath
from jaxtyping import UInt8

from oneflow_jax.autoencoder_training import metrics
from oneflow_jax.autoencoder_training import system as autoencoder_system
from oneflow_jax.codecs.autoencoder import diffusers_weights
from oneflow_jax.codecs.autoencoder.autoencoder import Autoencoder
from oneflow_jax.data import emoji_concepts, prompt
from oneflow_jax.errors import UserError
from oneflow_jax.evaluation import psnr_ssim
from oneflow_jax.pretrained.weights import INSTALL
from oneflow_jax.runtime import distributed, metric_writer, workdir
from oneflow_jax.training import checkpoint, loop, train_state
from oneflow_jax.viewer import reconstructions

SHOWN = 60
"""Pictures on the page."""

NAMES = {
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

AXIS = "PSNR, dB"

LINEAR = (
    "The best linear codec keeps as many numbers of each square of pixels: principal components of "
    "the pictures of training."
)


def trained(system: autoencoder_system.System, folder: epath.Path) -> None:
    """Trains, goes on or finds it done; and writes the averaged autoencoder to `codec/`."""
    loop.run(system, folder)
    like = train_state.abstract(system).ema
    with checkpoint.Checkpoints(folder) as checkpoints:
        averaged = checkpoints.restore_averaged(like)
    averaged = distributed.fetched(averaged)
    if distributed.leads():
        diffusers_weights.save(folder / workdir.CODEC, system.shape, averaged)
    distributed.meet()
    logging.info("The autoencoder, in the layout of diffusers: %s", folder / workdir.CODEC)


def evaluated(system: autoencoder_system.System, folder: epath.Path) -> dict[str, float]:
    """Scores held-out pictures, and writes `evaluation.json` and the page.

    Raises:
        UserError: nothing was trained yet.
    """
    autoencoder = _finished(folder)
    shown = system.pictures("heldout", system.config.evaluation.samples)
    rebuilt = autoencoder.decode(autoencoder.encode(shown))
    seen = system.pictures("train", system.config.evaluation.fitted)
    figures = metrics.figures(autoencoder, shown, rebuilt, seen)
    text = json.dumps(figures, indent=2, sort_keys=True) + "\n"
    workdir.write_atomically(folder / workdir.EVALUATION, text)
    from_emoji = system.config.source.name == "emoji"
    _page(
        system,
        folder,
        shown[:SHOWN],
        rebuilt[:SHOWN],
        figures,
        what="that the codec was not trained on",
        notes=[LINEAR, *([emoji_concepts.ATTRIBUTION] if from_emoji else [])],
    )
    return figures


def sampled(
    system: autoencoder_system.System, folder: epath.Path, prompts: Sequence[str]
) -> epath.Path:
    """Shows what becomes of pictures of the user's, `<image:cat.png>`; returns the page's path.

    Raises:
        UserError: nothing was trained yet, or a prompt is no picture.
    """
    autoencoder = _finished(folder)
    pixels = system.config.data.pixels
    named = [(text, x) for text in prompts for x in prompt.parse(text, pixels).pictures()]
    found = [picture for _, picture in named]
    if not found:
        raise UserError('Give pictures to rebuild: --prompt="<image:cat.png>".')
    shown = np.stack(found)
    rebuilt = autoencoder.decode(autoencoder.encode(shown))
    figures = metrics.alike(shown, rebuilt)
    names = [f"{text}: " for text, _ in named]
    return _page(system, folder, shown, rebuilt, figures, what="that were given", names=names)


def table(figures: Mapping[str, float]) -> str:
    """The figures for people, a line each; and what is missing for want of a package."""
    rows = {"": COLUMNS} | _told(figures)
    lines = [f"{name:<38}" + "".join(f"{x:>20}" for x in row) for name, row in rows.items()]
    if missing := metrics.missing():
        lines.append(f"Not measured, for want of {' and '.join(missing)}: {INSTALL}")
    return "\n".join(lines)


def _finished(folder: epath.Path) -> Autoencoder:
    if not (folder / workdir.CODEC).exists():
        raise UserError(f"There is no codec in {folder}: train first, with --mode=train.")
    return Autoencoder.load(folder / workdir.CODEC)


def _page(
    system: autoencoder_system.System,
    folder: epath.Path,
    shown: UInt8[np.ndarray, "n H W 3"],
    rebuilt: UInt8[np.ndarray, "n H W 3"],
    figures: Mapping[str, float],
    *,
    what: str,
    names: Sequence[str] | None = None,
    notes: Sequence[str] = (),
) -> epath.Path:
    config, shape = system.config, system.shape
    grid = _square(config.data.pixels // shape.factor)
    made = f"{grid} places of {shape.channels} numbers"
    if shape.kind == "VQModel":
        made = f"{grid} codes out of {shape.num_vq_embeddings:,}"
    told = _told(figures)
    path = folder / workdir.PAGE
    if not distributed.leads():
        return path
    reconstructions.write(
        path,
        originals=shown,
        rebuilt=rebuilt,
        captions=[
            f"{name}{_caption(ratio)}"
            for name, ratio in zip(
                names or [""] * len(shown), psnr_ssim.psnr(rebuilt, shown), strict=True
            )
        ],
        columns=COLUMNS[: max(map(len, told.values()))],
        figures=told,
        axis=AXIS,
        curves=_curves(folder),
        settings=workdir.settings(config),
        heading=f"{config.name}: pictures as {made}",
        lede=f"Pictures of {_square(config.data.pixels)} pixels {what}, and what comes back of "
        "them.",
        notes=notes,
    )
    return path


def _square(side: int) -> str:
    return f"{side}\N{NO-BREAK SPACE}×\N{NO-BREAK SPACE}{side}"


def _caption(ratio: float) -> str:
    return f"{ratio:.1f} dB" if math.isfinite(ratio) else "exact"


def _curves(folder: epath.Path) -> dict[str, list[tuple[float, float]]]:
    """How well pictures were brought back as training went on."""
    found = metric_writer.curves(folder / workdir.LOGS, ["train/pixels", "heldout/psnr"])
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


def _told(figures: Mapping[str, float]) -> dict[str, tuple[str, ...]]:
    """The figures as people read them: of this codec, and of the linear one if it has them."""
    return {
        text: tuple(f"{figures[key]:.4g}" for key in (name, f"linear/{name}") if key in figures)
        for name, text in NAMES.items()
        if name in figures
    }
