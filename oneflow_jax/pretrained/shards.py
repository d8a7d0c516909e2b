"""Reader of weights that are split into several safetensors files with an index.

`<name>.safetensors.index.json` contains `{"weight_map": {tensor: file}}`. The files are in the same
folder.
"""

import json
import re
from collections.abc import Callable

import numpy as np
from etils import epath

from oneflow_jax.errors import UserError

INDEX_SUFFIX = ".safetensors.index.json"

_SHARD_NAME = re.compile(r"[^/\\:]+\.safetensors")
"""Pattern of the shard names that an index may have: names without a folder."""


def read_shards(
    path: epath.Path, read: Callable[[epath.Path], dict[str, np.ndarray]]
) -> dict[str, np.ndarray]:
    """Read all tensors of the shards that an index names.

    Args:
        path: the index.
        read: a function that reads all tensors of one file.

    Raises:
        UserError: the index is malformed or names a file in another folder, a shard is missing, or
            a tensor is not in the shard that the index names.
    """
    tensors: dict[str, np.ndarray] = {}
    for file, names in _read_index(path).items():
        shard = path.parent / file
        if not shard.is_file():
            raise UserError(
                f"{shard}: the file does not exist, but {path.name} names it. Download it."
            )
        stored = read(shard)
        for name in sorted(names ^ stored.keys()):
            wrong = "missing" if name in names else f"not in the list of this file in {path.name}"
            advice = "Download both files again, from the same version of the model."
            raise UserError(f"{shard}: tensor {name} is {wrong}. {advice}")
        tensors |= stored
    return tensors


def _read_index(path: epath.Path) -> dict[str, set[str]]:
    """Return the names of the tensors in each shard, by file name."""
    try:
        index = json.loads(path.read_text())
    except (ValueError, RecursionError) as error:
        raise UserError(f"{path} is not JSON ({error}). Download it again.") from error
    weight_map = index.get("weight_map") if isinstance(index, dict) else None
    if not isinstance(weight_map, dict) or not weight_map:
        raise UserError(f"{path}: it has no weight_map from tensors to files. Download it again.")
    shards: dict[str, set[str]] = {}
    for tensor, file in weight_map.items():
        if not isinstance(file, str) or not _SHARD_NAME.fullmatch(file):
            raise UserError(
                f"{path}: weight_map.{tensor}={file!r}: not the name of a .safetensors file in "
                "this folder. Download the index again, and only from a source that you trust."
            )
        shards.setdefault(file, set()).add(tensor)
    return shards
