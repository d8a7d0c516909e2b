"""Weights in packages and files: found without importing, and read without trusting, them.

The files are pickles, and a pickle may call whatever Python can. It gets at what it calls by
`find_class`; the one here knows a handful of names and gives stand-ins for them, so that reading
runs nothing of NumPy's or PyTorch's, and PyTorch is not needed.
"""

import collections
import dataclasses
import importlib.util
import math
import operator
import pathlib
import pickle
import zipfile
from collections.abc import Mapping
from typing import Any, BinaryIO

import numpy as np

from oneflow_jax.errors import UserError

INSTALL_HINT = "pip install -r requirements-metrics.txt"
TORCH_MAGIC = 0x1950A86A20F9469CFC6C
"""The number at the head of what PyTorch's `save` wrote before version 1.6."""

_ZIP_MAGIC = b"PK\x03\x04"

# What unpickling may raise by the standard library's word, and what the stand-ins do.
_UNPICKLING_ERRORS = (
    pickle.UnpicklingError,
    ArithmeticError,
    AttributeError,
    EOFError,
    ImportError,
    LookupError,
    MemoryError,
    RuntimeError,
    TypeError,
    ValueError,
    zipfile.BadZipFile,
)


def find_package_file(package: str, file: str) -> pathlib.Path:
    """The path of `file` inside an installed package, which is not imported.

    Raises:
        UserError: the package is not installed, or has no such file.
    """
    spec = importlib.util.find_spec(package)
    if spec is None:
        raise UserError(f"The package {package} is not installed: {INSTALL_HINT}")
    for folder in spec.submodule_search_locations or ():
        if (path := pathlib.Path(folder, file)).is_file():
            return path
    raise UserError(
        f"The package {package} has no {file}. Get the version that has: {INSTALL_HINT}"
    )


def read_numpy_pickle(path: pathlib.Path) -> Any:  # noqa: ANN401 - whatever tree the file has
    """A tree of dicts, lists and tuples of float32 arrays, as NumPy pickles them.

    Raises:
        UserError: the file is broken, or wants to call what has no place in it.
    """
    with path.open("rb") as file:
        try:
            return _unwrap(_Unpickler(file, path).load())
        except _UNPICKLING_ERRORS as error:
            raise UserError(f"{path} is no pickle of float32 arrays: {error!r}") from error


def read_torch_pickle(path: pathlib.Path) -> dict[str, np.ndarray]:
    """Arrays by name, of a state dict that PyTorch's `save` wrote, in either of its formats.

    Raises:
        UserError: the file is broken, or wants to call what has no place in it.
    """
    with path.open("rb") as file:
        zipped = file.read(len(_ZIP_MAGIC)) == _ZIP_MAGIC
        file.seek(0)
        try:
            tensors, storages = (_read_zip if zipped else _read_legacy)(file, path)
            return {name: tensor.read(storages) for name, tensor in tensors.items()}
        except _UNPICKLING_ERRORS as error:
            raise UserError(f"{path} is no state dict of PyTorch: {error!r}") from error


def _read_legacy(file: BinaryIO, path: pathlib.Path) -> tuple[Any, dict[str, np.ndarray]]:
    """What PyTorch before 1.6 wrote: stand-ins of tensors by name, and storages by key.

    Such a file is five pickles: a magic number, a version, the machine's word sizes, the dict of
    how tensors lie in storages, the storages' keys; then comes each storage, its count first.
    """
    if _Unpickler(file, path).load() != TORCH_MAGIC:
        raise UserError(f"{path} is no state dict of PyTorch's.")
    version, sizes = _Unpickler(file, path).load(), _Unpickler(file, path).load()
    if version != 1001 or not sizes["little_endian"]:
        raise UserError(f"{path} is of another version, {version}, or byte order.")
    reader = _Unpickler(file, path)
    tensors = reader.load()
    keys = _Unpickler(file, path).load()
    return tensors, {key: reader.storages[key].read(file) for key in keys}


def _read_zip(file: BinaryIO, path: pathlib.Path) -> tuple[Any, dict[str, np.ndarray]]:
    """What PyTorch from 1.6 on writes, likewise: one pickle, and a file for each storage."""
    with zipfile.ZipFile(file) as archive:
        if any(member.compress_type != zipfile.ZIP_STORED for member in archive.infolist()):
            raise ValueError("it is compressed, as PyTorch never does")
        names = archive.namelist()
        (pickled,) = (name for name in names if name.endswith("/data.pkl"))
        folder = pickled.removesuffix("data.pkl")
        order = f"{folder}byteorder"
        if order in names and archive.read(order) != b"little":
            raise UserError(f"{path} is of another byte order, {archive.read(order)!r}.")
        with archive.open(pickled) as member:
            reader = _Unpickler(member, path)
            tensors = reader.load()
        storages = {}
        for key, storage in reader.storages.items():
            name = f"{folder}data/{key}"
            count = archive.getinfo(name).file_size // np.dtype(storage.code).itemsize
            with archive.open(name) as member:
                storages[key] = storage.numbers(member, count)
        return tensors, storages


@dataclasses.dataclass
class _DType:
    """Stands for a NumPy dtype."""

    name: str
    align: bool = False
    copy: bool = False
    order: str = ""

    def __setstate__(self, state: tuple) -> None:
        self.order = state[1]


class _NDArray:
    """Stands for a NumPy array."""

    values: np.ndarray

    def __init__(self, *unused: object) -> None:
        """What NumPy makes at first is empty; all comes with the state."""

    def __setstate__(self, state: tuple) -> None:
        _, shape, kind, by_columns, data = state
        if (code := kind.order + kind.name) != "<f4":
            raise ValueError(f"numbers are {code!r}, not '<f4'")
        self.values = np.frombuffer(data, "<f4").reshape(shape, order="CF"[by_columns])


@dataclasses.dataclass
class _Storage:
    """Stands for a PyTorch storage, of which the pickle has no more than this."""

    code: str
    key: str
    count: int

    def read(self, file: BinaryIO) -> np.ndarray:
        """The storage's numbers, where they come next in the file, ahead of them their count."""
        return self.numbers(file, int.from_bytes(file.read(8), "little", signed=True))

    def numbers(self, file: BinaryIO, count: int) -> np.ndarray:
        """The storage's numbers, of which the file has `count`."""
        if count != self.count or count < 1:
            raise ValueError(f"storage {self.key!r} has {count} numbers, not {self.count}")
        return np.frombuffer(file.read(count * np.dtype(self.code).itemsize), self.code, count)


@dataclasses.dataclass
class _Tensor:
    """Stands for a PyTorch tensor: numbers of a storage, `strides` apart, from `offset` on."""

    storage: _Storage
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]
    requires_grad: bool
    hooks: Mapping

    def read(self, storages: Mapping[str, np.ndarray]) -> np.ndarray:
        """A copy of the tensor's numbers.

        NumPy does not check that a view by strides stays inside, and would read other memory.
        """
        numbers = storages[self.storage.key]
        shape = tuple(operator.index(size) for size in self.shape)
        strides = tuple(operator.index(stride) for stride in self.strides)
        offset = operator.index(self.offset)
        last = offset + sum((n - 1) * step for n, step in zip(shape, strides, strict=True))
        least = min((offset, *strides, *(size - 1 for size in shape)))
        if least < 0 or last >= numbers.size or math.prod(shape) > numbers.size:
            raise ValueError(f"{self} reaches out of its storage of {numbers.size} numbers")
        steps = [step * numbers.itemsize for step in strides]
        return np.lib.stride_tricks.as_strided(numbers[offset:], shape, steps).copy()


_ALLOWED_CLASSES = {
    "collections.OrderedDict": collections.OrderedDict,
    "numpy.dtype": _DType,
    "numpy.ndarray": _NDArray,
    "numpy.core.multiarray._reconstruct": _NDArray,
    "numpy._core.multiarray._reconstruct": _NDArray,
    "torch.DoubleStorage": "<f8",
    "torch.FloatStorage": "<f4",
    "torch.HalfStorage": "<f2",
    "torch.LongStorage": "<i8",
    "torch._utils._rebuild_tensor_v2": _Tensor,
}


class _Unpickler(pickle.Unpickler):
    """Reads one pickle of a file; what that calls must be `_ALLOWED_CLASSES`."""

    def __init__(self, file: BinaryIO, path: pathlib.Path) -> None:
        super().__init__(file)
        self.path = path
        self.storages: dict[str, _Storage] = {}

    def find_class(self, module: str, name: str) -> object:
        """The stand-in for what the pickle names.

        Raises:
            UserError: it has none.
        """
        full = f"{module}.{name}"
        if full not in _ALLOWED_CLASSES:
            raise UserError(
                f"{self.path} wants to call {full}, which weights have no need of. Do not use the "
                f"file; get it anew, or the package that it is in: {INSTALL_HINT}"
            )
        return _ALLOWED_CLASSES[full]

    def persistent_load(self, pid: tuple) -> _Storage:
        """The storage that a tensor's numbers are in."""
        _, code, key, _, count, *_ = pid  # Before 1.6 there is one more.
        return self.storages.setdefault(key, _Storage(code, key, count))


def _unwrap(tree: object) -> object:
    """The tree with arrays in the place of their stand-ins."""
    if isinstance(tree, _NDArray):
        return tree.values
    if isinstance(tree, dict):
        return {key: _unwrap(branch) for key, branch in tree.items()}
    if isinstance(tree, list | tuple):
        return type(tree)(map(_unwrap, tree))
    return tree
