"""Where arrays live: the mesh, the table of rules from logical axes to its axes, and checks.

`pjit` today is `jax.jit` with input and output shardings over a named mesh. The mesh has Auto
axes and is set with `jax.set_mesh`: with Explicit axes, `jax.make_mesh`'s default, linen's
constraints raise; under the older `with mesh:` they are silently dropped.
"""

import contextlib
import math
from collections.abc import Iterator

import flax.linen as nn
import jax
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from oneflow_jax.errors import UserError
from oneflow_jax.shapes import PyTree

AXES = ("data", "fsdp", "tensor")

RULES = (
    # Activations.
    ("rows", ("data", "fsdp")),
    ("slots", None),
    ("act_width", None),
    ("act_hidden", "tensor"),
    ("act_heads", "tensor"),
    # Parameters.
    ("layers", None),
    ("width", "fsdp"),
    ("hidden", "tensor"),
    ("heads", "tensor"),
    ("kv_heads", "tensor"),
    ("head_width", None),
    ("vocab", "tensor"),
    ("token_width", "fsdp"),
    ("embed", None),
    ("channels", None),
)
"""Logical axis -> mesh axes. Activations have names of their own, so that the width of a
parameter and that of an activation can be laid out differently."""


def make_mesh(sizes: dict[str, int], devices: list[jax.Device] | None = None) -> Mesh:
    """The mesh over all devices with axes `AXES`; one size may be -1, "what is left".

    Raises:
        UserError: the sizes do not multiply to the number of devices.
    """
    devices = jax.devices() if devices is None else devices
    given = [size for size in sizes.values() if size != -1]
    unknown = [axis for axis, size in sizes.items() if size == -1]
    known = math.prod(given)
    sound = set(sizes) == set(AXES) and len(unknown) <= 1 and all(size >= 1 for size in given)
    if not sound or (len(devices) % known if unknown else len(devices) != known):
        raise UserError(
            f"mesh={dict(sizes)} does not fit {len(devices)} {devices[0].platform} device(s): give "
            f"{', '.join(AXES)} sizes that multiply to {len(devices)}; one may be -1, the rest."
        )
    shape = [sizes[axis] if sizes[axis] != -1 else len(devices) // known for axis in AXES]
    return jax.make_mesh(shape, AXES, axis_types=(AxisType.Auto,) * len(AXES), devices=devices)


@contextlib.contextmanager
def use(mesh: Mesh) -> Iterator[None]:
    """The one context in which models are initialized, traced and run."""
    with jax.set_mesh(mesh), nn.logical_axis_rules(RULES):
        yield


def of_rows(mesh: Mesh) -> NamedSharding:
    """Batches: rows over all devices that hold different data."""
    return NamedSharding(mesh, PartitionSpec(dict(RULES)["rows"]))


def replicated(mesh: Mesh) -> NamedSharding:
    """The same value on every device."""
    return NamedSharding(mesh, PartitionSpec())


def of_state(mesh: Mesh, boxed: PyTree) -> PyTree:
    """The sharding of every array in a tree whose parameters bear logical axis names.

    Args:
        mesh: from `make_mesh`.
        boxed: shapes with linen's partitioning metadata, as `jax.eval_shape` gives them.

    Raises:
        UserError: a dimension does not divide into its mesh axes.
    """
    named = nn.logical_to_mesh_sharding(nn.get_partition_spec(boxed), mesh, RULES)
    # A box may be empty: the optimizer keeps no moments of what is frozen.
    shardings = jax.tree.map(
        lambda leaf, where: jax.tree.map(lambda _: where, unboxed(leaf)),
        boxed,
        named,
        is_leaf=_is_box,
    )
    jax.tree.map_with_path(_check_divides, unboxed(boxed), shardings)
    return shardings


def unboxed(tree: PyTree) -> PyTree:
    """The tree without linen's partitioning metadata.

    (`nn.unbox` also constrains how each value is laid out, which a shape, having none, cannot be.)
    """
    return jax.tree.map(lambda leaf: leaf.value if _is_box(leaf) else leaf, tree, is_leaf=_is_box)


def check_rows(mesh: Mesh, rows: int, parts: int = 1, field: str = "batch") -> None:
    """Refuses a batch that does not cut into the mesh's data axes and into microbatches.

    `field` is what the configuration calls it.

    Raises:
        UserError: as said.
    """
    ways = mesh.shape["data"] * mesh.shape["fsdp"]
    if rows % (ways * parts):
        raise UserError(
            f"{field}={rows} rows cannot be cut into parts={parts} microbatches over data x fsdp = "
            f"{mesh.shape['data']} x {mesh.shape['fsdp']} devices: choose a multiple of "
            f"{ways * parts}."
        )


def _is_box(leaf: object) -> bool:
    return isinstance(leaf, nn.LogicallyPartitioned)


def _check_divides(
    path: jax.tree_util.KeyPath, shape: jax.ShapeDtypeStruct, sharding: NamedSharding
) -> None:
    for size, axes in zip(shape.shape, sharding.spec, strict=False):
        names = axes if isinstance(axes, tuple) else (axes,) if axes else ()
        ways = math.prod(sharding.mesh.shape[name] for name in names)
        if size % ways:
            raise UserError(
                f"{jax.tree_util.keystr(path)} of shape {shape.shape}: {size} does not divide "
                f"into {ways} parts along mesh axes {names}; change the model's size or the mesh."
            )
