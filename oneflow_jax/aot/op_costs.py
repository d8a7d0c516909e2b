"""FLOPs and bytes of each instruction of a program, and the seconds that they take at least.

FLOPs are those of matrix products, as in `costs.flops`: a multiplication and an addition each.
XLA's TPU compiler writes them all as convolutions, with batch axes as windows of which most places
fall on padding or between dilated rows; places that fall on nothing are not counted.

Of what is in a kernel the compiler tells nothing but operands, results and a name. Those of splash
attention are counted as if every slot saw every other, which in causal attention is twice too many,
and all kernels are taken to reach half of the chip's peak.

Bytes are those that an instruction reads from and writes to the chip's HBM: operands and results as
a whole, but of what is only sliced the slices, and of what is updated in place the update. Fusions
are one instruction. What the compiler keeps in memories on the chip is free.
"""

import dataclasses
import math
import re

import numpy as np

from oneflow_jax.aot import hlo
from oneflow_jax.aot.hlo import Computation, Instruction, Program, Shape
from oneflow_jax.costs.chips import Chip

FREE = {
    "parameter", "constant", "tuple", "get-tuple-element", "bitcast", "while", "conditional",
    "call", "iota", "after-all", "partition-id", "replica-id", "async-start", "add-dependency",
    "opt-barrier",
}  # fmt: skip
"""What moves nothing itself."""

SLICES = ("dynamic-slice", "slice", "gather")
STEPS = ("stride", "lhs_dilate", "rhs_dilate")

KERNELS = {"splash_mha_fwd": 2, "splash_mha_dq": 3, "splash_mha_dkv": 4}
"""Products of queries or what is like them with keys or values, by what the kernel's name has."""

KERNEL_SHARE = 0.5
"""Of the peak, in a kernel."""

_CYCLES = re.compile(r'"estimated_cycles":"(\d+)"')


@dataclasses.dataclass(frozen=True)
class Work:
    """What one chip does in one call of a program, apart from talking to others.

    Attributes:
        flops: of matrix products.
        bytes: to and from HBM.
        seconds: of all instructions one after another, each as long as the slower of its matrix
            products and its bytes takes; None without a chip.
        scheduled: the same by the cycles that the compiler tells of each instruction, which also
            knows vector units and tiles.
    """

    flops: float
    bytes: float
    seconds: float | None
    scheduled: float | None


def work(program: Program, chip: Chip | None) -> Work:
    """The work of a program."""
    flops, moved, seconds, scheduled = 0.0, 0.0, 0.0, 0.0
    for computation, line, times in program.running():
        own, read = flops_of(program, computation, line), bytes_of(program, computation, line)
        flops += times * own
        moved += times * read
        if chip:
            kernel = line.opcode == "custom-call"
            peak = chip.peak * (KERNEL_SHARE if kernel else 1.0)
            least = max(own / peak, read / chip.bandwidth)
            seconds += times * least
            told = _CYCLES.search(line.rest)
            # Of kernels it has no estimate.
            scheduled += times * (least if kernel else int(told[1]) / chip.clock if told else 0.0)
    return Work(flops, moved, seconds, scheduled) if chip else Work(flops, moved, None, None)


def flops_of(program: Program, computation: Computation, line: Instruction) -> float:
    """FLOPs of one instruction, run once; of a fusion with all that is in it."""
    if line.opcode == "fusion":
        inside = (program.computations[name] for name in line.called)
        return sum(flops_of(program, body, part) for body in inside for part in body.values())
    if line.opcode == "dot":
        left = computation[line.operands[0]].shapes[0]
        axes = re.search(r"lhs_contracting_dims=\{([\d,]*)\}", line.rest)[1]
        summed = (int(n) for n in axes.split(",") if n)
        return 2.0 * math.prod(line.shapes[0].dims) * math.prod(left.dims[n] for n in summed)
    if line.opcode == "convolution":
        return _convolution(computation, line)
    if line.opcode == "custom-call" and 'custom_call_target="tpu_custom_call"' in line.rest:
        return _kernel(computation, line)
    return 0.0


def bytes_of(program: Program, computation: Computation, line: Instruction) -> float:
    """Bytes to and from HBM of one instruction, run once."""
    if line.opcode in FREE or line.opcode.endswith("-done"):
        return 0.0
    if line.opcode == "fusion":
        return _fusion(program, line)
    operands = [computation[name].shapes for name in line.operands if name in computation]
    if line.opcode in SLICES:
        return 2 * sum(map(_in_hbm, line.shapes))
    if line.opcode == "dynamic-update-slice":
        return 2 * sum(map(_in_hbm, operands[1]))
    if line.opcode == "slice-start":  # (operand, slice, ...)
        return 2 * line.shapes[1].bytes
    if line.opcode.endswith("-start"):  # (operand, result, ...): a copy, or between chips.
        return sum(map(_in_hbm, line.shapes[:2]))
    return sum(_in_hbm(shape) for shapes in (*operands, line.shapes) for shape in shapes)


def _kernel(computation: Computation, line: Instruction) -> float:
    """2 x rows x heads x queries x keys x width for each product."""
    products = next((n for name, n in KERNELS.items() if name in line.name), 0)
    arrays = [computation[name].shapes[0] for name in line.operands]
    query, key, *_ = (shape.dims for shape in arrays if len(shape.dims) == 4)
    return products * 2.0 * math.prod(query) * key[2]


def _fusion(program: Program, fusion: Instruction) -> float:
    """What a fusion reads of its operands, and writes."""
    body = program.computations[fusion.called[0]]
    read = sum(_read(program, body, line) for line in body.values() if line.opcode == "parameter")
    root = hlo.root(body)
    parts = [body[name] for name in root.operands] if root.opcode == "tuple" else [root]
    written = zip(parts, fusion.shapes, strict=False)
    return read + sum(_written(program, body, line) for line, shape in written if shape.in_hbm)


def _read(program: Program, body: Computation, line: Instruction) -> float:
    """Bytes that a computation reads of one of its values: all, or those of its slices."""
    if not line.shapes or not line.shapes[0].in_hbm:
        return 0.0
    whole, total = sum(map(_in_hbm, line.shapes)), 0.0
    for use in (other for other in body.values() if line.name in other.operands):
        first = use.operands[0] == line.name
        if use.opcode == "bitcast":
            total += _read(program, body, use)
        elif use.opcode in SLICES and first:
            total += use.shapes[0].bytes
        elif use.opcode == "fusion":
            inner = program.computations[use.called[0]]
            total += sum(
                _read(program, inner, parameter)
                for parameter in inner.values()
                if parameter.opcode == "parameter"
                and use.operands[int(parameter.operands[0])] == line.name
            )
        elif not (use.opcode == "dynamic-update-slice" and first):
            return whole
    return min(total, whole)


def _written(program: Program, body: Computation, line: Instruction) -> float:
    """Bytes of a result: all of it, or the update of what is updated in place."""
    if line.opcode == "bitcast" and line.operands[0] in body:
        return _written(program, body, body[line.operands[0]])
    if line.opcode == "dynamic-update-slice":
        return body[line.operands[1]].shapes[0].bytes
    if line.opcode == "fusion":
        inner = program.computations[line.called[0]]
        root = hlo.root(inner)
        if root.opcode != "tuple":
            return _written(program, inner, root)
    return sum(shape.bytes for shape in line.shapes)


def _convolution(computation: Computation, line: Instruction) -> float:
    """2 x rows x features out x features in x places of the window that fall on something."""
    left, right = (computation[name].shapes[0].dims for name in line.operands[:2])
    labels = re.search(r"dim_labels=(\w+)_(\w+)->(\w+)", line.rest)
    ins, kernel, outs = labels.groups()
    out = line.shapes[0].dims
    total = 2.0 * out[outs.index("b")] * out[outs.index("f")] * right[kernel.index("i")]
    spatial = sorted(set(outs) - {"b", "f"})
    window = dict(
        re.findall(r"(\w+)=([\d_x\-]+)", re.search(r"window=\{([^}]*)\}|$", line.rest)[0])
    )
    for n, label in enumerate(spatial):
        total *= _places(
            size=right[kernel.index(label)],
            ins=left[ins.index(label)],
            outs=out[outs.index(label)],
            **{name: int(window[name].split("x")[n]) if name in window else 1 for name in STEPS},
            before=int(window["pad"].split("x")[n].split("_")[0]) if "pad" in window else 0,
        )
    return total


def _places(
    *, size: int, ins: int, outs: int, stride: int, lhs_dilate: int, rhs_dilate: int, before: int
) -> int:
    """Pairs of an output and a place of the window that meet an input, along one axis."""
    place = np.arange(outs)[:, None] * stride + np.arange(size)[None] * rhs_dilate - before
    inside = (place >= 0) & (place <= (ins - 1) * lhs_dilate)
    return int(np.sum(inside & (place % lhs_dilate == 0)))


def _in_hbm(shape: Shape) -> float:
    return shape.bytes if shape.in_hbm else 0.0
