"""Classify collectives by what they move: parameters, gradients, activations, or small values.

The sharding rules imply these collectives: if parameters are sharded over fsdp, the parameters of
each layer are all-gathered before it runs, forward and backward, and their gradients are
reduce-scattered over all rows. Any other all-gather is unintended. The classification uses the
size: an all-gather moves parameters if its size is that of a parameter, of one layer of stacked
parameters, or of their shard along the tensor axis.
"""

import dataclasses
import math
import re
from collections.abc import Sequence

import jax

from oneflow_jax.aot.collectives import Collective
from oneflow_jax.build import system as system_lib
from oneflow_jax.training import train_state

PARAMETERS, GRADIENTS, ACTIVATIONS, SMALL = "parameters", "gradients", "activations", "small"

SMALL_BYTES = 2**20
"""Collectives of fewer bytes are classified as small."""


@dataclasses.dataclass(frozen=True)
class CollectiveTraffic:
    """Collectives of one kind and role in one module of the model.

    Attributes:
        kind: kind of collective.
        role: one of the roles above.
        count: number of collectives in one step.
        bytes: bytes that each chip sends.
        module: path of the module, for example "backbone/mlp/gate".
    """

    kind: str
    role: str
    count: int
    bytes: float
    module: str


def aggregate(
    collectives: Sequence[Collective], system: system_lib.System
) -> list[CollectiveTraffic]:
    """Sum up the collectives by kind, role and module; the largest come first."""
    sizes = _parameter_sizes(system)
    totals: dict[tuple[str, str, str], tuple[int, float]] = {}
    for one in collectives:
        key = one.kind, classify(one, sizes), _module_path(one.path)
        count, sent = totals.get(key, (0, 0.0))
        totals[key] = count + one.count, sent + one.bytes
    traffic = [CollectiveTraffic(kind, of, *totals[kind, of, at], at) for kind, of, at in totals]
    return sorted(traffic, key=lambda one: -one.bytes)


def classify(collective: Collective, parameter_sizes: set[int]) -> str:
    """Return the role of a collective; `parameter_sizes` are the sizes of parameters."""
    if collective.bytes / collective.count < SMALL_BYTES:
        return SMALL
    if collective.kind == "all-gather":
        dims = re.search(r"\[([\d,]*)\]", collective.shape)[1]
        return (
            PARAMETERS if math.prod(map(int, dims.split(","))) in parameter_sizes else ACTIVATIONS
        )
    if collective.kind in ("reduce-scatter", "all-reduce", "collective-permute"):
        return GRADIENTS
    return ACTIVATIONS


def _parameter_sizes(system: system_lib.System) -> set[int]:
    """Return the size of each parameter, whole and sharded along every axis but fsdp."""
    found = set()
    for path, leaf in jax.tree_util.tree_leaves_with_path(
        train_state.abstract_state(system).params
    ):
        stacked = "blocks" in jax.tree_util.keystr(path)
        count = math.prod(leaf.shape[1:] if stacked else leaf.shape)
        found |= {count // ways for ways in {1, system.mesh.shape["tensor"]}}
    return found


def _module_path(path: str) -> str:
    """Return the module names in a JAX op path, without the names of transformations."""
    inside = re.findall(
        r"(?<![\w.])(?!jit|jvp|while|body|closed_call|checkpoint|remat)[\w]+(?=/)", path
    )
    return "/".join(dict.fromkeys(inside)) or "(fused)"
