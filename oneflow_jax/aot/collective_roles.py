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

FEW = 2**20
"""Bytes below which nobody need ask what it was."""


@dataclasses.dataclass(frozen=True)
class Traffic:
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


def summed(found: Sequence[Collective], system: system_lib.System) -> list[Traffic]:
    """What is sent by kind, role and place, most first."""
    sizes = _sizes(system)
    totals: dict[tuple[str, str, str], tuple[int, float]] = {}
    for one in found:
        key = one.kind, role(one, sizes), _place(one.path)
        count, sent = totals.get(key, (0, 0.0))
        totals[key] = count + one.times, sent + one.bytes
    traffic = [Traffic(kind, of, *totals[kind, of, at], at) for kind, of, at in totals]
    return sorted(traffic, key=lambda one: -one.bytes)


def role(one: Collective, sizes: set[int]) -> str:
    """What a collective is for; `sizes` are those of parameters."""
    if one.bytes / one.times < FEW:
        return SMALL
    if one.kind == "all-gather":
        dims = re.search(r"\[([\d,]*)\]", one.shape)[1]
        return PARAMETERS if math.prod(map(int, dims.split(","))) in sizes else ACTIVATIONS
    if one.kind in ("reduce-scatter", "all-reduce", "collective-permute"):
        return GRADIENTS
    return ACTIVATIONS


def _sizes(system: system_lib.System) -> set[int]:
    """Numbers in each parameter, and in its part along every axis but fsdp."""
    found = set()
    for path, leaf in jax.tree_util.tree_leaves_with_path(train_state.abstract(system).params):
        stacked = "blocks" in jax.tree_util.keystr(path)
        count = math.prod(leaf.shape[1:] if stacked else leaf.shape)
        found |= {count // ways for ways in {1, system.mesh.shape["tensor"]}}
    return found


def _place(path: str) -> str:
    """The modules that a path of JAX's names, without how they were transformed."""
    inside = re.findall(
        r"(?<![\w.])(?!jit|jvp|while|body|closed_call|checkpoint|remat)[\w]+(?=/)", path
    )
    return "/".join(dict.fromkeys(inside)) or "(fused)"
