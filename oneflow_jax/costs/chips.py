"""Peak rates and memory of TPU chips and GPUs.

The sources for TPUs are the pages "System architecture" in Google Cloud's documentation:

    v4   docs.cloud.google.com/tpu/docs/v4    275 TFLOP/s, 32 GiB, 1,200 GB/s
    v5e  docs.cloud.google.com/tpu/docs/v5e   197 TFLOP/s, 16 GB, 819 GB/s, 400 GB/s
    v5p  docs.cloud.google.com/tpu/docs/v5p   459 TFLOP/s, 95 GiB, 2,765 GB/s, 1,200 GB/s
    v6e  docs.cloud.google.com/tpu/docs/v6e   918 TFLOP/s, 32 GB, 1,638 GB/s, 800 GB/s

The columns are the bfloat16 peak, the capacity and bandwidth of the memory (HBM), and the
"bidirectional inter-chip interconnect (ICI) bandwidth per chip". The documentation does not give
the ICI bandwidth of v4. The value here comes from Google's book "How to Scale Your Model"
(jax-ml.github.io/scaling-book/tpus): 6 links of 45 GB/s in each direction. (For the other
generations, the book has values that are 10 % lower than in the documentation.)

The sources for GPUs are NVIDIA's data sheets of the A100, H100, H200, HGX B200, L4 and T4, and the
white papers "Ada GPU Architecture" (RTX 4090) and "RTX Blackwell GPU Architecture" (RTX 5090). The
peak is that of bfloat16 matrix products in the tensor cores with float32 sums, dense. Some data
sheets give the peak "with sparsity", which is twice as high: 1,979 TFLOP/s for the H100 SXM. The T4
computes no bfloat16 in its tensor cores, so its peak is that of float16. In a multi-node run a GPU
has the network adapters of NVIDIA's DGX servers: 200 Gbit/s per A100, and 400 Gbit/s per H100, H200
or B200. Other servers may have less.

`hbm_bytes` of a TPU is the memory that a program may use, which is less than the capacity. libtpu
0.0.42.1 calls it "available HBM" in the message that rejects programs that need more: 30.75 GiB on
v4, 15.75 GiB on v5e, 95.73 GiB on v5p and 31.24 GiB on v6e. `hbm_bytes` of a GPU is the memory that
the CUDA driver reports, of which JAX allocates a fraction (`runtime/gpu.py`). It comes from XLA's
descriptions of GPUs (openxla/xla, xla/backends/gpu/target_config/specs), and for the H200, RTX
4090, RTX 5090, L4 and T4 from out-of-memory messages of PyTorch in public issues.
"""

import abc
import dataclasses

GIB = 2**30


@dataclasses.dataclass(frozen=True)
class Chip(abc.ABC):
    """Peak rates and memory of one TPU chip or GPU.

    Attributes:
        peak_flops: peak of bfloat16 matrix products, in FLOP/s.
        hbm_bandwidth: bandwidth between the chip and its memory, in bytes/s.
        hbm_bytes: memory of the chip, in bytes.
    """

    peak_flops: float
    hbm_bandwidth: float
    hbm_bytes: float

    @property
    @abc.abstractmethod
    def ring_bandwidth(self) -> float:
        """Bytes/s that the chip sends over one ring of chips in its slice or node."""

    @property
    @abc.abstractmethod
    def dcn_bandwidth(self) -> float:
        """Bytes/s that the chip sends to other slices or nodes, over the data center's network."""


@dataclasses.dataclass(frozen=True)
class Tpu(Chip):
    """Peak rates and memory of one TPU chip.

    Attributes:
        ici_bandwidth: bandwidth to other chips, summed over both directions and all links, in
            bytes/s.
        torus_dims: number of dimensions of the torus of chips; a chip has two links per dimension.
        clock_hz: clock rate in Hz: the peak divided by 2 FLOPs per cell of the matrix units. v4 and
            v5p have 8 units of 128 x 128 cells, v5e has 4 such units, and v6e has 4 units of 256 x
            256 cells.
    """

    ici_bandwidth: float
    torus_dims: int
    clock_hz: float

    @property
    def ring_bandwidth(self) -> float:
        """Bytes/s in one direction of one dimension of the torus."""
        return self.ici_bandwidth / self.torus_dims / 2

    @property
    def dcn_bandwidth(self) -> float:
        """Bytes/s to other slices: 25 GB/s per v4 host, shared by its 4 chips.

        Source: "How to Scale Your Model", jax-ml.github.io/scaling-book/tpus.
        """
        return 6.25e9


@dataclasses.dataclass(frozen=True)
class Gpu(Chip):
    """Peak rates and memory of one GPU.

    Attributes:
        link_bandwidth: bandwidth to the other GPUs of a node, summed over both directions, in
            bytes/s: NVLink, or PCIe for GPUs without NVLink.
        network_bandwidth: bandwidth of the GPU's network adapter in one direction, in bytes/s; 0
            for GPUs of workstations.
    """

    link_bandwidth: float
    network_bandwidth: float = 0.0

    @property
    def ring_bandwidth(self) -> float:
        """Bytes/s to the other GPUs of the node: all links of a GPU can serve one ring."""
        return self.link_bandwidth / 2

    @property
    def dcn_bandwidth(self) -> float:
        """Bytes/s to the GPUs of other nodes."""
        return self.network_bandwidth


CHIPS: dict[str, Chip] = {
    "v4": Tpu(275e12, 1_200e9, 30.75 * GIB, 540e9, torus_dims=3, clock_hz=1.05e9),
    "v5e": Tpu(197e12, 819e9, 15.75 * GIB, 400e9, torus_dims=2, clock_hz=1.5e9),
    "v5p": Tpu(459e12, 2_765e9, 95.73 * GIB, 1_200e9, torus_dims=3, clock_hz=1.75e9),
    "v6e": Tpu(918e12, 1_638e9, 31.24 * GIB, 800e9, torus_dims=2, clock_hz=1.75e9),
    "a100": Gpu(312e12, 2_039e9, 79.26 * GIB, 600e9, 25e9),
    "a100-40gb": Gpu(312e12, 1_555e9, 39.39 * GIB, 600e9, 25e9),
    "a100-pcie": Gpu(312e12, 1_935e9, 79.26 * GIB, 64e9),
    "a100-pcie-40gb": Gpu(312e12, 1_555e9, 39.39 * GIB, 64e9),
    "h100": Gpu(989.4e12, 3_352e9, 79.11 * GIB, 900e9, 50e9),
    "h100-pcie": Gpu(756e12, 2_039e9, 79.11 * GIB, 128e9),
    "h200": Gpu(989.4e12, 4_800e9, 139.8 * GIB, 900e9, 50e9),
    "b200": Gpu(2_250e12, 8_000e9, 178.36 * GIB, 1_800e9, 50e9),
    "rtx4090": Gpu(165.2e12, 1_008e9, 23.6 * GIB, 64e9),
    "rtx5090": Gpu(209.5e12, 1_792e9, 31.36 * GIB, 128e9),
    "l4": Gpu(121e12, 300e9, 22.0 * GIB, 64e9),
    "t4": Gpu(65e12, 320e9, 14.56 * GIB, 32e9),
}
"""Chips by name: the generation of a TPU, or the model of a GPU (SXM where nothing is said)."""

DEVICE_KINDS = {
    "TPU v4": "v4",
    "TPU v5 lite": "v5e",
    "TPU v5e": "v5e",
    "TPU v5": "v5p",
    "TPU v5p": "v5p",
    "TPU v6 lite": "v6e",
    "TPU v6e": "v6e",
    "NVIDIA A100-SXM4-80GB": "a100",
    "NVIDIA A100-SXM4-40GB": "a100-40gb",
    "NVIDIA A100 80GB PCIe": "a100-pcie",
    "NVIDIA A100-PCIE-40GB": "a100-pcie-40gb",
    "NVIDIA H100 80GB HBM3": "h100",
    "NVIDIA H100 PCIe": "h100-pcie",
    "NVIDIA H200": "h200",
    "NVIDIA B200": "b200",
    "NVIDIA GeForce RTX 4090": "rtx4090",
    "NVIDIA GeForce RTX 5090": "rtx5090",
    "NVIDIA L4": "l4",
    "Tesla T4": "t4",
}
"""Key of `CHIPS` for each `jax.Device.device_kind`.

For a GPU, the kind is the name that the CUDA driver reports and `nvidia-smi` shows. A part of a GPU
(MIG) has another name, so its peak is unknown.
"""
