"""Reader of weight files, which checks the name and the shape of every tensor."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import safetensors
from etils import epath

from oneflow_jax.errors import UserError
from oneflow_jax.pretrained import shards, weights
from oneflow_jax.shapes import Float

DTYPES = {
    "F64": "<f8",
    "F32": "<f4",
    "F16": "<f2",
    "I64": "<i8",
    "I32": "<i4",
    "I16": "<i2",
    "I8": "i1",
    "U8": "u1",
    "BOOL": "?",
}
"""NumPy's types of the types in safetensors files."""


class TensorFile:
    """The tensors of one file. Callers pop each tensor of their network by name."""

    def __init__(self, path: epath.Path) -> None:
        """Read a `.safetensors` file, shards with an index, or otherwise a PyTorch state dict.

        Raises:
            UserError: the file does not exist or cannot be read.
        """
        if not path.is_file():
            raise UserError(f"{path}: the file does not exist. Download it, or correct the path.")
        self.path = path
        if path.name.endswith(shards.INDEX_SUFFIX):
            self.tensors = shards.read_shards(path, _read_safetensors)
        elif path.suffix == ".safetensors":
            self.tensors = _read_safetensors(path)
        else:
            self.tensors = weights.read_torch_pickle(path)

    def pop(self, name: str, shape: tuple[int, ...]) -> Float[np.ndarray, "..."]:
        """Remove a tensor and return it in float32.

        Raises:
            UserError: the tensor is missing, has another shape, is not of a float type, or is not
                finite.
        """
        if name not in self.tensors:
            raise UserError(
                f"{self.path}: tensor {name} {shape} is missing. Check that the file belongs to "
                "this network."
            )
        value = self.tensors.pop(name)
        if value.shape != shape or value.dtype.kind != "f":
            raise UserError(
                f"{self.path}: tensor {name} is {value.dtype} {value.shape}, but should be float "
                f"{shape}. Check that the file belongs to this network."
            )
        return to_finite_float32(value, f"{self.path}: tensor {name}", "Download the file again.")

    def discard(self, *suffixes: str) -> None:
        """Remove the tensors whose names have one of the suffixes."""
        for name in [name for name in self.tensors if name.endswith(suffixes)]:
            del self.tensors[name]

    def assert_empty(self) -> None:
        """Check that all tensors have been popped or discarded.

        Raises:
            UserError: the file has a tensor that the network does not have.
        """
        if self.tensors:
            name = min(self.tensors)
            raise UserError(
                f"{self.path}: tensor {name} {self.tensors[name].shape} is not in the network "
                f"(unexpected tensors: {len(self.tensors)}). Check that the file belongs to this "
                "network."
            )


def to_finite_float32(value: np.ndarray, label: str, advice: str) -> Float[np.ndarray, "..."]:
    """Convert a tensor to float32.

    Raises:
        UserError: a number is NaN, or infinite in float32. The message begins with `label` and ends
            with `advice`.
    """
    with np.errstate(over="ignore"):
        converted = value.astype(np.float32)
    if not np.isfinite(converted).all():
        raise UserError(f"{label} has numbers that are NaN or infinite in float32. {advice}")
    return converted


def _read_safetensors(path: epath.Path) -> dict[str, np.ndarray]:
    try:
        stored = safetensors.deserialize(path.read_bytes())
        return {name: _to_array(tensor) for name, tensor in stored}
    except safetensors.SafetensorError as error:
        raise UserError(
            f"{path}: truncated or not a safetensors file ({error}). Download it again."
        ) from error
    except KeyError as error:  # NumPy has no such data type.
        raise UserError(
            f"{path}: tensors have the unsupported type {error}. Convert them to F32."
        ) from error


def _to_array(tensor: Mapping[str, Any]) -> np.ndarray:
    """Return a tensor of a safetensors file; bfloat16, which NumPy lacks, becomes float32."""
    if tensor["dtype"] == "BF16":
        halves = np.frombuffer(tensor["data"], "<u2").astype("<u4")
        return (halves << 16).view("<f4").reshape(tensor["shape"])
    return np.frombuffer(tensor["data"], DTYPES[tensor["dtype"]]).reshape(tensor["shape"])
