"""Sharding of arrays by the logical names of their axes.

`sharding.mesh_context` sets the mesh, and the rules that map logical names to mesh axes. Outside of
that context all arrays are on one device, and the functions here return their arguments unchanged.
"""

import functools
import re
from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax

from oneflow_jax.errors import UserError
from oneflow_jax.shapes import Array, PyTree

LogicalAxes = tuple[str | None, ...]

OLD_GPUS = {"Tesla T4": (7, 5)}
"""Compute capability of GPUs before the A100, for programs that another machine compiles."""


def with_logical_constraint(x: Array, logical_axes: LogicalAxes) -> Array:
    """Constrain the sharding of an array by the logical names of its axes.

    Raises:
        UserError: a name has no rule, or two axes would be sharded along the same mesh axis.
    """
    if not _has_mesh():
        return x
    _check_axes(logical_axes)
    return nn.with_logical_constraint(x, logical_axes)


def all_gather_fsdp(x: Array, logical_axes: LogicalAxes) -> Array:
    """Gather the shards of a parameter along the axes that the rules map to fsdp.

    The forward pass gathers the whole parameter, and the backward pass scatters its gradient back
    to the shards. Without this function, XLA passes the shards of large matrices around and
    multiplies one thin slice at a time, which is slow on TPUs. XLA then also gathers the matrices
    of attention twice.
    """
    if not _has_mesh():
        return x
    return _all_gather_fsdp(x, logical_axes)


@functools.partial(jax.custom_vjp, nondiff_argnums=(1,))
def _all_gather_fsdp(x: Array, logical_axes: LogicalAxes) -> Array:
    return with_logical_constraint(x, _without_fsdp(logical_axes))


def _all_gather_fwd(x: Array, logical_axes: LogicalAxes) -> tuple[Array, None]:
    return _all_gather_fsdp(x, logical_axes), None


def _all_gather_bwd(logical_axes: LogicalAxes, _: None, gradient: Array) -> tuple[Array]:
    return (with_logical_constraint(gradient, logical_axes),)


_all_gather_fsdp.defvjp(_all_gather_fwd, _all_gather_bwd)


def sharded_axis(logical_axis: str) -> str | None:
    """Return the mesh axis that shards a logical axis, or None if it is not sharded."""
    if not _has_mesh():
        return None
    axis = _axis_rules()[logical_axis]
    return axis if axis and jax.sharding.get_abstract_mesh().shape[axis] > 1 else None


def logical_shard_map(
    function: Callable[..., Any], in_axes: tuple[PyTree, ...], out_axes: LogicalAxes
) -> Callable[..., Any]:
    """Map a function over the devices, each with its own shard of the arguments.

    Args:
        function: a function of arrays; it may use collectives along the mesh's axes.
        in_axes: logical axis names of each argument, or of each leaf of an argument that is a tree.
        out_axes: logical names of the result's axes.
    """
    if not _has_mesh():
        return function
    specs = tuple(nn.logical_to_mesh_axes(each) for each in in_axes)
    # check_vma=False: JAX's check that values vary only along the named axes does not support
    # Pallas kernels.
    return jax.shard_map(
        function, in_specs=specs, out_specs=nn.logical_to_mesh_axes(out_axes), check_vma=False
    )


def target_platform() -> str:
    """Return the platform that the program is compiled for: "cpu", "gpu" or "tpu".

    It is the platform of the mesh, whose devices may belong to another machine. Without a mesh, it
    is that of this machine's default device.
    """
    device = jax.sharding.get_abstract_mesh().abstract_device
    return device.platform if device else jax.default_backend()


def compute_capability() -> tuple[int, int] | None:
    """Return the compute capability of the GPU to compile for, for example (9, 0) for an H100.

    The result is None if this machine has no NVIDIA GPU, and the mesh has none that is listed in
    `OLD_GPUS`.
    """
    capability = getattr(jax.local_devices()[0], "compute_capability", "")
    if match := re.fullmatch(r"(\d+)\.(\d+)", str(capability)):
        return int(match[1]), int(match[2])
    device = jax.sharding.get_abstract_mesh().abstract_device
    return OLD_GPUS.get(device.device_kind) if device else None


def _has_mesh() -> bool:
    return bool(nn.get_logical_axis_rules()) and not jax.sharding.get_abstract_mesh().empty


def _without_fsdp(logical_axes: LogicalAxes) -> LogicalAxes:
    return tuple(None if name and _axis_rules()[name] == "fsdp" else name for name in logical_axes)


def _axis_rules() -> dict[str, str | tuple[str, ...] | None]:
    return dict(nn.get_logical_axis_rules())


def _check_axes(logical_axes: LogicalAxes) -> None:
    rules = _axis_rules()
    axes: list[str] = []
    for name in logical_axes:
        if name is None:
            continue
        if name not in rules:
            raise UserError(f"The logical axis {name!r} has no rule; known: {', '.join(rules)}.")
        axis = rules[name]
        axes += axis if isinstance(axis, tuple) else [axis] if axis else []
    if len(axes) > len(set(axes)):
        raise UserError(
            f"logical_axes={logical_axes}: two of these axes are sharded along the same mesh axis "
            f"({', '.join(axes)}). Change the rules."
        )
