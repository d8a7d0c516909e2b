import json
import struct

import ml_dtypes
import numpy as np
import pytest
from etils import epath
from safetensors.numpy import save_file

from oneflow_jax.errors import UserError
from oneflow_jax.pretrained.tensors import TensorFile
from tests.pretrained import torch_zip

FILE_NAMES = ("a.safetensors", "a.pth")


def write_raw(path, dtype, data):
    """Write a safetensors file with one tensor `w` of 4 numbers, of any type."""
    values = {"dtype": dtype, "shape": [4], "data_offsets": [0, len(data)]}
    header = json.dumps({"w": values}).encode()
    path.write_bytes(struct.pack("<Q", len(header)) + header + data)


def write_tensors(folder, name, tensors):
    path = epath.Path(folder) / name
    if path.suffix == ".safetensors":
        save_file(tensors, path)
    else:
        torch_zip.write_state_dict(path, tensors)
    return TensorFile(path)


@pytest.mark.parametrize("name", FILE_NAMES)
def test_tensors_are_popped_until_the_file_is_empty(tmp_path, name):
    matrix = np.arange(6, dtype="f4").reshape(2, 3)
    tensors = write_tensors(tmp_path, name, {"w": matrix, "bias": matrix[0], "n": np.asarray(3)})
    np.testing.assert_array_equal(tensors.pop("w", (2, 3)), matrix)
    tensors.discard(".n", "n")
    with pytest.raises(UserError, match=rf"{name}: tensor bias \(3,\) .*\(unexpected tensors: 1\)"):
        tensors.assert_empty()
    tensors.pop("bias", (3,))
    tensors.assert_empty()


@pytest.mark.parametrize("name", FILE_NAMES)
def test_mismatched_tensors_are_reported(tmp_path, name):
    tensors = write_tensors(tmp_path, name, {"w": np.ones((2, 3), "f4"), "n": np.ones(2, "i8")})
    with pytest.raises(UserError, match=rf"{name}: tensor v \(2,\) is missing"):
        tensors.pop("v", (2,))
    with pytest.raises(UserError, match=rf"{name}: tensor w is float32 \(2, 3\).*\(3, 2\)"):
        tensors.pop("w", (3, 2))
    with pytest.raises(UserError, match=rf"{name}: tensor n is int64 \(2,\)"):
        tensors.pop("n", (2,))


def test_half_precision_becomes_float32(tmp_path):
    value = write_tensors(tmp_path, "a.safetensors", {"w": np.ones(2, "f2") / 3}).pop("w", (2,))
    assert value.dtype == np.float32
    np.testing.assert_array_equal(value, np.ones(2, "f2") / 3)


def test_files_that_cannot_be_read(tmp_path):
    with pytest.raises(UserError, match=r"none\.pth: the file does not exist"):
        TensorFile(epath.Path(tmp_path) / "none.pth")
    path = epath.Path(tmp_path) / "cut.safetensors"
    save_file({"w": np.ones(9, "f4")}, path)
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(UserError, match=r"cut\.safetensors: truncated"):
        TensorFile(path)
    write_raw(path, "F8_E4M3", bytes(4))
    with pytest.raises(UserError, match=r"type 'F8_E4M3'\. Convert them to F32"):
        TensorFile(path)


def test_bfloat16_becomes_float32(tmp_path):
    path = epath.Path(tmp_path) / "a.safetensors"
    values = np.array([1 / 3, -1e30, 0, 2], ml_dtypes.bfloat16)
    write_raw(path, "BF16", values.tobytes())
    value = TensorFile(path).pop("w", (4,))
    assert value.dtype == np.float32
    np.testing.assert_array_equal(value, values.astype(np.float32))


@pytest.mark.parametrize("name", FILE_NAMES)
@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_tensors_that_are_not_finite_are_named(tmp_path, name, value):
    tensors = write_tensors(tmp_path, name, {"w": np.asarray([1, value], "f4")})
    with pytest.raises(UserError, match=rf"{name}: tensor w has numbers that are NaN or infinite"):
        tensors.pop("w", (2,))


def test_shards_with_an_index(tmp_path):
    matrix = np.arange(6, dtype="f4").reshape(2, 3)
    save_file({"w": matrix}, tmp_path / "a-1.safetensors")
    save_file({"b": matrix[0]}, tmp_path / "a-2.safetensors")
    index = epath.Path(tmp_path) / "a.safetensors.index.json"
    index.write_text('{"weight_map": {"w": "a-1.safetensors", "b": "a-2.safetensors"}}')
    tensors = TensorFile(index)
    np.testing.assert_array_equal(tensors.pop("w", (2, 3)), matrix)
    np.testing.assert_array_equal(tensors.pop("b", (3,)), matrix[0])
    tensors.assert_empty()
    (tmp_path / "a-2.safetensors").unlink()
    with pytest.raises(UserError, match=r"a-2\.safetensors: the file does not exist"):
        TensorFile(index)
