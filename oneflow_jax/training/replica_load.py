"""Loading of a checkpoint by one replica of the mesh, which sends it to the other replicas.

By default, each process reads what its devices need. So a state that is replicated R times is read
R times from storage. Here, the processes of the first replica read it, and the interconnect of the
devices carries it to the other replicas.
"""

import logging

import jax
import numpy as np
from etils import epath
from orbax.checkpoint import v1 as ocp

from oneflow_jax.runtime import distributed
from oneflow_jax.shapes import PyTree

REPLICA_AXES = ("slices", "data")
"""Mesh axes over which the training state is replicated."""


def choose_axis(abstract_state: PyTree, min_gb: float) -> int | None:
    """Return the mesh axis to send a state along, or None if each process reads its part.

    Args:
        abstract_state: shapes and shardings of the state, all over one mesh.
        min_gb: minimum size of the state in GB; 0 stands for infinity.
    """
    state_bytes = sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(abstract_state))
    if not min_gb or state_bytes < min_gb * 1e9 or not distributed.is_multi_process():
        return None
    axis = _find_axis(jax.tree.leaves(abstract_state)[0].sharding.mesh)
    if axis is None:
        logging.warning(
            "checkpoint.broadcast_min_gb=%g: no two replicas of the state are in different "
            "processes, so each process reads its part of the %.3g GB.",
            *(min_gb, state_bytes / 1e9),
        )
    else:
        logging.info("One replica reads the state of %.3g GB for all.", state_bytes / 1e9)
    return axis


def _find_axis(mesh: jax.sharding.Mesh) -> int | None:
    """Return the first of `REPLICA_AXES` along which a process has devices of one replica only."""
    for index, (name, size) in enumerate(mesh.shape.items()):
        replicas = np.moveaxis(mesh.devices, index, 0)
        processes = [{device.process_index for device in replica.flat} for replica in replicas]
        are_separate = sum(map(len, processes)) == len(set.union(*processes))
        if name in REPLICA_AXES and size > 1 and are_separate:
            return index
    return None


def set_options(context: ocp.Context, axis: int) -> None:
    """Set orbax's options for reading in the first replica along a mesh axis."""
    loading = context.array.loading
    loading.use_load_and_broadcast = True
    loading.load_and_broadcast_options.replica_axis_index = axis


def load(path: epath.Path, like_items: dict[str, PyTree]) -> dict[str, PyTree]:
    """Load the items of a checkpoint in orbax's current context; all processes call this together.

    The shapes and shardings of an item are None if it is a JSON file.

    If a process cannot read its part, it raises orbax's error, and the other processes wait until
    it ends. So this process must end.
    """
    items = {}
    # Orbax loads several items at the same time, so processes could send arrays in different
    # orders, and would then wait for each other forever.
    for name, like in like_items.items():
        loaded = ocp.load_checkpointables(path, {name: like})[name]
        is_json = like is None
        items[name] = loaded if is_json else jax.tree.map(_wrap_key, loaded, like)
    return items


def _wrap_key(array: jax.Array, like: jax.ShapeDtypeStruct) -> jax.Array:
    """Convert the data of a PRNG key to a key, since orbax sends only the data (orbax 0.12.8)."""
    is_missing = _is_key(like) and not _is_key(array)
    return jax.random.wrap_key_data(array) if is_missing else array


def _is_key(array: jax.Array | jax.ShapeDtypeStruct) -> bool:
    return jax.dtypes.issubdtype(array.dtype, jax.dtypes.prng_key)
