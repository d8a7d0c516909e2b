"""Sharding: the device mesh, the rules from logical axes to mesh axes, and checks of sizes.

| axis     | what it shards                                        | network                       |
|----------|-------------------------------------------------------|-------------------------------|
| slices   | rows of the batch, over TPU slices or GPU nodes       | the data center's network     |
| data     | rows of the batch                                     | a slice's interconnect        |
| fsdp     | rows of the batch, and parameters by their width      | a slice's interconnect        |
| context  | slots of each row, with ring attention                | a slice's interconnect        |
| tensor   | heads, hidden widths and the vocabulary               | a slice's interconnect        |

For GPUs, JAX calls the GPUs of one node a slice; their interconnect is NVLink or PCIe.

`jax.jit` compiles programs with input and output shardings over a named mesh. The mesh has Auto
axes and is set with `jax.set_mesh`. With Explicit axes, the default of `jax.make_mesh`, linen's
sharding constraints raise an error. In the older context `with mesh:`, JAX silently drops the
constraints.
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

AXES = ("slices", "data", "fsdp", "context", "tensor")

Rules = tuple[tuple[str, str | tuple[str, ...] | None], ...]

RULES: Rules = (
    # Activations.
    ("rows", ("slices", "data", "fsdp")),
    ("slots", "context"),
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
"""Mesh axes of each logical axis. The width of activations and the width of parameters have
different logical names ("act_width" and "width"), so they can be sharded differently."""

SAMPLING_RULES: Rules = (
    ("rows", ("slices", "data", "fsdp", "context")),
    ("slots", None),
    *RULES[2:],
)
"""Mesh axes of each logical axis in sampling. In sampling, rows are short or grow by one slot at a
time, so the mesh axis `context` shards rows instead of slots."""


def make_mesh(sizes: Mapping[str, int], devices: Sequence[jax.Device] | None = None) -> Mesh:
    """Create a mesh with the axes `AXES`.

    Args:
        sizes: size by axis name. One size may be -1, for all remaining devices. A missing axis has
            size 1.
        devices: devices of the mesh; by default all devices.

    Raises:
        UserError: the product of the sizes is not the number of devices, or `slices` is not the
            number of TPU slices or GPU nodes of these devices.
    """
    devices = jax.devices() if devices is None else devices
    known = math.prod(size for size in sizes.values() if size != -1)
    open_ended = list(sizes.values()).count(-1)
    sound = set(sizes) <= set(AXES) and open_ended <= 1
    sound = sound and all(size >= 1 or size == -1 for size in sizes.values())
    if not sound or (len(devices) % known if open_ended else len(devices) != known):
        raise UserError(
            f"mesh={dict(sizes)}: it does not fit {len(devices)} {devices[0].platform} device(s). "
            f"Set sizes of {', '.join(AXES)} whose product is {len(devices)}; one of them may be "
            "-1, for the remaining devices."
        )
    rest = len(devices) // known
    shape = [rest if sizes.get(axis, 1) == -1 else sizes.get(axis, 1) for axis in AXES]
    if slices := len(set(slice_indices(devices))):
        if shape[0] != slices:
            unit = "node" if devices[0].platform == "gpu" else "TPU slice"
            raise UserError(
                f"mesh.slices={shape[0]}: the {len(devices)} devices are in {slices} {unit}(s). "
                f"Set mesh.slices={slices}, so that no other axis crosses the network between them."
            )
        within, across = [1, *shape[1:]], [slices, *[1] * len(shape[1:])]
        grid = mesh_utils.create_hybrid_device_mesh(
            within,
            across,
            devices,
            process_is_granule=_slice_attribute(devices[0]) == "process_index",
            allow_split_physical_axes=True,
        )
    else:
        grid = mesh_utils.create_device_mesh(shape, devices, allow_split_physical_axes=True)
    return Mesh(grid, AXES, axis_types=(AxisType.Auto,) * len(AXES))


def slice_indices(devices: Sequence[jax.Device]) -> list[int]:
    """Return the TPU slice or GPU node of each device; [] for devices without either."""
    attribute = _slice_attribute(devices[0])
    return [getattr(one, attribute) for one in devices] if hasattr(devices[0], attribute) else []


@contextlib.contextmanager
def mesh_context(mesh: Mesh, rules: Rules = RULES) -> Iterator[None]:
    """Set the mesh and the sharding rules in a `with` block.

    Models must be initialized, traced and run in such a block.
    """
    with jax.set_mesh(mesh), nn.logical_axis_rules(rules):
        yield


def row_sharding(mesh: Mesh, rules: Rules = RULES) -> NamedSharding:
    """Return the sharding of the first axis over all mesh axes of the logical axis `rows`."""
    return NamedSharding(mesh, PartitionSpec(dict(rules)["rows"]))


def batch_sharding(mesh: Mesh) -> NamedSharding:
    """Return the sharding of training canvases, `[B L ...]`, over rows and slots."""
    return NamedSharding(mesh, PartitionSpec(dict(RULES)["rows"], dict(RULES)["slots"]))


def replicated_sharding(mesh: Mesh) -> NamedSharding:
    """Return the sharding of arrays that are replicated on every device."""
    return NamedSharding(mesh, PartitionSpec())


def state_sharding(mesh: Mesh, boxed: PyTree, rules: Rules = RULES) -> PyTree:
    """Return the sharding of every array in a tree whose parameters have logical axis names.

    Args:
        mesh: mesh of `make_mesh`.
        boxed: shapes with linen's partitioning metadata, as returned by `jax.eval_shape`.
        rules: logical axis -> mesh axes.

    Raises:
        UserError: a dimension is not divisible by its mesh axes, a logical axis has no rule, two
            dimensions of an array use the same mesh axis, or a rule uses an unknown mesh axis.
    """
    _check_rules(mesh, rules)
    jax.tree.map_with_path(
        lambda *leaf: _check_logical_axes(rules, *leaf), boxed, is_leaf=_is_partitioned
    )
    named = nn.logical_to_mesh_sharding(nn.get_partition_spec(boxed), mesh, rules)
    # A box may hold no array, because the optimizer has no moments of frozen parameters.
    shardings = jax.tree.map(
        lambda leaf, where: jax.tree.map(lambda _: where, unbox(leaf)),
        boxed,
        named,
        is_leaf=_is_partitioned,
    )
    jax.tree.map_with_path(_check_divides, unbox(boxed), shardings)
    return shardings


def unbox(tree: PyTree) -> PyTree:
    """Remove linen's partitioning metadata from a tree.

    `nn.unbox` also adds sharding constraints, which raise errors for abstract shapes. This function
    adds no constraints.
    """
    return jax.tree.map(
        lambda leaf: leaf.value if _is_partitioned(leaf) else leaf, tree, is_leaf=_is_partitioned
    )


def num_shards(mesh: Mesh, logical_axis: str, rules: Rules = RULES) -> int:
    """Return the number of shards of a logical axis."""
    return math.prod(mesh.shape[axis] for axis in _mesh_axes(dict(rules)[logical_axis]))


def check_batch_divides(
    mesh: Mesh,
    batch_size: int,
    num_microbatches: int = 1,
    field: str = "batch_size",
    rules: Rules = RULES,
) -> None:
    """Check that a batch divides into shards of rows and into microbatches.

    Args:
        mesh: the device mesh.
        batch_size: number of rows of the global batch.
        num_microbatches: number of gradient accumulation steps.
        field: the batch size's key in the configuration, for the message.
        rules: logical axis -> mesh axes.

    Raises:
        UserError: `batch_size` is not a multiple of shards x microbatches.
    """
    cut = num_shards(mesh, "rows", rules)
    if batch_size % (cut * num_microbatches):
        axes = dict(rules)["rows"]
        raise UserError(
            f"{field}={batch_size}: it does not divide into grad_accum_steps={num_microbatches} "
            f"microbatches over {' x '.join(axes)} = "
            f"{' x '.join(str(mesh.shape[axis]) for axis in axes)} devices. "
            f"Choose a multiple of {cut * num_microbatches}."
        )


def check_divides(mesh: Mesh, field: str, size: int, logical_axis: str) -> None:
    """Check that a size of the configuration divides into the shards of its logical axis.

    Args:
        mesh: the device mesh.
        field: the size's key in the configuration, for the message.
        size: the size.
        logical_axis: name of the logical axis in `RULES`.

    Raises:
        UserError: the size is not a multiple of the number of shards.
    """
    if size % num_shards(mesh, logical_axis):
        axes = " x ".join(f"mesh.{axis}" for axis in _mesh_axes(dict(RULES)[logical_axis]))
        raise UserError(
            f"{field}={size}: it does not divide into {axes}={num_shards(mesh, logical_axis)} "
            f"equal shards. Choose a multiple of {num_shards(mesh, logical_axis)}, or another mesh."
        )


def _mesh_axes(rule: str | tuple[str, ...] | None) -> tuple[str, ...]:
    """Return the mesh axes in a rule or in one entry of a PartitionSpec, as a tuple."""
    return rule if isinstance(rule, tuple) else (rule,) if rule else ()


def _slice_attribute(device: jax.Device) -> str:
    """Return the attribute that holds the slice or node of a device.

    JAX's descriptions of GPUs that do not exist have `slice_index` 0 on all nodes (JAX 0.10), and
    one process per node.
    """
    is_description = getattr(device.client, "runtime_type", "") == "compile_only_runtime"
    return "process_index" if device.platform == "gpu" and is_description else "slice_index"


def _is_partitioned(leaf: object) -> bool:
    return isinstance(leaf, nn.LogicallyPartitioned)


def _check_rules(mesh: Mesh, rules: Rules) -> None:
    for name, rule in rules:
        if unknown := set(_mesh_axes(rule)) - set(mesh.axis_names):
            raise UserError(
                f"sharding rule {name!r} -> {rule!r}: the mesh has no axis {sorted(unknown)}. Its "
                f"axes are {', '.join(mesh.axis_names)}."
            )


def _check_logical_axes(rules: Rules, path: jax.tree_util.KeyPath, leaf: object) -> None:
    if not _is_partitioned(leaf):
        return
    where, table = jax.tree_util.keystr(path), dict(rules)
    names = [name for name in leaf.names if name is not None]
    for name in names:
        if name not in table:
            raise UserError(
                f"{where}: the logical axis {name!r} has no sharding rule. There are rules for "
                f"{', '.join(table)}."
            )
    axes = [axis for name in names for axis in _mesh_axes(table[name])]
    if len(axes) > len(set(axes)):
        raise UserError(
            f"{where}: its axes {leaf.names} map to mesh axes {axes}, one of them twice. Change "
            "the rules."
        )


def _check_divides(
    path: jax.tree_util.KeyPath, shape: jax.ShapeDtypeStruct, sharding: NamedSharding
) -> None:
    for size, axes in zip(shape.shape, sharding.spec, strict=False):
        cut = math.prod(sharding.mesh.shape[name] for name in _mesh_axes(axes))
        if size % cut:
            raise UserError(
                f"{jax.tree_util.keystr(path)} of shape {shape.shape}: {size} does not divide "
                f"into {cut} shards along mesh axes {_mesh_axes(axes)}. Change the model's size or "
                "the mesh."
            )
