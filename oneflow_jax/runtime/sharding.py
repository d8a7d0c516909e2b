"""Where arrays live: the mesh, the tables of rules from logical axes to its axes, and checks.

| axis     | what its devices share out                            | over                          |
|----------|-------------------------------------------------------|-------------------------------|
| slices   | rows of the batch, among TPU slices                   | the data center's network     |
| data     | rows                                                  | a slice's interconnect        |
| fsdp     | rows, and parameters by their width                   | a slice's interconnect        |
| sequence | slots of each row: attention goes round in a ring     | a slice's interconnect        |
| tensor   | heads, hidden widths and the vocabulary               | a slice's interconnect        |

`pjit` today is `jax.jit` with input and output shardings over a named mesh. The mesh has Auto
axes and is set with `jax.set_mesh`: with Explicit axes, `jax.make_mesh`'s default, linen's
constraints raise; under the older `with mesh:` they are silently dropped.
"""

import contextlib
import math
from collections.abc import Iterator, Mapping, Sequence

import flax.linen as nn
import jax
from jax.experimental import mesh_utils
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from oneflow_jax.errors import UserError
from oneflow_jax.shapes import PyTree

AXES = ("slices", "data", "fsdp", "sequence", "tensor")

Rules = tuple[tuple[str, str | tuple[str, ...] | None], ...]

RULES: Rules = (
    # Activations.
    ("rows", ("slices", "data", "fsdp")),
    ("slots", "sequence"),
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

SAMPLING_RULES: Rules = (
    ("rows", ("slices", "data", "fsdp", "sequence")),
    ("slots", None),
    *RULES[2:],
)
"""The same in sampling, where slots come one by one, or are few: whoever shared out the slots of a
row takes rows of its own."""


def make_mesh(sizes: Mapping[str, int], devices: Sequence[jax.Device] | None = None) -> Mesh:
    """The mesh over all devices with axes `AXES`.

    Args:
        sizes: of the axes; one may be -1, "what is left", and who is not named has 1.
        devices: all there are, unless told otherwise.

    Raises:
        UserError: the sizes do not multiply to the number of devices, or `slices` is not that of
            the TPU slices that they are in.
    """
    devices = jax.devices() if devices is None else devices
    known = math.prod(size for size in sizes.values() if size != -1)
    open_ended = list(sizes.values()).count(-1)
    sound = set(sizes) <= set(AXES) and open_ended <= 1
    sound = sound and all(size >= 1 or size == -1 for size in sizes.values())
    if not sound or (len(devices) % known if open_ended else len(devices) != known):
        raise UserError(
            f"mesh={dict(sizes)} does not fit {len(devices)} {devices[0].platform} device(s): give "
            f"{', '.join(AXES)} sizes that multiply to {len(devices)}; one may be -1, the rest."
        )
    rest = len(devices) // known
    shape = [rest if sizes.get(axis, 1) == -1 else sizes.get(axis, 1) for axis in AXES]
    if slices := _num_slices(devices):
        if shape[0] != slices:
            raise UserError(
                f"mesh.slices={shape[0]}, and the {len(devices)} devices are in {slices} TPU "
                f"slice(s): give mesh.slices={slices}, so that only it crosses their network."
            )
        within, across = [1, *shape[1:]], [slices, *[1] * len(shape[1:])]
        grid = mesh_utils.create_hybrid_device_mesh(
            within, across, devices, allow_split_physical_axes=True
        )
    else:
        grid = mesh_utils.create_device_mesh(shape, devices, allow_split_physical_axes=True)
    return Mesh(grid, AXES, axis_types=(AxisType.Auto,) * len(AXES))


@contextlib.contextmanager
def mesh_context(mesh: Mesh, rules: Rules = RULES) -> Iterator[None]:
    """Enter the one context in which models are initialized, traced and run."""
    with jax.set_mesh(mesh), nn.logical_axis_rules(rules):
        yield


def row_sharding(mesh: Mesh, rules: Rules = RULES) -> NamedSharding:
    """Arrays of rows: over all devices that hold different rows."""
    return NamedSharding(mesh, PartitionSpec(dict(rules)["rows"]))


def batch_sharding(mesh: Mesh) -> NamedSharding:
    """Training canvases, `[B L ...]`: rows, and each row's slots, over devices."""
    return NamedSharding(mesh, PartitionSpec(dict(RULES)["rows"], dict(RULES)["slots"]))


def replicated_sharding(mesh: Mesh) -> NamedSharding:
    """The same value on every device."""
    return NamedSharding(mesh, PartitionSpec())


def state_sharding(mesh: Mesh, boxed: PyTree, rules: Rules = RULES) -> PyTree:
    """The sharding of every array in a tree whose parameters bear logical axis names.

    Args:
        mesh: from `make_mesh`.
        boxed: shapes with linen's partitioning metadata, as `jax.eval_shape` gives them.
        rules: logical axis -> mesh axes.

    Raises:
        UserError: a dimension does not divide into its mesh axes, a logical axis has no rule, an
            array would lie along one mesh axis in two ways, or a rule names no axis of the mesh.
    """
    _check_rules(mesh, rules)
    jax.tree.map_with_path(
        lambda *leaf: _check_logical_axes(rules, *leaf), boxed, is_leaf=_is_partitioned
    )
    named = nn.logical_to_mesh_sharding(nn.get_partition_spec(boxed), mesh, rules)
    # A box may be empty: the optimizer keeps no moments of what is frozen.
    shardings = jax.tree.map(
        lambda leaf, where: jax.tree.map(lambda _: where, unbox(leaf)),
        boxed,
        named,
        is_leaf=_is_partitioned,
    )
    jax.tree.map_with_path(_check_divides, unbox(boxed), shardings)
    return shardings


def unbox(tree: PyTree) -> PyTree:
    """The tree without linen's partitioning metadata.

    (`nn.unbox` also constrains how each value is laid out, which a shape, having none, cannot be.)
    """
    return jax.tree.map(
        lambda leaf: leaf.value if _is_partitioned(leaf) else leaf, tree, is_leaf=_is_partitioned
    )


def num_shards(mesh: Mesh, logical_axis: str, rules: Rules = RULES) -> int:
    """Into how many parts the mesh cuts a logical axis."""
    return math.prod(mesh.shape[axis] for axis in _mesh_axes(dict(rules)[logical_axis]))


def check_batch_divides(
    mesh: Mesh,
    batch_size: int,
    num_microbatches: int = 1,
    field: str = "batch",
    rules: Rules = RULES,
) -> None:
    """Refuses a batch that does not cut into the devices that hold rows, and into microbatches.

    `field` is what the configuration calls it.

    Raises:
        UserError: as said.
    """
    cut = num_shards(mesh, "rows", rules)
    if batch_size % (cut * num_microbatches):
        axes = dict(rules)["rows"]
        raise UserError(
            f"{field}={batch_size} rows cannot be cut into parts={num_microbatches} microbatches "
            "over "
            f"{' x '.join(axes)} = {' x '.join(str(mesh.shape[axis]) for axis in axes)} devices: "
            f"choose a multiple of {cut * num_microbatches}."
        )


def check_divides(mesh: Mesh, field: str, size: int, logical_axis: str) -> None:
    """Refuses a size of the configuration that the mesh does not cut into equal parts.

    `field` is what the configuration calls it, `logical_axis` the logical axis.

    Raises:
        UserError: as said.
    """
    if size % num_shards(mesh, logical_axis):
        axes = " x ".join(f"mesh.{axis}" for axis in _mesh_axes(dict(RULES)[logical_axis]))
        raise UserError(
            f"{field}={size} cannot be cut into {axes}={num_shards(mesh, logical_axis)} equal "
            "parts: choose a "
            f"multiple of {num_shards(mesh, logical_axis)}, or another mesh."
        )


def _mesh_axes(rule: str | tuple[str, ...] | None) -> tuple[str, ...]:
    """The mesh axes of a rule, or of one entry of a PartitionSpec."""
    return rule if isinstance(rule, tuple) else (rule,) if rule else ()


def _num_slices(devices: Sequence[jax.Device]) -> int:
    """How many TPU slices they are in; 0 for devices that know no slices."""
    return len({device.slice_index for device in devices if hasattr(device, "slice_index")})


def _is_partitioned(leaf: object) -> bool:
    return isinstance(leaf, nn.LogicallyPartitioned)


def _check_rules(mesh: Mesh, rules: Rules) -> None:
    for name, rule in rules:
        if unknown := set(_mesh_axes(rule)) - set(mesh.axis_names):
            raise UserError(
                f"sharding rule {name!r} -> {rule!r}: the mesh has no axis {sorted(unknown)}, but "
                f"{', '.join(mesh.axis_names)}."
            )


def _check_logical_axes(rules: Rules, path: jax.tree_util.KeyPath, leaf: object) -> None:
    if not _is_partitioned(leaf):
        return
    where, table = jax.tree_util.keystr(path), dict(rules)
    names = [name for name in leaf.names if name is not None]
    for name in names:
        if name not in table:
            raise UserError(
                f"{where}: its logical axis {name!r} has no rule; there are {', '.join(table)}."
            )
    axes = [axis for name in names for axis in _mesh_axes(table[name])]
    if len(axes) > len(set(axes)):
        raise UserError(f"{where} of axes {leaf.names} would lie along {axes}, one of them twice.")


def _check_divides(
    path: jax.tree_util.KeyPath, shape: jax.ShapeDtypeStruct, sharding: NamedSharding
) -> None:
    for size, axes in zip(shape.shape, sharding.spec, strict=False):
        cut = math.prod(sharding.mesh.shape[name] for name in _mesh_axes(axes))
        if size % cut:
            raise UserError(
                f"{jax.tree_util.keystr(path)} of shape {shape.shape}: {size} does not divide "
                f"into {cut} parts along mesh axes {_mesh_axes(axes)}; change the model's size or "
                "the "
                "mesh."
            )
