"""Reads and writes autoencoders in the layout of diffusers: `config.json` and a safetensors file.

| parameter of this project                   | tensor of diffusers                         |
|---------------------------------------------|---------------------------------------------|
| down_blocks_0/resnets_1/conv1/kernel [HWIO] | down_blocks.0.resnets.1.conv1.weight [OIHW] |
| mid_block/attentions_0/to_out_0/kernel [IO] | mid_block.attentions.0.to_out.0.weight [OI] |
| conv_norm_out/scale                         | conv_norm_out.weight                        |
| quantize/embedding/embedding                | quantize.embedding.weight                   |
"""

import dataclasses
import hashlib
import json
import os
import re
from collections.abc import Iterator

import jax.numpy as jnp
import ml_dtypes
import numpy as np
import safetensors
import safetensors.numpy
from etils import epath
from flax import traverse_util

from oneflow_jax.codecs.autoencoder import config, models
from oneflow_jax.codecs.autoencoder.config import Architecture
from oneflow_jax.errors import UserError
from oneflow_jax.pretrained import shards, tensors
from oneflow_jax.shapes import PyTree

WEIGHTS_FILE = "diffusion_pytorch_model.safetensors"

PICKLE_SUFFIXES = (".bin", ".ckpt", ".pt", ".pth", ".pickle", ".pkl")

_DTYPES = {"F64": np.float64, "F32": np.float32, "F16": np.float16, "BF16": ml_dtypes.bfloat16}
"""Supported data types of stored weights, by their safetensors name."""

_LEGACY_NAMES = {"query": "to_q", "key": "to_k", "value": "to_v", "proj_attn": "to_out.0"}
"""Current names of attention matrices, by their names in old files (Stable Diffusion 1)."""

_LEGACY_NAME_PATTERN = re.compile(rf"(?<=\.attentions\.)(\d+)\.({'|'.join(_LEGACY_NAMES)})(?=\.)")

_TORCH_LEAF_NAMES = {"kernel": "weight", "scale": "weight", "embedding": "weight", "bias": "bias"}

_TORCH_TO_FLAX_AXES = {4: (2, 3, 1, 0), 2: (1, 0), 1: (0,)}
"""Axis permutation from a PyTorch weight to a linen kernel, by number of axes."""


def load(folder: epath.Path) -> tuple[Architecture, PyTree]:
    """Load the architecture and the float32 parameters of an autoencoder from a folder.

    Raises:
        UserError: a file is missing or not in the layout of diffusers, or the tensors do not match
            `config.json`. The message names the file, the tensor and the shape.
    """
    architecture = config.read(folder)
    path = _find_file(folder)
    if path.name.endswith(shards.INDEX_SUFFIX):
        stored = shards.read_shards(path, _read_tensors)
    else:
        stored = _read_tensors(path)
    stored = {_present_name(name): value for name, value in stored.items()}
    params = {}
    for ours, shape in _flatten(models.param_shapes(architecture)).items():
        name = _diffusers_name(ours)
        if name not in stored:
            raise UserError(
                f"{path}: tensor {name} {_torch_shape(ours, shape.shape)} is missing. Check that "
                f"the {config.CONFIG_FILE} in the same folder belongs to this file."
            )
        params[ours] = jnp.asarray(_convert_tensor(path, ours, stored.pop(name), shape.shape))
    if stored:
        name, value = min(stored.items())
        raise UserError(
            f"{path}: tensor {name} {value.shape} (one of {len(stored)}) is not part of the model "
            f"that {config.CONFIG_FILE} describes. Check that both files belong together."
        )
    return architecture, traverse_util.unflatten_dict(params)


def save(folder: epath.Path, architecture: Architecture, params: PyTree) -> None:
    """Write an autoencoder in float32, in the layout that `load` and diffusers read.

    Each file is replaced atomically, and the tensors are written last.
    """
    folder.mkdir(parents=True, exist_ok=True)
    arrays = {}
    for ours, value in _flatten(params).items():
        value = np.asarray(value, np.float32)
        if ours[-1] == "kernel":
            value = value.transpose(np.argsort(_TORCH_TO_FLAX_AXES[value.ndim]))
        arrays[_diffusers_name(ours)] = np.ascontiguousarray(value)
    # diffusers rejects files whose metadata does not name a framework.
    data = safetensors.numpy.save(arrays, {"format": "pt"})
    _write(folder / config.CONFIG_FILE, architecture.to_json().encode())
    _write(folder / WEIGHTS_FILE, data)


def fingerprint(architecture: Architecture, params: PyTree) -> str:
    """Return a hash of the architecture and all parameters, 16 hex digits.

    The hash skips fields of the architecture with default values. So a new field in a later version
    of this project does not change the fingerprints of older models.
    """
    settings = {
        field.name: getattr(architecture, field.name)
        for field in dataclasses.fields(architecture)
        if getattr(architecture, field.name) != field.default
    }
    digest = hashlib.blake2b(json.dumps(settings, sort_keys=True).encode(), digest_size=8)
    for ours, value in sorted(_flatten(params).items()):
        value = np.ascontiguousarray(value, "<f4")
        digest.update(f"{_diffusers_name(ours)}{value.shape}".encode())
        digest.update(value.tobytes())
    return digest.hexdigest()


def _flatten(params: PyTree) -> dict[tuple[str, ...], PyTree]:
    return traverse_util.flatten_dict(params)


def _diffusers_name(param_path: tuple[str, ...]) -> str:
    """Return the name of a parameter in files of diffusers; see the docstring of this module."""
    *modules, leaf = param_path
    return ".".join(
        [*(re.sub(r"_(\d+)$", r".\1", module) for module in modules), _TORCH_LEAF_NAMES[leaf]]
    )


def _torch_shape(param_path: tuple[str, ...], shape: tuple[int, ...]) -> tuple[int, ...]:
    """Return the shape of a parameter in files of diffusers."""
    if param_path[-1] != "kernel":
        return shape
    return tuple(shape[axis] for axis in np.argsort(_TORCH_TO_FLAX_AXES[len(shape)]))


def _convert_tensor(
    path: epath.Path, param_path: tuple[str, ...], value: np.ndarray, shape: tuple[int, ...]
) -> np.ndarray:
    """Check the shape of a stored tensor, and convert the tensor to a float32 parameter."""
    wanted = _torch_shape(param_path, shape)
    stored_shape = value.shape
    if len(wanted) == 2 and stored_shape[2:] == (
        1,
        1,
    ):  # Old files store matrices as 1x1 convolutions.
        value = value[:, :, 0, 0]
    if value.shape != wanted:
        raise UserError(
            f"{path}: tensor {_diffusers_name(param_path)} has shape {stored_shape}, but "
            f"{config.CONFIG_FILE} requires {wanted}. Check that both files belong together."
        )
    if param_path[-1] == "kernel":
        value = value.transpose(_TORCH_TO_FLAX_AXES[value.ndim])
    return tensors.to_finite_float32(
        value,
        f"{path}: tensor {_diffusers_name(param_path)}",
        "Download it again, or train it again.",
    )


def _find_file(folder: epath.Path) -> epath.Path:
    """Return the path of the safetensors file in a folder, or of the index of several shards."""
    if (folder / WEIGHTS_FILE).exists():
        return folder / WEIGHTS_FILE
    # The `glob` of `epath.Path` would also expand wildcards in the name of the folder.
    candidates = sorted(
        path for path in folder.iterdir() if path.name.endswith(shards.INDEX_SUFFIX)
    )
    candidates = candidates or sorted(
        path for path in folder.iterdir() if path.suffix == ".safetensors"
    )
    if len(candidates) == 1:
        return candidates[0]
    if candidates:
        names = ", ".join(path.name for path in candidates)
        raise UserError(
            f"{folder} has several .safetensors files ({names}). Keep only the one to load, or "
            f"rename it to {WEIGHTS_FILE}."
        )
    pickles = [path.name for path in folder.iterdir() if path.suffix in PICKLE_SUFFIXES]
    if pickles:
        raise UserError(f"{folder / min(pickles)} is a pickle. {_conversion_hint(folder)}")
    raise UserError(f"{folder} has no .safetensors file. {_conversion_hint(folder)}")


def _read_tensors(path: epath.Path) -> dict[str, np.ndarray]:
    """Read all tensors of a file."""
    try:
        entries = safetensors.deserialize(path.read_bytes())
    except safetensors.SafetensorError as error:
        raise UserError(
            f"{path}: the file is truncated, or it is not a safetensors file ({error}). Download "
            f"the file again. {_conversion_hint(path.parent)}"
        ) from error
    return dict(_iter_tensors(path, entries))


def _iter_tensors(
    path: epath.Path, entries: list[tuple[str, dict]]
) -> Iterator[tuple[str, np.ndarray]]:
    for name, entry in entries:
        if entry["dtype"] not in _DTYPES:
            raise UserError(
                f"{path}: tensor {name} has the unsupported type {entry['dtype']}. Convert it to "
                f"one of {', '.join(_DTYPES)}."
            )
        value = np.frombuffer(entry["data"], _DTYPES[entry["dtype"]]).reshape(entry["shape"])
        yield name, value


def _present_name(name: str) -> str:
    """Return the current name of a tensor that may have an old name."""
    return _LEGACY_NAME_PATTERN.sub(lambda match: f"{match[1]}.{_LEGACY_NAMES[match[2]]}", name)


def _conversion_hint(folder: epath.Path) -> str:
    return (
        "Only safetensors files are supported, because loading a pickle executes code from it. To "
        'convert one that you trust, with diffusers installed: python -c "import diffusers; '
        f"diffusers.AutoencoderKL.from_pretrained('{folder}', use_safetensors=False)"
        f".save_pretrained('{folder}')\" (or VQModel)."
    )


def _write(path: epath.Path, data: bytes) -> None:
    if "://" in os.fspath(path):  # Writes to an object store are atomic.
        path.write_bytes(data)
        return
    draft = path.with_name(path.name + ".draft")
    draft.write_bytes(data)
    draft.replace(path)
