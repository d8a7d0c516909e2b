"""Writes state dicts in the zip format of PyTorch 1.6 and later, without PyTorch."""

import struct
import zipfile

import numpy as np

STORAGE_CLASSES = {
    "<f2": b"HalfStorage",
    "<f4": b"FloatStorage",
    "<f8": b"DoubleStorage",
    "<i8": b"LongStorage",
}


def write_state_dict(path, tensors, order="little", offset=0, compression=zipfile.ZIP_STORED):
    """Write each tensor to its own storage, `offset` elements after its start."""
    pickled, storages = b"\x80\x02}(", []
    for key, (name, value) in enumerate(tensors.items()):
        value = np.asarray(value)
        size = value.size + offset
        storages.append(np.zeros(offset, value.dtype).tobytes() + value.tobytes())
        storage = (
            b"("
            + _text("storage")
            + b"ctorch\n"
            + STORAGE_CLASSES[value.dtype.str]
            + b"\n"
            + _text(str(key))
        )
        storage += _text("cpu") + _int(size) + b"tQ"
        strides = [step // value.itemsize for step in np.empty(value.shape, value.dtype).strides]
        pickled += _text(name) + b"ctorch._utils\n_rebuild_tensor_v2\n(" + storage + _int(offset)
        pickled += _tuple(value.shape) + _tuple(strides) + b"I00\nccollections\nOrderedDict\n)RtR"
    members = {"data.pkl": pickled + b"u.", "byteorder": order.encode(), "version": b"3\n"}
    members |= {f"data/{key}": data for key, data in enumerate(storages)}
    return write_archive(path, members, compression)


def write_archive(path, members, compression=zipfile.ZIP_STORED):
    """Write a zip file of the members in one folder, as PyTorch does."""
    with zipfile.ZipFile(path, "w", compression) as file:
        for name, data in members.items():
            file.writestr(f"archive/{name}", data)
    return path


def _text(text):
    return b"X" + struct.pack("<I", len(text.encode())) + text.encode()


def _int(value):
    return f"I{value}\n".encode()


def _tuple(values):
    return b"(" + b"".join(map(_int, values)) + b"t"
