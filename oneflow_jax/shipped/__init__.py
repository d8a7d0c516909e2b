"""The small model that comes with the project: weights, tokenizer, configuration.

`of.load(of.PRETRAINED)` loads it; docs/shipped.md describes its training and its quality.
"""

import filecmp
import pathlib
import shutil

from oneflow_jax.errors import UserError

PRETRAINED = pathlib.Path(__file__).parent
"""Folder of the model; `load` and `--mode=sample` accept it like the folder of a run."""

FILES = ("config.json", "tokenizer.model", "weights.safetensors")
"""Names of the model's files; every export has files with these names."""


def copy_to(folder: str) -> None:
    """Copy the model to a folder in which sampling can write its page.

    Raises:
        UserError: a file in the folder has the name of a model file, but other content.
    """
    target = pathlib.Path(folder)
    target.mkdir(parents=True, exist_ok=True)
    for name in FILES:
        if not (target / name).exists():
            shutil.copy(PRETRAINED / name, target / name)
        elif not filecmp.cmp(PRETRAINED / name, target / name, shallow=False):
            raise UserError(
                f"{target / name}: the file differs from that of the shipped model. Move the "
                f"folder {folder} away, or give it as --workdir to sample from it."
            )
