"""GPUs as XLA's CUDA compiler describes them, for compilation on a machine without a GPU.

The CUDA plugin of JAX compiles for a GPU that it knows by a description: the number of streaming
multiprocessors, the sizes of their memories, and so on. On a machine with a GPU, the plugin asks
the CUDA driver. Here the values come from XLA's descriptions of the A100, H100, H200 and B200
(openxla/xla, xla/backends/gpu/target_config/specs). For the other GPUs, they come from NVIDIA's
CUDA C++ Programming Guide ("Technical Specifications per Compute Capability") and from its white
papers on the Turing, Ada and Blackwell architectures.
"""

import dataclasses

import jax
from jax.experimental import topologies

from oneflow_jax.costs import chips
from oneflow_jax.errors import UserError
from oneflow_jax.runtime import gpu

GPUS_PER_NODE = (1, 2, 4, 8)
"""Numbers of GPUs that a node may have."""


@dataclasses.dataclass(frozen=True)
class Target:
    """Properties of a GPU that the compiler depends on.

    Attributes:
        capability: compute capability, for example (9, 0).
        num_cores: number of streaming multiprocessors (SMs).
        fpus_per_core: number of float32 units of an SM.
        threads_per_core: maximum number of threads of an SM.
        core_memory: shared memory of an SM, in bytes.
        block_memory: shared memory that one block of threads may use, in bytes.
        l2_bytes: size of the L2 cache.
        clock_ghz: clock rate.
    """

    capability: tuple[int, int]
    num_cores: int
    fpus_per_core: int
    threads_per_core: int
    core_memory: int
    block_memory: int
    l2_bytes: int
    clock_ghz: float


def _kib(number: int) -> int:
    return number * 1024


_A100 = Target((8, 0), 108, 64, 2048, _kib(164), _kib(163), _kib(40_960), 1.41)
_H100 = Target((9, 0), 132, 128, 2048, _kib(228), _kib(227), _kib(51_200), 1.98)

TARGETS = {
    "a100": _A100,
    "a100-40gb": _A100,
    "h100": _H100,
    "h100-pcie": dataclasses.replace(_H100, num_cores=114, clock_ghz=1.755),
    "h200": _H100,
    "b200": Target((10, 0), 148, 128, 2048, _kib(228), _kib(227), _kib(129_536), 1.965),
    "rtx4090": Target((8, 9), 128, 128, 1536, _kib(100), _kib(99), _kib(73_728), 2.52),
    "rtx5090": Target((12, 0), 170, 128, 1536, _kib(100), _kib(99), _kib(98_304), 2.407),
    "l4": Target((8, 9), 58, 128, 1536, _kib(100), _kib(99), _kib(49_152), 2.04),
    "t4": Target((7, 5), 40, 64, 1024, _kib(64), _kib(64), _kib(4_096), 1.59),
}
"""GPUs that programs can be compiled for, by their key in `chips.CHIPS`."""


def check_compiler() -> None:
    """Check that the compiler for NVIDIA GPUs is installed.

    Raises:
        UserError: the compiler is missing.
    """
    if not gpu.has_plugin():
        raise UserError(
            "--mode=aot for GPUs needs JAX's CUDA plugin, which is not installed. Run pip install "
            "-r requirements-aot-gpu.txt (no GPU needed), or give --topology=host."
        )


def make_devices(name: str, gpus_per_node: int, num_nodes: int) -> list[jax.Device]:
    """Return descriptions of the GPUs of some nodes, which need not exist.

    Args:
        name: key of `TARGETS`.
        gpus_per_node: number of GPUs of a node.
        num_nodes: number of nodes.

    Raises:
        UserError: the compiler is not installed.
    """
    check_compiler()
    # The plugin names a shape by slices, nodes of a slice, and GPUs of a node.
    shape = f"{num_nodes}x1x{gpus_per_node}"
    described = topologies.get_topology_desc(
        shape, platform="cuda", topology=shape, target_config=format_target(name)
    )
    return list(described.devices)


def format_target(name: str) -> str:
    """Return the description of a GPU in the text format of XLA's `GpuTargetConfigProto`."""
    target, chip = TARGETS[name], chips.CHIPS[name]
    kind = next(kind for kind, key in chips.DEVICE_KINDS.items() if key == name)
    major, minor = target.capability
    return f"""
gpu_device_info {{
  threads_per_block_limit: 1024
  threads_per_warp: 32
  shared_memory_per_block: {_kib(48)}
  shared_memory_per_core: {target.core_memory}
  shared_memory_per_block_optin: {target.block_memory}
  threads_per_core_limit: {target.threads_per_core}
  core_count: {target.num_cores}
  fpus_per_core: {target.fpus_per_core}
  block_dim_limit_x: {2**31 - 1}
  block_dim_limit_y: {2**16 - 1}
  block_dim_limit_z: {2**16 - 1}
  thread_dim_limit_x: 1024
  thread_dim_limit_y: 1024
  thread_dim_limit_z: 64
  registers_per_core_limit: {2**16}
  registers_per_block_limit: {2**16}
  memory_bandwidth: {chip.hbm_bandwidth:.0f}
  device_memory_size: {chip.hbm_bytes:.0f}
  l2_cache_size: {target.l2_bytes}
  clock_rate_ghz: {target.clock_ghz}
  cuda_compute_capability {{ major: {major} minor: {minor} }}
}}
platform_name: "CUDA"
dnn_version_info {{ major: 9 minor: 10 }}
device_description_str: "{kind}"
"""
