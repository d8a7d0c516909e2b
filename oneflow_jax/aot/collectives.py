"""What chips tell one another in one call of a program: collectives by kind, with their bytes.

Bytes are those that each chip sends, if rings carry them: with n chips in a group

    all-gather          (n - 1) x its own share        reduce-scatter   (n - 1) / n of the operand
    all-reduce      2 (n - 1) / n of the operand       all-to-all       (n - 1) / n of the operand
    collective-permute  the operand

An all-reduce of which each chip keeps one slice, which XLA's TPU compiler fuses, is a
reduce-scatter.
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
    """One instruction that sends.

    Attributes:
        kind: one of `KINDS`.
        times: how often it runs.
        bytes: that each chip sends, all times together.
        chips: in a group.
        slices: that a group spans.
        shape: of what comes out, as in "bf16[16,128,2048]".
        path: where in the model it comes from.
    """

    kind: str
    times: int
    bytes: float
    chips: int
    slices: int
    shape: str
    path: str


def find_collectives(program: Program, slice_of: Sequence[int]) -> list[Collective]:
    """All collectives of a program, those that send most first.

    Args:
        program: compiled for as many devices as there are in `slice_of`.
        slice_of: the slice of each device, in the program's order.
    """
    found: dict[Any, Collective] = {}
    for name, times in program.times.items():
        computation = program.computations[name]
        for line in computation.values():
            kind = line.opcode.removesuffix("-start")
            if kind not in KINDS:
                continue
            within = program.fusions.get(name)
            one = _to_collective(computation, line, kind, times, slice_of)
            if not one.path and within:
                one = dataclasses.replace(one, path=within.path)
            # What goes on behind products is written thrice, in the fusions that begin it, go on
            # with it and end it, but has one channel.
            channel = re.search(r"channel_id=\d+", line.rest) if within else None
            found.setdefault((kind, times, channel[0]) if channel else (name, line.name), one)
    # What sends nothing is between a chip and itself.
    return sorted((one for one in found.values() if one.bytes), key=lambda one: -one.bytes)


def sum_by_kind(collectives: Sequence[Collective]) -> dict[str, dict[str, float]]:
    """How many there are of each kind in one call, with their bytes."""
    totals = {}
    for kind in KINDS:
        own = [one for one in collectives if one.kind == kind]
        if own:
            count, sent = sum(one.times for one in own), sum(one.bytes for one in own)
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
        use.opcode == "dynamic-slice" and use.root and use.operands[0] == instruction.name
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
    result = (
        instruction.shapes[min(1, len(instruction.shapes) - 1)]
        if "-start" in instruction.opcode
        else instruction.shapes[0]
    )
    return Collective(
        kind=kind,
        times=count,
        bytes=count * share * operand,
        chips=n,
        slices=len({slice_of[device] for device in groups[0]}),
        shape=f"{result.dtype}[{','.join(map(str, result.dims))}]",
        path=instruction.path,
    )


def _device_groups(instruction: Instruction, num_devices: int) -> np.ndarray:
    """The devices that send to one another, a row for each group of them."""
    pairs = re.search(r"source_target_pairs=\{\{(\d+,\d+(?:\},\{\d+,\d+)*)\}\}", instruction.rest)
    if pairs:
        return np.array([pair.split(",") for pair in pairs[1].split("},{")], int)
    listed = re.search(r"replica_groups=\{\{([\d,]+(?:\},\{[\d,]+)*)\}\}", instruction.rest)
    if listed:
        return np.array([group.split(",") for group in listed[1].split("},{")], int)
    iota = re.search(
        r"replica_groups=\[(\d+),(\d+)\]<=\[([\d,]+)\](?:T\(([\d,]+)\))?", instruction.rest
    )
    if iota:
        ids = np.arange(num_devices).reshape([int(n) for n in iota[3].split(",")])
        if iota[4]:
            ids = ids.transpose([int(n) for n in iota[4].split(",")])
        return ids.reshape(int(iota[1]), int(iota[2]))
    named = re.search(r"replica_groups=mesh\[([^\]]*)\] \{([^}]*)\}", instruction.rest)
    if named:
        return _groups_from_mesh(named[1], named[2])
    return np.arange(num_devices)[None]


def _groups_from_mesh(mesh: str, axes: str) -> np.ndarray:
    """Groups along some axes of a mesh, as in `'a'=2,'b'=4` and `'b'`, or part of one, `'b':(1)2`.

    Raises:
        ValueError: the devices are in another order than that of the mesh.
    """
    if "device_ids" in mesh:
        raise ValueError(f"unknown form of replica_groups: mesh[{mesh}]")
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
