"""Where activations lie: logical names of their axes, by the rules of the context they run in.

`sharding.use` sets mesh and rules. Without them all is on one device, and nothing here does
anything.
"""

import functools
from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax

from oneflow_jax.errors import UserError
from oneflow_jax.shapes import Array, PyTree

LogicalAxes = tuple[str | None, ...]


def with_logical_constraint(x: Array, logical_axes: LogicalAxes) -> Array:
    """The array, laid out over the mesh as its axes' names say.

    Raises:
        UserError: a name has no rule, or two axes would lie along one of the mesh's.
    """
    if not _has_mesh():
        return x
    _check_axes(logical_axes)
    return nn.with_logical_constraint(x, logical_axes)


def all_gather_fsdp(x: Array, logical_axes: LogicalAxes) -> Array:
    """A parameter as it is used: whole along the axes that the rules spread over fsdp.

    It is gathered as one; of its gradient each device keeps its share. Left to itself XLA
    multiplies large matrices share by share while they go round the ring, in slivers that TPUs are
    slow at, and gathers those of attention twice.
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
    """The mesh axis whose devices share out a logical axis; None if one device holds it whole."""
    if not _has_mesh():
        return None
    axis = _axis_rules()[logical_axis]
    return axis if axis and jax.sharding.get_abstract_mesh().shape[axis] > 1 else None


def logical_shard_map(
    function: Callable[..., Any], in_axes: tuple[PyTree, ...], out_axes: LogicalAxes
) -> Callable[..., Any]:
    """The function as each device computes it, of its own part of the arguments.

    Args:
        function: of arrays; it may speak to other devices by the mesh's axes.
        in_axes: for each argument the names of its axes; for a tree, of all of its leaves.
        out_axes: names of the result's axes.
    """
    if not _has_mesh():
        return function
    specs = tuple(nn.logical_to_mesh_axes(each) for each in in_axes)
    # Every value differs from device to device along the axes that its names say, and no others;
    # JAX's own check of that does not know kernels.
    return jax.shard_map(
        function, in_specs=specs, out_specs=nn.logical_to_mesh_axes(out_axes), check_vma=False
    )


def target_platform() -> str:
    """The kind of device that the code is for: the mesh's, which may be another machine's."""
    device = jax.sharding.get_abstract_mesh().abstract_device
    return device.platform if device else jax.default_backend()


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
            raise UserError(f"The logical axis {name!r} has no rule; there are {', '.join(rules)}.")
        axis = rules[name]
        axes += axis if isinstance(axis, tuple) else [axis] if axis else []
    if len(axes) > len(set(axes)):
        raise UserError(
            f"An array of axes {logical_axes} would lie along {axes}, one of them twice."
        )
