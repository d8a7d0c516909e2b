"""Files of weights that the user has: read whole, and each tensor taken by its name and shape."""

import numpy as np
import safetensors
import safetensors.numpy
from etils import epath

from oneflow_jax.errors import UserError
from oneflow_jax.pretrained import weights
from oneflow_jax.shapes import Float


class TensorFile:
    """The tensors of one file, which are taken out one by one until none is left."""

    def __init__(self, path: epath.Path) -> None:
        """Reads a `.safetensors` file, or else a state dict by PyTorch.

        Raises:
            UserError: there is no such file, or it cannot be read.
        """
        if not path.is_file():
            raise UserError(f"{path}: there is no such file. Fetch it, or correct the path.")
        self.path = path
        self.tensors = (
            _read_safetensors(path)
            if path.suffix == ".safetensors"
            else weights.read_torch_pickle(path)
        )

    def take(self, name: str, shape: tuple[int, ...]) -> Float[np.ndarray, "..."]:
        """The tensor of that name in float32.

        Raises:
            UserError: there is none, or one of another shape or of other than real numbers.
        """
        if name not in self.tensors:
            raise UserError(
                f"{self.path}: tensor {name} {shape} is missing. Is it the file of another network?"
            )
        value = self.tensors.pop(name)
        if value.shape != shape or value.dtype.kind != "f":
            raise UserError(
                f"{self.path}: tensor {name} is {value.dtype} {value.shape}, but should be floats "
                f"{shape}. Is it the file of another network?"
            )
        return value.astype(np.float32)

    def drop(self, *endings: str) -> None:
        """Forgets the tensors whose names end so."""
        for name in [name for name in self.tensors if name.endswith(endings)]:
            del self.tensors[name]

    def finish(self) -> None:
        """Takes note that all has been taken.

        Raises:
            UserError: something is left, which the network has no place for.
        """
        if self.tensors:
            name = min(self.tensors)
            raise UserError(
                f"{self.path}: tensor {name} {self.tensors[name].shape} ({len(self.tensors)} such "
                "in all) has no place in the network. Is it the file of another one?"
            )


def _read_safetensors(path: epath.Path) -> dict[str, np.ndarray]:
    try:
        return safetensors.numpy.load(path.read_bytes())
    except safetensors.SafetensorError as error:
        raise UserError(
            f"{path} is cut off, or no safetensors file ({error}). Fetch it again."
        ) from error
    except KeyError as error:  # Of a type that NumPy does not have.
        raise UserError(f"{path} has tensors of type {error}. Convert them to F32.") from error
