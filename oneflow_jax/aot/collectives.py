"""Collectives of a compiled program: their kinds, counts and bytes in one call of the program.

The bytes are those that each chip sends, under the assumption of ring algorithms. With n chips in a
group:

    all-gather          (n - 1) x the chip's shard     reduce-scatter   (n - 1) / n of the operand
    all-reduce      2 (n - 1) / n of the operand       all-to-all       (n - 1) / n of the operand
    collective-permute  the operand

XLA's TPU compiler may fuse an all-reduce with the slice of the result that each chip keeps. This
module counts such an all-reduce as a reduce-scatter.
"""

import dataclasses
import math
import re
from collections.abc import Sequence
from typing import Any

import numpy as np

from oneflow_jax.aot.hlo import Computation, Instruction, Program

KINDS = ("all-gather", "all-reduce", "reduce-scatter", "all-to-all", "collective-permute")


@dataclasses.dataclass(frozen=True)
class Collective:
    """One collective instruction of a program.

    Attributes:
        kind: one of `KINDS`.
        count: number of times that the instruction runs.
        bytes: bytes that each chip sends, summed over all runs.
        group_size: number of chips in a group.
        num_slices: number of TPU slices that a group spans.
        shape: shape of the result, for example "bf16[16,128,2048]"; several shapes, separated by
            spaces, if the compiler has combined several collectives into one.
        path: JAX op path, which names the module that the instruction comes from.
    """

    kind: str
    count: int
    bytes: float
    group_size: int
    num_slices: int
    shape: str
    path: str


def find_collectives(program: Program, slice_of: Sequence[int]) -> list[Collective]:
    """Find all collectives of a program, sorted by the bytes that they send, largest first.

    Args:
        program: program compiled for `len(slice_of)` devices.
        slice_of: index of the TPU slice of each device, in the program's order of devices.
    """
    by_instruction: dict[Any, Collective] = {}
    for name, times in program.run_counts.items():
        computation = program.computations[name]
        for line in computation.values():
            kind = line.opcode.removesuffix("-start")
            if kind not in KINDS:
                continue
            within = program.fusions.get(name)
            one = _to_collective(computation, line, kind, times, slice_of)
            if not one.path and within:
                one = dataclasses.replace(one, path=within.path)
            # An asynchronous collective that overlaps with matrix products appears in three
            # fusions, which start, continue and finish it. The channel id is the same in all three.
            channel = re.search(r"channel_id=\d+", line.attributes) if within else None
            by_instruction.setdefault(
                (kind, times, channel[0]) if channel else (name, line.name), one
            )
    # Leave out collectives whose groups have a single chip: these send nothing.
    return sorted((one for one in by_instruction.values() if one.bytes), key=lambda one: -one.bytes)


def sum_by_kind(collectives: Sequence[Collective]) -> dict[str, dict[str, float]]:
    """Sum up the counts and bytes of the collectives of one call, by kind."""
    totals = {}
    for kind in KINDS:
        own = [one for one in collectives if one.kind == kind]
        if own:
            count, sent = sum(one.count for one in own), sum(one.bytes for one in own)
            totals[kind] = {"count": count, "bytes": sent}
    return totals


def _to_collective(
    computation: Computation,
    instruction: Instruction,
    kind: str,
    count: int,
    slice_of: Sequence[int],
) -> Collective:
    operand = sum(
        shape.bytes for name in instruction.operands for shape in computation[name].shapes
    )
    groups = _device_groups(instruction, len(slice_of))
    n = groups.shape[1]
    if kind == "all-reduce" and any(
        use.opcode == "dynamic-slice" and use.is_root and use.operands[0] == instruction.name
        for use in computation.values()
    ):
        kind = "reduce-scatter"
    share = {
        "all-gather": n - 1,
        "all-reduce": 2 * (n - 1) / n,
        "reduce-scatter": (n - 1) / n,
        "all-to-all": (n - 1) / n,
        "collective-permute": 1,
    }[kind]
    results = instruction.shapes[: len(instruction.operands)]
    if "-start" in instruction.opcode and len(instruction.shapes) > len(results):
        # The shapes are those of the operands, those of the results, and of further values.
        results = instruction.shapes[len(results) : 2 * len(results)]
    return Collective(
        kind=kind,
        count=count,
        bytes=count * share * operand,
        group_size=n,
        num_slices=len({slice_of[device] for device in groups[0]}),
        shape=" ".join(f"{one.dtype}[{','.join(map(str, one.dims))}]" for one in results),
        path=instruction.path,
    )


def _device_groups(instruction: Instruction, num_devices: int) -> np.ndarray:
    """Return the device groups of a collective, one row per group."""
    pairs = re.search(
        r"source_target_pairs=\{\{(\d+,\d+(?:\},\{\d+,\d+)*)\}\}", instruction.attributes
    )
    if pairs:
        return np.array([pair.split(",") for pair in pairs[1].split("},{")], int)
    listed = re.search(r"replica_groups=\{\{([\d,]+(?:\},\{[\d,]+)*)\}\}", instruction.attributes)
    if listed:
        return np.array([group.split(",") for group in listed[1].split("},{")], int)
    iota = re.search(
        r"replica_groups=\[(\d+),(\d+)\]<=\[([\d,]+)\](?:T\(([\d,]+)\))?", instruction.attributes
    )
    if iota:
        ids = np.arange(num_devices).reshape([int(n) for n in iota[3].split(",")])
        if iota[4]:
            ids = ids.transpose([int(n) for n in iota[4].split(",")])
        return ids.reshape(int(iota[1]), int(iota[2]))
    named = re.search(
        r"replica_groups=mesh\[([^\]]*)\]"
        r"(?:, device_ids=\(\[([\d,]+)\]T\(([\d,]+)\)\))? \{([^}]*)\}",
        instruction.attributes,
    )
    if named:
        groups = _groups_from_mesh(named[1], named[4])
        if named[2]:  # The mesh lists the devices in another order.
            sizes, order = ([int(n) for n in named[k].split(",")] for k in (2, 3))
            ids = np.arange(math.prod(sizes)).reshape(sizes).transpose(order).reshape(-1)
            groups = ids[groups]
        return groups
    return np.arange(num_devices)[None]


def _groups_from_mesh(mesh: str, axes: str) -> np.ndarray:
    """Return the device groups along some axes of a mesh, one row per group.

    In the text, a mesh is `'a'=2,'b'=4`, and an axis is `'b'`. A part of an axis is `'b':(1)2`: its
    size is 2, and the parts before it have the total size 1.

    Raises:
        ValueError: `mesh` lists the devices in another order (`device_ids`).
    """
    if "device_ids" in mesh:
        raise ValueError(f"unsupported form of replica_groups: mesh[{mesh}]")
    sizes = {name: int(size) for name, size in re.findall(r"'(\w+)'=(\d+)", mesh)}
    split = {
        name: (int(before), int(size))
        for name, before, size in re.findall(r"'(\w+)':\((\d+)\)(\d+)", axes)
    }
    shape, together = [], []
    for name, size in sizes.items():
        if name in split:
            before, own = split[name]
            together.append(len(shape) + 1)
            shape += [before, own, size // (before * own)]
        else:
            if f"'{name}'" in axes:
                together.append(len(shape))
            shape.append(size)
    ids = np.arange(math.prod(shape)).reshape(shape)
    apart = [n for n in range(len(shape)) if n not in together]
    n = math.prod(shape[k] for k in together)
    return ids.transpose([*apart, *together]).reshape(-1, n)
