"""Estimates of step time and MFU from the instructions and collectives of a program.

The roofline estimate assumes that nothing overlaps. Each instruction takes the longer of two times:
its matrix products at the chip's peak, and its bytes at HBM bandwidth. Then all collectives run,
none of them hidden behind compute. The estimate is pessimistic about overlap, since XLA runs many
collectives concurrently, and optimistic about the instructions. A second estimate takes the time of
the instructions from the TPU compiler's cycle counts, which account for vector units and tiles. The
second estimate is usually the slower one.

A TPU chip can send along one ring in each torus dimension that a group of chips spans. The
estimates assume a single ring: a chip sends `Chip.ring_bandwidth` bytes/s. Between slices of TPUs,
or between nodes of GPUs, a chip sends `Chip.dcn_bandwidth` bytes/s.
"""

import dataclasses
from collections.abc import Sequence

from oneflow_jax.aot.collectives import Collective
from oneflow_jax.aot.op_costs import OpCosts
from oneflow_jax.costs.chips import Chip


@dataclasses.dataclass(frozen=True)
class StepEstimate:
    """Estimated time and MFU of one step.

    Attributes:
        compute_s, comm_s: roofline seconds of compute and of communication.
        compiler_s: seconds of compute by the compiler's cycle estimates; None for GPUs, whose
            compiler gives none.
        mfu: model FLOPs utilization by roofline: FLOPs of a step, without recomputation, divided by
            the FLOPs that all chips could do at their peak in the time of a step.
        compiler_mfu: MFU with `compiler_s` instead of `compute_s`; None for GPUs.
    """

    compute_s: float
    comm_s: float
    compiler_s: float | None
    mfu: float
    compiler_mfu: float | None

    @property
    def step_s(self) -> float:
        """Roofline seconds of a step: compute plus communication, without overlap."""
        return self.compute_s + self.comm_s


def estimate(
    op_costs: OpCosts,
    collectives: Sequence[Collective],
    chip: Chip,
    num_chips: int,
    model_flops: float,
) -> StepEstimate:
    """Estimate the time and MFU of a step.

    Args:
        op_costs: work of one chip.
        collectives: collectives of the program.
        chip: type of the chips.
        num_chips: number of chips in all slices or nodes.
        model_flops: FLOPs of a step on the whole batch, as in `costs.flops.train`.
    """
    sending = sum(one.bytes / link_bandwidth(one, chip) for one in collectives)
    ideal = model_flops / num_chips / chip.peak_flops
    scheduled = op_costs.compiler_s
    return StepEstimate(
        compute_s=op_costs.roofline_s,
        comm_s=sending,
        compiler_s=scheduled,
        mfu=ideal / (op_costs.roofline_s + sending),
        compiler_mfu=None if scheduled is None else ideal / (scheduled + sending),
    )


def link_bandwidth(collective: Collective, chip: Chip) -> float:
    """Return the bytes/s at which a chip sends its part of a collective."""
    return chip.dcn_bandwidth if collective.num_slices > 1 else chip.ring_bandwidth
