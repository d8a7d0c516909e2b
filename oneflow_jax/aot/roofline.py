"""Seconds that a step takes at least, from what its program does and sends.

A step is taken to do one thing after another: each instruction for as long as its matrix products
take at the chip's peak or its bytes take to and from HBM, whichever is longer; then all
collectives, none of them hidden behind computing. That is pessimistic about overlap, for XLA runs
many of them meanwhile, and optimistic about the instructions themselves. The second estimate takes
these from the compiler, which counts cycles of each one, vector units and tiles included; it is
the slower of the two as a rule.

A chip sends along one ring of each of its torus' dimensions that a group of chips spans; here it is
taken to send along a single one, in both directions: `interconnect / axes / 2`. Between slices go
`DCN_BYTES_PER_S` bytes/s from each chip.
"""

import dataclasses
from collections.abc import Sequence

from oneflow_jax.aot.collectives import Collective
from oneflow_jax.aot.op_costs import OpCosts
from oneflow_jax.costs.chips import Chip

DCN_BYTES_PER_S = 6.25e9
"""Bytes/s that a chip sends to another slice: 25 GB/s of a host of v4, for its 4 chips ("How to
Scale Your Model", jax-ml.github.io/scaling-book/tpus)."""


@dataclasses.dataclass(frozen=True)
class StepEstimate:
    """Of one step.

    Attributes:
        computing, sending: seconds.
        scheduled: seconds of computing by the compiler's own count.
        mfu: FLOPs of the model, recomputation not counted, over what all chips could do meanwhile.
        scheduled_mfu: the same with `scheduled`.
    """

    computing: float
    sending: float
    scheduled: float
    mfu: float
    scheduled_mfu: float

    @property
    def seconds(self) -> float:
        """One after the other."""
        return self.computing + self.sending


def estimate(
    op_costs: OpCosts,
    collectives: Sequence[Collective],
    chip: Chip,
    num_chips: int,
    model_flops: float,
) -> StepEstimate:
    """How long a step takes.

    Args:
        op_costs: of one chip.
        collectives: collectives of one chip.
        chip: what it can do.
        num_chips: in all slices.
        model_flops: of the whole batch, `costs.flops.train`.
    """
    sending = sum(one.bytes / link_bandwidth(one, chip) for one in collectives)
    ideal = model_flops / num_chips / chip.peak
    return StepEstimate(
        computing=op_costs.seconds,
        sending=sending,
        scheduled=op_costs.scheduled,
        mfu=ideal / (op_costs.seconds + sending),
        scheduled_mfu=ideal / (op_costs.scheduled + sending),
    )


def link_bandwidth(collective: Collective, chip: Chip) -> float:
    """Bytes/s at which a chip sends its part of a collective."""
    return DCN_BYTES_PER_S if collective.slices > 1 else chip.interconnect / chip.axes / 2
