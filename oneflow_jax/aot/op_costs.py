"""FLOPs and HBM bytes of a program's instructions, and estimates of their time.

FLOPs are those of matrix products, as in `costs.flops`: 2 for each multiply-add. XLA's TPU compiler
writes all matrix products as convolutions, and batch dimensions as dimensions of the convolution's
window. Most positions of such a window fall on padding or between dilated rows; these positions are
not counted.

The HLO text of a kernel contains only the kernel's operands, results and name. Attention kernels
are counted as if nothing were masked, which is twice the FLOPs of causal attention. All kernels are
assumed to reach half of the chip's peak.

Bytes are those that an instruction reads from and writes to HBM: its whole operands and results.
There are two exceptions: a slice reads only the slice, and an in-place update writes only the
update. A fusion counts as one instruction. Arrays that the compiler keeps in on-chip memory count
0.
"""

import dataclasses
import math
import re

import numpy as np

from oneflow_jax.aot import hlo
from oneflow_jax.aot.hlo import Computation, Instruction, Program, Shape
from oneflow_jax.costs.chips import Chip, Tpu

ZERO_COST_OPCODES = {
    "parameter", "constant", "tuple", "get-tuple-element", "bitcast", "while", "conditional",
    "call", "iota", "after-all", "partition-id", "replica-id", "async-start", "add-dependency",
    "opt-barrier",
}  # fmt: skip
"""Opcodes of instructions that move no data of their own."""

SLICE_OPCODES = ("dynamic-slice", "slice", "gather")
WINDOW_STRIDE_KEYS = ("stride", "lhs_dilate", "rhs_dilate")

KERNEL_MATMULS = {"splash_mha_fwd": 2, "splash_mha_dq": 3, "splash_mha_dkv": 4}
"""Number of matrix products (queries x keys x width) of a TPU kernel, by a part of its name."""

GPU_KERNEL_MATMULS = {"mha_forward": 2, "mha_backward": 7}
"""Number of matrix products of kernels of `jax.experimental.pallas.ops.gpu.attention`, by a part of
the JAX op path. The backward kernel computes scores twice: for keys and values, and for queries."""

KERNEL_TARGETS = {"tpu_custom_call": "tpu", "__gpu$xla.gpu.triton": "gpu"}
"""Platform of a kernel by the target of its custom call."""

KERNEL_PEAK_FRACTION = 0.5
"""Fraction of the chip's peak that a kernel is assumed to reach."""

_CYCLES = re.compile(r'"estimated_cycles":"(\d+)"')


@dataclasses.dataclass(frozen=True)
class OpCosts:
    """Work of one chip in one call of a program, without communication.

    Attributes:
        flops: FLOPs of matrix products.
        bytes: bytes read from and written to HBM.
        roofline_s: roofline estimate in seconds, the sum over instructions of the larger of compute
            time and memory time; None without a chip.
        compiler_s: sum of the TPU compiler's own cycle estimates, in seconds. These estimates also
            account for vector units and tiles. None for GPUs, and without a chip.
    """

    flops: float
    bytes: float
    roofline_s: float | None
    compiler_s: float | None


def sum_op_costs(program: Program, chip: Chip | None) -> OpCosts:
    """Sum up the costs of all instructions; without a chip, only FLOPs and bytes."""
    flops, moved, seconds, scheduled = 0.0, 0.0, 0.0, 0.0
    for computation, line, times in program.iter_instructions():
        own, read = (
            instruction_flops(program, computation, line),
            instruction_bytes(program, computation, line),
        )
        flops += times * own
        moved += times * read
        if chip:
            kernel = line.opcode == "custom-call"
            peak = chip.peak_flops * (KERNEL_PEAK_FRACTION if kernel else 1.0)
            least = max(own / peak, read / chip.hbm_bandwidth)
            seconds += times * least
            if isinstance(chip, Tpu):
                # Kernels have no estimate by the compiler, so use the roofline.
                cycles = _CYCLES.search(line.attributes)
                scheduled += times * (
                    least if kernel else int(cycles[1]) / chip.clock_hz if cycles else 0.0
                )
    return OpCosts(
        flops, moved, seconds if chip else None, scheduled if isinstance(chip, Tpu) else None
    )


def instruction_flops(
    program: Program, computation: Computation, instruction: Instruction
) -> float:
    """Return the FLOPs of one run of an instruction; a fusion includes its inner instructions."""
    if instruction.opcode == "fusion":
        inside = (program.computations[name] for name in instruction.callees)
        return sum(
            instruction_flops(program, body, part) for body in inside for part in body.values()
        )
    if instruction.opcode == "dot":
        left = computation[instruction.operands[0]].shapes[0]
        axes = re.search(r"lhs_contracting_dims=\{([\d,]*)\}", instruction.attributes)[1]
        summed = (int(n) for n in axes.split(",") if n)
        return 2.0 * math.prod(instruction.shapes[0].dims) * math.prod(left.dims[n] for n in summed)
    if instruction.opcode == "convolution":
        return _convolution_flops(computation, instruction)
    if instruction.opcode == "custom-call":
        return _kernel_flops(computation, instruction)
    return 0.0


def instruction_bytes(
    program: Program, computation: Computation, instruction: Instruction
) -> float:
    """Return the bytes that one run of an instruction reads from and writes to HBM."""
    if instruction.opcode in ZERO_COST_OPCODES or instruction.opcode.endswith("-done"):
        return 0.0
    if instruction.opcode == "fusion":
        return _fusion_bytes(program, instruction)
    operands = [computation[name].shapes for name in instruction.operands if name in computation]
    if instruction.opcode in SLICE_OPCODES:
        return 2 * sum(map(_hbm_bytes, instruction.shapes))
    if instruction.opcode == "dynamic-update-slice":
        return 2 * sum(map(_hbm_bytes, operands[1]))
    if instruction.opcode == "slice-start":  # (operand, slice, ...)
        return 2 * instruction.shapes[1].bytes
    if instruction.opcode.endswith("-start"):
        # A copy or a collective: (operand, result, ...). A combined collective has several of each.
        return sum(map(_hbm_bytes, instruction.shapes[: 2 * max(1, len(operands))]))
    return sum(_hbm_bytes(shape) for shapes in (*operands, instruction.shapes) for shape in shapes)


def _kernel_flops(computation: Computation, instruction: Instruction) -> float:
    """Return the FLOPs of a kernel: 2 x rows x heads x queries x keys x width per product."""
    target = re.search(r'custom_call_target="([^"]*)"', instruction.attributes)
    platform = KERNEL_TARGETS.get(target[1] if target else "")
    if platform == "tpu":
        table, label, length_axis = KERNEL_MATMULS, instruction.name, 2
    elif platform == "gpu":
        table, label, length_axis = GPU_KERNEL_MATMULS, instruction.path, 1
    else:
        return 0.0
    products = next((n for name, n in table.items() if name in label), 0)
    if not products:
        return 0.0
    arrays = [computation[name].shapes[0] for name in instruction.operands]
    query, key, *_ = (shape.dims for shape in arrays if len(shape.dims) == 4)
    return products * 2.0 * math.prod(query) * key[length_axis]


def _fusion_bytes(program: Program, fusion: Instruction) -> float:
    """Return the bytes that a fusion reads from its operands and writes to its results."""
    body = program.computations[fusion.callees[0]]
    read = sum(
        _bytes_read(program, body, line) for line in body.values() if line.opcode == "parameter"
    )
    root = hlo.root_instruction(body)
    parts = [body[name] for name in root.operands] if root.opcode == "tuple" else [root]
    written = zip(parts, fusion.shapes, strict=False)
    return read + sum(
        _bytes_written(program, body, line) for line, shape in written if shape.in_hbm
    )


def _bytes_read(program: Program, body: Computation, instruction: Instruction) -> float:
    """Return the bytes of a value that a computation reads: the whole value, or only slices."""
    if not instruction.shapes or not instruction.shapes[0].in_hbm:
        return 0.0
    whole, total = sum(map(_hbm_bytes, instruction.shapes)), 0.0
    for use in (user for user in body.values() if instruction.name in user.operands):
        first = use.operands[0] == instruction.name
        if use.opcode == "bitcast":
            total += _bytes_read(program, body, use)
        elif use.opcode in SLICE_OPCODES and first:
            total += use.shapes[0].bytes
        elif use.opcode == "fusion":
            inner = program.computations[use.callees[0]]
            total += sum(
                _bytes_read(program, inner, parameter)
                for parameter in inner.values()
                if parameter.opcode == "parameter"
                and use.operands[int(parameter.operands[0])] == instruction.name
            )
        elif not (use.opcode == "dynamic-update-slice" and first):
            return whole
    return min(total, whole)


def _bytes_written(program: Program, body: Computation, instruction: Instruction) -> float:
    """Return the bytes written for a result: the whole result, or only an in-place update."""
    if instruction.opcode == "bitcast" and instruction.operands[0] in body:
        return _bytes_written(program, body, body[instruction.operands[0]])
    if instruction.opcode == "dynamic-update-slice":
        return body[instruction.operands[1]].shapes[0].bytes
    if instruction.opcode == "fusion":
        inner = program.computations[instruction.callees[0]]
        root = hlo.root_instruction(inner)
        if root.opcode != "tuple":
            return _bytes_written(program, inner, root)
    return sum(shape.bytes for shape in instruction.shapes)


def _convolution_flops(computation: Computation, instruction: Instruction) -> float:
    """Return the FLOPs: 2 x batch x output features x input features x valid window positions."""
    left, right = (computation[name].shapes[0].dims for name in instruction.operands[:2])
    labels = re.search(r"dim_labels=(\w+)_(\w+)->(\w+)", instruction.attributes)
    ins, kernel, outs = labels.groups()
    out = instruction.shapes[0].dims
    total = 2.0 * out[outs.index("b")] * out[outs.index("f")] * right[kernel.index("i")]
    spatial = sorted(set(outs) - {"b", "f"})
    window = dict(
        re.findall(
            r"(\w+)=([\d_x\-]+)", re.search(r"window=\{([^}]*)\}|$", instruction.attributes)[0]
        )
    )
    for n, label in enumerate(spatial):
        total *= _count_window_products(
            kernel_size=right[kernel.index(label)],
            input_size=left[ins.index(label)],
            output_size=out[outs.index(label)],
            **{
                name: int(window[name].split("x")[n]) if name in window else 1
                for name in WINDOW_STRIDE_KEYS
            },
            padding_before=int(window["pad"].split("x")[n].split("_")[0]) if "pad" in window else 0,
        )
    return total


def _count_window_products(
    *,
    kernel_size: int,
    input_size: int,
    output_size: int,
    stride: int,
    lhs_dilate: int,
    rhs_dilate: int,
    padding_before: int,
) -> int:
    """Count, along one axis, the pairs (output, window position) that fall on an input element."""
    place = (
        np.arange(output_size)[:, None] * stride
        + np.arange(kernel_size)[None] * rhs_dilate
        - padding_before
    )
    inside = (place >= 0) & (place <= (input_size - 1) * lhs_dilate)
    return int(np.sum(inside & (place % lhs_dilate == 0)))


def _hbm_bytes(shape: Shape) -> float:
    return shape.bytes if shape.in_hbm else 0.0
