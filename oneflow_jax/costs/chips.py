"""Peak rates and memory of one chip of each TPU generation.

The sources are the pages "System architecture" in Google Cloud's documentation:

    v4   docs.cloud.google.com/tpu/docs/v4    275 TFLOP/s, 32 GiB, 1,200 GB/s
    v5e  docs.cloud.google.com/tpu/docs/v5e   197 TFLOP/s, 16 GB, 819 GB/s, 400 GB/s
    v5p  docs.cloud.google.com/tpu/docs/v5p   459 TFLOP/s, 95 GiB, 2,765 GB/s, 1,200 GB/s
    v6e  docs.cloud.google.com/tpu/docs/v6e   918 TFLOP/s, 32 GB, 1,638 GB/s, 800 GB/s

The columns are the bfloat16 peak, the capacity and bandwidth of the memory (HBM), and the
"bidirectional inter-chip interconnect (ICI) bandwidth per chip". The documentation does not give
the ICI bandwidth of v4. The value here comes from Google's book "How to Scale Your Model"
(jax-ml.github.io/scaling-book/tpus): 6 links of 45 GB/s in each direction. (For the other
generations, the book has values that are 10 % lower than in the documentation.)

`hbm_bytes` is the memory that a program may use, which is less than the capacity. libtpu 0.0.42.1
calls it "available HBM" in the message that rejects programs that need more: 30.75 GiB on v4,
15.75 GiB on v5e, 95.73 GiB on v5p and 31.24 GiB on v6e.
"""

import dataclasses

GIB = 2**30


@dataclasses.dataclass(frozen=True)
class Chip:
    """Peak rates and memory of one chip.

    Attributes:
        peak_flops: peak of bfloat16 matrix products, in FLOP/s.
        hbm_bandwidth: bandwidth between the chip and its memory, in bytes/s.
        hbm_bytes: memory that one program may use, in bytes.
        ici_bandwidth: bandwidth to other chips, summed over both directions and all links, in
            bytes/s.
        torus_dims: number of dimensions of the torus of chips; a chip has two links per dimension.
        clock_hz: clock rate in Hz: the peak divided by 2 FLOPs per cell of the matrix units. v4 and
            v5p have 8 units of 128 x 128 cells, v5e has 4 such units, and v6e has 4 units of 256 x
            256 cells.
    """

    peak_flops: float
    hbm_bandwidth: float
    hbm_bytes: float
    ici_bandwidth: float
    torus_dims: int
    clock_hz: float


CHIPS = {
    "v4": Chip(275e12, 1_200e9, 30.75 * GIB, 540e9, torus_dims=3, clock_hz=1.05e9),
    "v5e": Chip(197e12, 819e9, 15.75 * GIB, 400e9, torus_dims=2, clock_hz=1.5e9),
    "v5p": Chip(459e12, 2_765e9, 95.73 * GIB, 1_200e9, torus_dims=3, clock_hz=1.75e9),
    "v6e": Chip(918e12, 1_638e9, 31.24 * GIB, 800e9, torus_dims=2, clock_hz=1.75e9),
}
"""Chips by the name of their generation."""

DEVICE_KINDS = {
    "TPU v4": "v4",
    "TPU v5 lite": "v5e",
    "TPU v5e": "v5e",
    "TPU v5": "v5p",
    "TPU v5p": "v5p",
    "TPU v6 lite": "v6e",
    "TPU v6e": "v6e",
}
"""Key of `CHIPS` for each `jax.Device.device_kind`."""
