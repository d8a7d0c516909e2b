"""What is sent for: whether a collective moves parameters, gradients, activations or a few numbers.

The table of rules asks for these: where parameters are spread over fsdp, each layer's are
gathered before it runs, forward and backward, and their gradients are summed over all rows, each
chip keeping its share. Whatever else is gathered was not asked for. What is gathered is told by
its size: that of a parameter, of one layer if layers are stacked, or of its part along tensor.
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
"""Bytes below which nobody need ask what it was."""


@dataclasses.dataclass(frozen=True)
class CollectiveTraffic:
    """Collectives of one kind and role, in one place of the model.

    Attributes:
        kind: of collective.
        role: one of the above.
        count: how many run in one step.
        bytes: that each chip sends.
        where: the place, as in "backbone/mlp/gate".
    """

    kind: str
    role: str
    count: int
    bytes: float
    where: str


def aggregate(
    collectives: Sequence[Collective], system: system_lib.System
) -> list[CollectiveTraffic]:
    """What is sent by kind, role and place, most first."""
    sizes = _parameter_sizes(system)
    totals: dict[tuple[str, str, str], tuple[int, float]] = {}
    for one in collectives:
        key = one.kind, classify(one, sizes), _module_path(one.path)
        count, sent = totals.get(key, (0, 0.0))
        totals[key] = count + one.times, sent + one.bytes
    traffic = [CollectiveTraffic(kind, of, *totals[kind, of, at], at) for kind, of, at in totals]
    return sorted(traffic, key=lambda one: -one.bytes)


def classify(collective: Collective, parameter_sizes: set[int]) -> str:
    """What a collective is for; `parameter_sizes` are those of parameters."""
    if collective.bytes / collective.times < SMALL_BYTES:
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
    """Numbers in each parameter, and in its part along every axis but fsdp."""
    found = set()
    for path, leaf in jax.tree_util.tree_leaves_with_path(
        train_state.abstract_state(system).params
    ):
        stacked = "blocks" in jax.tree_util.keystr(path)
        count = math.prod(leaf.shape[1:] if stacked else leaf.shape)
        found |= {count // ways for ways in {1, system.mesh.shape["tensor"]}}
    return found


def _module_path(path: str) -> str:
    """The modules that a path of JAX's names, without how they were transformed."""
    inside = re.findall(
        r"(?<![\w.])(?!jit|jvp|while|body|closed_call|checkpoint|remat)[\w]+(?=/)", path
    )
    return "/".join(dict.fromkeys(inside)) or "(fused)"
