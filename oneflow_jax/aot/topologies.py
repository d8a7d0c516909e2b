"""TPU slices and GPU nodes to compile for. Slices have the names that they have in Google Cloud.

    v4-64      32 chips: for v4 and v5p the number counts TensorCores, two per chip
    v5e-64     64 chips: for v5e and v6e the number counts chips
    2xv4-128   two slices of 64 chips each, connected by the data center network
    h100-8     one node of 8 GPUs, connected by NVLink
    2xh100-8   two such nodes, connected by the data center network
    host       the devices of this machine; the report then has no roofline

The shapes of slices are those in Google Cloud's documentation (docs.cloud.google.com/tpu/docs/v4
and the pages of the other generations). Where several shapes have the same number of chips, the
table has Google Cloud's default shape.
"""

import dataclasses
import importlib.util
import os
import pathlib
import re

import jax
from jax.experimental import topologies

from oneflow_jax.aot import gpu_targets
from oneflow_jax.costs import chips
from oneflow_jax.errors import UserError
from oneflow_jax.runtime import gpu

HOST = "host"

_SHAPES_3D = ("2x2x1", "2x2x2", "2x2x4", "2x4x4", "4x4x4", "4x4x8", "4x8x8", "8x8x8", "8x8x16",
          "8x16x16")  # fmt: skip
_SHAPES_2D = ("1x1", "2x2", "2x4", "4x4", "4x8", "8x8", "8x16", "16x16")

SLICE_SHAPES = {"v4": _SHAPES_3D, "v5p": _SHAPES_3D, "v5e": _SHAPES_2D, "v6e": _SHAPES_2D}
"""Shapes of slices by generation, from the smallest slice to the largest."""

CORES_PER_CHIP = {"v4": 2, "v5p": 2, "v5e": 1, "v6e": 1}
"""What one chip adds to the number in a slice's name: v4-8 has 4 chips, and v5e-8 has 8."""


@dataclasses.dataclass(frozen=True)
class Topology:
    """Devices to compile for.

    Attributes:
        name: name as given by the user.
        generation: kind of the chips, as in `costs.chips`; "" for the host's devices.
        shape: chips of one slice along each dimension, or (number of GPUs of one node,); () for the
            host's devices.
        num_slices: number of slices, or of nodes.
    """

    name: str
    generation: str = ""
    shape: tuple[int, ...] = ()
    num_slices: int = 1

    @property
    def chip(self) -> chips.Chip | None:
        """Type of the chips; None for the host's devices."""
        return chips.CHIPS.get(self.generation)

    @property
    def memory_limit(self) -> float | None:
        """Bytes of each chip that a program may use; None for the host's devices."""
        if isinstance(self.chip, chips.Gpu):
            return gpu.MEMORY_FRACTION * self.chip.hbm_bytes
        return self.chip.hbm_bytes if self.chip else None

    def devices(self) -> list[jax.Device]:
        """Return one device per chip; TPUs and GPUs are descriptions and need not exist.

        Raises:
            UserError: the compiler for these devices is not installed.
        """
        if not self.generation:
            return jax.devices()
        if isinstance(self.chip, chips.Gpu):
            return gpu_targets.make_devices(self.generation, *self.shape, self.num_slices)
        return self._tpu_devices()

    def _tpu_devices(self) -> list[jax.Device]:
        _configure_libtpu()
        # 3-D slices of 4 x 4 x 4 or more chips wrap around. 2-D slices wrap around only along sides
        # of 16 chips.
        flat = len(self.shape) == 2
        closed = not any(side % 4 for side in self.shape)
        wrap = (*(side == 16 for side in self.shape), False) if flat else (closed,) * 3
        settings = {
            "num_slices": self.num_slices,
            "chips_per_host_bounds": (*(min(side, 2) for side in self.shape[:2]), 1),
            "wrap": wrap,
        }
        if CORES_PER_CHIP[self.generation] > 1:
            settings["chip_config_name"] = "megacore"  # Both TensorCores form one device.
        shape = "x".join(map(str, self.shape))
        described = topologies.get_topology_desc(
            f"{self.generation}:{shape}", platform="tpu", **settings
        )
        return list(described.devices)


def _single_slice_topologies() -> dict[str, Topology]:
    known = {}
    for generation, shapes in SLICE_SHAPES.items():
        for shape in shapes:
            sides = tuple(map(int, shape.split("x")))
            count = CORES_PER_CHIP[generation]
            for side in sides:
                count *= side
            name = f"{generation}-{count}"
            known[name] = Topology(name, generation, sides)
    for model in gpu_targets.TARGETS:
        for count in gpu_targets.GPUS_PER_NODE:
            known[f"{model}-{count}"] = Topology(f"{model}-{count}", model, (count,))
    return known


TOPOLOGIES = _single_slice_topologies()
"""All topologies of a single slice or node, by name."""


def parse_topology(name: str) -> Topology:
    """Return the topology with the given name, for example "v4-64", "2xh100-8" or "host".

    Raises:
        UserError: the name is unknown; the message lists the known names.
    """
    if name == HOST:
        return Topology(HOST)
    match = re.fullmatch(r"(?:([1-9]\d*)x)?([a-z].*)", name)
    if not match or match[2] not in TOPOLOGIES:
        listed = "; ".join(
            ", ".join(known for known in TOPOLOGIES if known.startswith(f"{generation}-"))
            for generation in SLICE_SHAPES
        )
        raise UserError(
            f"--topology={name!r}: unknown. Give one of {listed}; several slices, e.g. 2xv4-128; "
            f"MODEL-N for a node of N={'|'.join(map(str, gpu_targets.GPUS_PER_NODE))} GPUs, e.g. "
            f"h100-8 or, for two nodes, 2xh100-8, where MODEL is {', '.join(gpu_targets.TARGETS)}; "
            f"or {HOST!r} for the devices of this machine."
        )
    num_slices = int(match[1] or 1)
    topology = dataclasses.replace(TOPOLOGIES[match[2]], name=name, num_slices=num_slices)
    if num_slices > 1 and not topology.chip.dcn_bandwidth:
        raise UserError(
            f"--topology={name!r}: costs/chips.py has no network for this GPU. Give a single node: "
            f"{match[2]}."
        )
    return topology


def force_cpu_backend() -> None:
    """Select JAX's CPU backend, so that no accelerator is used; call it before JAX initializes."""
    jax.config.update("jax_platforms", "cpu")


def _configure_libtpu() -> None:
    """Configure libtpu for a machine without TPUs, before libtpu is loaded.

    Raises:
        UserError: libtpu is not installed.
    """
    package = importlib.util.find_spec("libtpu")
    if package is None:
        raise UserError(
            "--mode=aot for TPUs needs the TPU compiler, which is not installed. Run pip install "
            f"-r requirements-aot.txt (no TPU needed), or give --topology={HOST}."
        )
    library = pathlib.Path(package.submodule_search_locations[0], "libtpu.so")
    os.environ.setdefault("TPU_LIBRARY_PATH", str(library))
    os.environ.setdefault("TPU_SKIP_MDS_QUERY", "1")
    os.environ.setdefault(
        "ALLOW_MULTIPLE_LIBTPU_LOAD", "1"
    )  # Compiling occupies no device, so several processes may do it.
    os.environ.setdefault("TPU_WORKER_HOSTNAMES", "localhost")
