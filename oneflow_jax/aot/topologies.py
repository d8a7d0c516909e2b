"""TPU slices by the names that Google Cloud rents them by, as devices to compile for.

    v4-64      32 chips: of v4 and v5p the number counts TensorCores, two to a chip
    v5e-64     64 chips: of v5e and v6e it counts chips
    2xv4-128   two slices of 64 chips each, joined by the data center's network
    host       the devices of this machine, whatever they are: the same figures without a roofline

Shapes of slices are those of Google Cloud's documentation (docs.cloud.google.com/tpu/docs/v4 and
the like); where several shapes have equally many chips, the one that is the default there.
"""

import dataclasses
import importlib.util
import os
import pathlib
import re

import jax
from jax.experimental import topologies

from oneflow_jax.costs import chips
from oneflow_jax.errors import UserError

HOST = "host"

_SHAPES_3D = ("2x2x1", "2x2x2", "2x2x4", "2x4x4", "4x4x4", "4x4x8", "4x8x8", "8x8x8", "8x8x16",
          "8x16x16")  # fmt: skip
_SHAPES_2D = ("1x1", "2x2", "2x4", "4x4", "4x8", "8x8", "8x16", "16x16")

SLICE_SHAPES = {"v4": _SHAPES_3D, "v5p": _SHAPES_3D, "v5e": _SHAPES_2D, "v6e": _SHAPES_2D}
"""By generation, from the smallest slice to the largest."""

CORES_PER_CHIP = {"v4": 2, "v5p": 2, "v5e": 1, "v6e": 1}
"""What the number in a slice's name counts of each chip."""


@dataclasses.dataclass(frozen=True)
class Topology:
    """Devices to compile for.

    Attributes:
        name: as given.
        generation: of the chips, as in `costs.chips`; "" of the host's devices.
        shape: chips of one slice along each dimension; () of the host's devices.
        slices: how many.
    """

    name: str
    generation: str = ""
    shape: tuple[int, ...] = ()
    slices: int = 1

    @property
    def chip(self) -> chips.Chip | None:
        """What one chip can do; None of the host's devices."""
        return chips.CHIPS.get(self.generation)

    def devices(self) -> list[jax.Device]:
        """As many devices as there are chips: described, not there.

        Raises:
            UserError: the compiler is not installed.
        """
        if not self.generation:
            return jax.devices()
        _configure_libtpu()
        # Rings are closed from 4 x 4 x 4 on; of flat slices along sides of 16.
        flat = len(self.shape) == 2
        closed = not any(side % 4 for side in self.shape)
        wrap = (*(side == 16 for side in self.shape), False) if flat else (closed,) * 3
        settings = {
            "num_slices": self.slices,
            "chips_per_host_bounds": (*(min(side, 2) for side in self.shape[:2]), 1),
            "wrap": wrap,
        }
        if CORES_PER_CHIP[self.generation] > 1:
            settings["chip_config_name"] = "megacore"  # Both TensorCores as one device.
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
    return known


TOPOLOGIES = _single_slice_topologies()
"""All single slices."""


def parse_topology(name: str) -> Topology:
    """The topology of that name.

    Raises:
        UserError: there is none; the message lists what there is.
    """
    if name == HOST:
        return Topology(HOST)
    found = re.fullmatch(r"(?:([1-9]\d*)x)?(v\d\w*-\d+)", name)
    if not found or found[2] not in TOPOLOGIES:
        listed = "; ".join(
            ", ".join(known for known in TOPOLOGIES if known.startswith(f"{generation}-"))
            for generation in SLICE_SHAPES
        )
        raise UserError(
            f"--topology={name!r} is none of {listed}; several slices are written 2xv4-128, the "
            f"devices of this machine {HOST!r}."
        )
    return dataclasses.replace(TOPOLOGIES[found[2]], name=name, slices=int(found[1] or 1))


def force_cpu_backend() -> None:
    """Call before anything of JAX runs: this process describes TPUs, but starts none."""
    jax.config.update("jax_platforms", "cpu")


def _configure_libtpu() -> None:
    """Tells libtpu that it is on no TPU machine; it reads this when it is loaded.

    Raises:
        UserError: it is not installed.
    """
    package = importlib.util.find_spec("libtpu")
    if package is None:
        raise UserError(
            "--mode=compile for TPUs needs their compiler, which is not installed: pip install -r "
            f"requirements-aot.txt (no TPU needed), or give --topology={HOST}."
        )
    library = pathlib.Path(package.submodule_search_locations[0], "libtpu.so")
    os.environ.setdefault("TPU_LIBRARY_PATH", str(library))
    os.environ.setdefault("TPU_SKIP_MDS_QUERY", "1")
    os.environ.setdefault("ALLOW_MULTIPLE_LIBTPU_LOAD", "1")  # No device is held.
    os.environ.setdefault("TPU_WORKER_HOSTNAMES", "localhost")
