"""The small model that comes with the project: weights, tokenizer, configuration.

`of.load(of.PRETRAINED)` loads it; docs/shipped.md describes its training and its quality.
"""

import filecmp
import pathlib
import shutil

from oneflow_jax.errors import UserError

PRETRAINED = pathlib.Path(__file__).parent
"""Folder of the model; `load` and `--mode=sample` accept it like the folder of a run."""

SHIPPED = "shipped"
"""Name of the model in lists of models."""

CODEC = PRETRAINED / "codec"
"""Folder of the model's autoencoder, in the layout of diffusers."""

FILES = (
    *("config.json", "tokenizer.model", "latents.json", "weights.safetensors"),
    *("codec/config.json", "codec/diffusion_pytorch_model.safetensors"),
)
"""Paths of the model's files; every export of a model on latents has these files."""


def copy_to(folder: str) -> None:
    """Copy the model to a folder in which sampling can write its page.

    Raises:
        UserError: a file in the folder has the name of a model file, but other content.
    """
    target = pathlib.Path(folder)
    for name in FILES:
        (target / name).parent.mkdir(parents=True, exist_ok=True)
        if not (target / name).exists():
            shutil.copy(PRETRAINED / name, target / name)
        elif not filecmp.cmp(PRETRAINED / name, target / name, shallow=False):
            raise UserError(
                f"{target / name}: the file differs from that of the shipped model. Move the "
                f"folder {folder} away, or give it as --workdir to sample from it."
            )
