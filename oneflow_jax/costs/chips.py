"""What one chip of each TPU can do at most.

Google Cloud's documentation, "System architecture" of each generation:

    v4   docs.cloud.google.com/tpu/docs/v4    275 TFLOP/s, 32 GiB, 1,200 GB/s
    v5e  docs.cloud.google.com/tpu/docs/v5e   197 TFLOP/s, 16 GB, 819 GB/s, 400 GB/s
    v5p  docs.cloud.google.com/tpu/docs/v5p   459 TFLOP/s, 95 GiB, 2,765 GB/s, 1,200 GB/s
    v6e  docs.cloud.google.com/tpu/docs/v6e   918 TFLOP/s, 32 GB, 1,638 GB/s, 800 GB/s

peak in bfloat16, capacity and bandwidth of the memory (HBM), and "bidirectional inter-chip
interconnect (ICI) bandwidth per chip". Of v4 that documentation gives no figure for the last; it
is from Google's "How to Scale Your Model" (jax-ml.github.io/scaling-book/tpus): 45 GB/s one way in
each of 6 links. (For the others that book has 10 % less than the documentation.)

Of the memory counts here what a program may use: "available HBM" in the message by which libtpu
0.0.42.1 refuses programs that need more, 30.75 GiB on v4, 15.75 on v5e, 95.73 on v5p, 31.24 on v6e.
"""

import dataclasses

GIB = 2**30


@dataclasses.dataclass(frozen=True)
class Chip:
    """Peaks of one chip.

    Attributes:
        peak: FLOP/s of matrix products in bfloat16.
        bandwidth: bytes/s between the chip and its memory.
        memory: bytes that one program may use.
        interconnect: bytes/s to and from other chips, both ways and all links added.
        axes: dimensions of the torus that the chips form; a chip has two links along each.
        clock: cycles/s: the peak over two FLOPs for each cell of its matrix units, 8 of 128 x 128
            on v4 and v5p, 4 on v5e, 4 of 256 x 256 on v6e.
    """

    peak: float
    bandwidth: float
    memory: float
    interconnect: float
    axes: int
    clock: float


CHIPS = {
    "v4": Chip(275e12, 1_200e9, 30.75 * GIB, 540e9, axes=3, clock=1.05e9),
    "v5e": Chip(197e12, 819e9, 15.75 * GIB, 400e9, axes=2, clock=1.5e9),
    "v5p": Chip(459e12, 2_765e9, 95.73 * GIB, 1_200e9, axes=3, clock=1.75e9),
    "v6e": Chip(918e12, 1_638e9, 31.24 * GIB, 800e9, axes=2, clock=1.75e9),
}
"""By the name of the generation."""

DEVICE_KINDS = {
    "TPU v4": "v4",
    "TPU v5 lite": "v5e",
    "TPU v5e": "v5e",
    "TPU v5": "v5p",
    "TPU v5p": "v5p",
    "TPU v6 lite": "v6e",
    "TPU v6e": "v6e",
}
"""What JAX calls them (`jax.Device.device_kind`) -> the name of the generation."""
