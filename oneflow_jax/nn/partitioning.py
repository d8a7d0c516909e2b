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

Names = tuple[str | None, ...]


def constrained(x: Array, names: Names) -> Array:
    """The array, laid out over the mesh as its axes' names say.

    Raises:
        UserError: a name has no rule, or two axes would lie along one of the mesh's.
    """
    if not _meshed():
        return x
    _check(names)
    return nn.with_logical_constraint(x, names)


def gathered(x: Array, names: Names) -> Array:
    """A parameter as it is used: whole along the axes that the rules spread over fsdp.

    It is gathered as one; of its gradient each device keeps its share. Left to itself XLA
    multiplies large matrices share by share while they go round the ring, in slivers that TPUs are
    slow at, and gathers those of attention twice.
    """
    if not _meshed():
        return x
    return _gathered(x, names)


@functools.partial(jax.custom_vjp, nondiff_argnums=(1,))
def _gathered(x: Array, names: Names) -> Array:
    return constrained(x, _whole(names))


def _gathered_forward(x: Array, names: Names) -> tuple[Array, None]:
    return _gathered(x, names), None


def _gathered_backward(names: Names, _: None, gradient: Array) -> tuple[Array]:
    return (constrained(gradient, names),)


_gathered.defvjp(_gathered_forward, _gathered_backward)


def shared_out(name: str) -> str | None:
    """The mesh axis whose devices share out a logical axis; None if one device holds it whole."""
    if not _meshed():
        return None
    axis = _rules()[name]
    return axis if axis and jax.sharding.get_abstract_mesh().shape[axis] > 1 else None


def by_device(
    function: Callable[..., Any], names: tuple[PyTree, ...], out: Names
) -> Callable[..., Any]:
    """The function as each device computes it, of its own part of the arguments.

    Args:
        function: of arrays; it may speak to other devices by the mesh's axes.
        names: for each argument the names of its axes; for a tree, of all of its leaves.
        out: names of the result's axes.
    """
    if not _meshed():
        return function
    specs = tuple(nn.logical_to_mesh_axes(each) for each in names)
    # Every value differs from device to device along the axes that its names say, and no others;
    # JAX's own check of that does not know kernels.
    return jax.shard_map(
        function, in_specs=specs, out_specs=nn.logical_to_mesh_axes(out), check_vma=False
    )


def platform() -> str:
    """The kind of device that the code is for: the mesh's, which may be another machine's."""
    device = jax.sharding.get_abstract_mesh().abstract_device
    return device.platform if device else jax.default_backend()


def _meshed() -> bool:
    return bool(nn.get_logical_axis_rules()) and not jax.sharding.get_abstract_mesh().empty


def _whole(names: Names) -> Names:
    return tuple(None if name and _rules()[name] == "fsdp" else name for name in names)


def _rules() -> dict[str, str | tuple[str, ...] | None]:
    return dict(nn.get_logical_axis_rules())


def _check(names: Names) -> None:
    rules = _rules()
    axes: list[str] = []
    for name in names:
        if name is None:
            continue
        if name not in rules:
            raise UserError(f"The logical axis {name!r} has no rule; there are {', '.join(rules)}.")
        axis = rules[name]
        axes += axis if isinstance(axis, tuple) else [axis] if axis else []
    if len(axes) > len(set(axes)):
        raise UserError(f"An array of axes {names} would lie along {axes}, one of them twice.")
