"""Safe readers of pickled weights, from installed packages or from files.

A pickle can call any Python function, which the unpickler looks up with `find_class`. The unpickler
of this module allows only a few names, and returns stand-ins instead of the functions. So reading a
file calls no function of NumPy or PyTorch that the pickle names, does not need PyTorch, and does
not import the package that contains the file.
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
"""First value in files that PyTorch before version 1.6 wrote."""

_ZIP_MAGIC = b"PK\x03\x04"

# Exceptions that unpickling can raise according to the documentation of Python, and exceptions that
# the stand-ins raise.
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
    """Return the path of `file` inside an installed package, without importing the package.

    Raises:
        UserError: the package is not installed or has no such file.
    """
    spec = importlib.util.find_spec(package)
    if spec is None:
        raise UserError(f"The package {package} is not installed: {INSTALL_HINT}")
    for folder in spec.submodule_search_locations or ():
        if (path := pathlib.Path(folder, file)).is_file():
            return path
    raise UserError(
        f"The package {package} has no {file}. Install the required version: {INSTALL_HINT}"
    )


def read_numpy_pickle(path: pathlib.Path) -> Any:  # noqa: ANN401 - any tree
    """Read a tree of dicts, lists and tuples of float32 arrays, as NumPy pickles them.

    Raises:
        UserError: the file is broken, or calls a function that is not allowed.
    """
    with path.open("rb") as file:
        try:
            return _unwrap(_Unpickler(file, path).load())
        except _UNPICKLING_ERRORS as error:
            raise UserError(f"{path}: not a pickle of float32 arrays: {error!r}") from error


def read_torch_pickle(path: pathlib.Path) -> dict[str, np.ndarray]:
    """Read the arrays, by name, of a state dict in the old or new format of PyTorch's `save`.

    Raises:
        UserError: the file is broken, or calls a function that is not allowed.
    """
    with path.open("rb") as file:
        zipped = file.read(len(_ZIP_MAGIC)) == _ZIP_MAGIC
        file.seek(0)
        try:
            tensors, storages = (_read_zip if zipped else _read_legacy)(file, path)
            return {name: tensor.read(storages) for name, tensor in tensors.items()}
        except _UNPICKLING_ERRORS as error:
            raise UserError(f"{path}: not a PyTorch state dict: {error!r}") from error


def _read_legacy(file: BinaryIO, path: pathlib.Path) -> tuple[Any, dict[str, np.ndarray]]:
    """Read the format of PyTorch before 1.6.

    The file begins with five pickles: a magic number, a version, the machine's word sizes, a dict
    of tensors that refer to storages, and the keys of the storages. Then the storages follow, each
    preceded by its number of elements.

    Returns:
        Stand-ins of the tensors by name, and the values of the storages by key.
    """
    if _Unpickler(file, path).load() != TORCH_MAGIC:
        raise UserError(f"{path}: not a PyTorch state dict.")
    version, sizes = _Unpickler(file, path).load(), _Unpickler(file, path).load()
    if version != 1001 or not sizes["little_endian"]:
        raise UserError(
            f"{path}: unsupported version {version} or byte order. Save it again with PyTorch 1.6 "
            "or newer."
        )
    reader = _Unpickler(file, path)
    tensors = reader.load()
    keys = _Unpickler(file, path).load()
    return tensors, {key: reader.storages[key].read(file) for key in keys}


def _read_zip(file: BinaryIO, path: pathlib.Path) -> tuple[Any, dict[str, np.ndarray]]:
    """Read the format of PyTorch 1.6 and newer: a zip archive with a pickle and the storages.

    Returns:
        Stand-ins of the tensors by name, and the values of the storages by key.
    """
    with zipfile.ZipFile(file) as archive:
        if any(member.compress_type != zipfile.ZIP_STORED for member in archive.infolist()):
            raise ValueError("the archive is compressed, but PyTorch writes no compressed archives")
        names = archive.namelist()
        (pickled,) = (name for name in names if name.endswith("/data.pkl"))
        folder = pickled.removesuffix("data.pkl")
        order = f"{folder}byteorder"
        if order in names and archive.read(order) != b"little":
            raise UserError(
                f"{path}: unsupported byte order, {archive.read(order)!r}. Save it as "
                "little-endian."
            )
        with archive.open(pickled) as member:
            reader = _Unpickler(member, path)
            tensors = reader.load()
        storages = {}
        for key, storage in reader.storages.items():
            name = f"{folder}data/{key}"
            count = archive.getinfo(name).file_size // np.dtype(storage.code).itemsize
            with archive.open(name) as member:
                storages[key] = storage.read_values(member, count)
        return tensors, storages


@dataclasses.dataclass
class _DType:
    """Stand-in for a NumPy dtype."""

    name: str
    align: bool = False
    copy: bool = False
    order: str = ""

    def __setstate__(self, state: tuple) -> None:
        self.order = state[1]


class _NDArray:
    """Stand-in for a NumPy array."""

    values: np.ndarray

    def __init__(self, *unused: object) -> None:
        """Create an array without values, which `__setstate__` receives later."""

    def __setstate__(self, state: tuple) -> None:
        _, shape, kind, by_columns, data = state
        if (code := kind.order + kind.name) != "<f4":
            raise ValueError(f"array has dtype {code!r}, not '<f4'")
        self.values = np.frombuffer(data, "<f4").reshape(shape, order="CF"[by_columns])


@dataclasses.dataclass
class _Storage:
    """Stand-in for a PyTorch storage, with the type, the key and the size from the pickle."""

    code: str
    key: str
    count: int

    def read(self, file: BinaryIO) -> np.ndarray:
        """Read the number of elements, and then their values, from the current file position."""
        return self.read_values(file, int.from_bytes(file.read(8), "little", signed=True))

    def read_values(self, file: BinaryIO, count: int) -> np.ndarray:
        """Read `count` values from the current file position."""
        if count != self.count or count < 1:
            raise ValueError(f"storage {self.key!r} has {count} elements, not {self.count}")
        return np.frombuffer(file.read(count * np.dtype(self.code).itemsize), self.code, count)


@dataclasses.dataclass
class _Tensor:
    """Stand-in for a PyTorch tensor: a strided view of a storage that starts at `offset`."""

    storage: _Storage
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]
    requires_grad: bool
    hooks: Mapping

    def read(self, storages: Mapping[str, np.ndarray]) -> np.ndarray:
        """Return a copy of the tensor's values.

        NumPy does not check that a strided view stays within its buffer, and would read memory
        outside of the buffer. So this method checks the view.
        """
        numbers = storages[self.storage.key]
        shape = tuple(operator.index(size) for size in self.shape)
        strides = tuple(operator.index(stride) for stride in self.strides)
        offset = operator.index(self.offset)
        last = offset + sum((n - 1) * step for n, step in zip(shape, strides, strict=True))
        least = min((offset, *strides, *(size - 1 for size in shape)))
        if least < 0 or last >= numbers.size or math.prod(shape) > numbers.size:
            raise ValueError(f"{self} extends past its storage of {numbers.size} elements")
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
    """Unpickler that resolves only the names in `_ALLOWED_CLASSES`.

    One instance reads one pickle; a file may hold several.
    """

    def __init__(self, file: BinaryIO, path: pathlib.Path) -> None:
        super().__init__(file)
        self.path = path
        self.storages: dict[str, _Storage] = {}

    def find_class(self, module: str, name: str) -> object:
        """Return the entry of `_ALLOWED_CLASSES` for a name in the pickle.

        Raises:
            UserError: the name is not allowed.
        """
        full = f"{module}.{name}"
        if full not in _ALLOWED_CLASSES:
            raise UserError(
                f"{self.path} calls {full}, which weights do not need. Do not use the file. "
                f"Download it again, or install the package that contains it: {INSTALL_HINT}"
            )
        return _ALLOWED_CLASSES[full]

    def persistent_load(self, pid: tuple) -> _Storage:
        """Return the stand-in for the storage of a tensor."""
        _, code, key, _, count, *_ = pid  # PyTorch before 1.6 adds one more element.
        return self.storages.setdefault(key, _Storage(code, key, count))


def _unwrap(tree: object) -> object:
    """Replace the stand-ins in a tree with their arrays."""
    if isinstance(tree, _NDArray):
        return tree.values
    if isinstance(tree, dict):
        return {key: _unwrap(branch) for key, branch in tree.items()}
    if isinstance(tree, list | tuple):
        return type(tree)(map(_unwrap, tree))
    return tree
