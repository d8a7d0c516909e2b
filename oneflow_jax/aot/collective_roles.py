"""Classify collectives by what they move: parameters, gradients, activations, or small values.

With parameters sharded over the mesh axis fsdp, two kinds of collectives are expected. An
all-gather collects the parameters of each layer before the layer runs, forward and backward, and a
reduce-scatter sums their gradients over all rows. Any other all-gather is unintended. The
classification uses sizes: an all-gather moves parameters if its result has the size of a parameter,
of one layer of stacked parameters, or of a shard of one of these along the tensor axis. XLA's GPU
compiler combines several all-gathers into one; all its results must have such a size.
"""

import dataclasses
import math
import re
from collections.abc import Sequence

import jax

from oneflow_jax.aot.collectives import Collective
from oneflow_jax.build import system as system_lib

PARAMETERS, GRADIENTS, ACTIVATIONS, SMALL = "parameters", "gradients", "activations", "small"

SMALL_BYTES = 2**20
"""Collectives of fewer bytes are classified as small."""


@dataclasses.dataclass(frozen=True)
class CollectiveTraffic:
    """All collectives of one kind and role in one module of the model.

    Attributes:
        kind: kind of collective.
        role: what the collectives move: `PARAMETERS`, `GRADIENTS`, `ACTIVATIONS` or `SMALL`.
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
    """Sum up the collectives by kind, role and module; sort by bytes, largest first."""
    sizes = _parameter_sizes(system)
    totals: dict[tuple[str, str, str], tuple[int, float]] = {}
    for one in collectives:
        key = one.kind, classify(one, sizes), _module_path(one.path)
        count, sent = totals.get(key, (0, 0.0))
        totals[key] = count + one.count, sent + one.bytes
    traffic = [
        CollectiveTraffic(kind, role, *totals[kind, role, module], module)
        for kind, role, module in totals
    ]
    return sorted(traffic, key=lambda one: -one.bytes)


def classify(collective: Collective, parameter_sizes: set[int]) -> str:
    """Return the role of a collective; `parameter_sizes` is the result of `_parameter_sizes`."""
    if collective.bytes / collective.count < SMALL_BYTES:
        return SMALL
    if collective.kind == "all-gather":
        sizes = {
            math.prod(int(n) for n in dims.split(",") if n)
            for dims in re.findall(r"\[([\d,]*)\]", collective.shape)
        }
        return PARAMETERS if sizes <= parameter_sizes else ACTIVATIONS
    if collective.kind in ("reduce-scatter", "all-reduce", "collective-permute"):
        return GRADIENTS
    return ACTIVATIONS


def _parameter_sizes(system: system_lib.System) -> set[int]:
    """Return parameters' element counts (per layer if stacked), whole and sharded by `tensor`."""
    sizes = set()
    for path, leaf in jax.tree_util.tree_leaves_with_path(system.abstract_state.params):
        stacked = "blocks" in jax.tree_util.keystr(path)
        count = math.prod(leaf.shape[1:] if stacked else leaf.shape)
        sizes |= {count // ways for ways in {1, system.mesh.shape["tensor"]}}
    return sizes


def _module_path(path: str) -> str:
    """Return the module names in a JAX op path, without the names of JAX transformations."""
    inside = re.findall(
        r"(?<![\w.])(?!jit|jvp|while|body|closed_call|checkpoint|remat)[\w]+(?=/)", path
    )
    return "/".join(dict.fromkeys(inside)) or "(fused)"
