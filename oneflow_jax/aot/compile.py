"""The programs of a run, compiled for devices that need not be here, on shapes alone."""

import contextlib
import dataclasses
import functools
import math
import pathlib
import re
import tempfile
from collections.abc import Iterator

import flax.linen as nn
import jax
import jax.numpy as jnp

from oneflow_jax import generate
from oneflow_jax.build import sampling as sampling_lib
from oneflow_jax.build import system as system_lib
from oneflow_jax.canvas import Canvas
from oneflow_jax.errors import UserError
from oneflow_jax.runtime import sharding
from oneflow_jax.shapes import PyTree
from oneflow_jax.training import loop, train_state

_FULL = re.compile(r"(Used|HLO temporaries \() ?([\d.]+)([KMG])")
"""In XLA's words that there is no room: all that a program needs, or its temporaries alone."""

_UNITS = {"K": 2**10, "M": 2**20, "G": 2**30}


@dataclasses.dataclass(frozen=True)
class Memory:
    """Bytes of each chip while a program runs.

    Attributes:
        categories: what they are for, by name.
        fits: whether the compiler found room for it. If not, all else but the arguments is one
            category.
    """

    categories: dict[str, float]
    fits: bool = True

    @property
    def total(self) -> float:
        """All categories together."""
        return sum(self.categories.values())


@dataclasses.dataclass(frozen=True)
class Compiled:
    """A program as the compiler made it.

    Attributes:
        memory: that it needs.
        text: of the optimized program; "" if there was no room for it.
    """

    memory: Memory
    text: str


def training(system: system_lib.System) -> Compiled:
    """The training step: its state is donated."""
    state = train_state.abstract(system)
    canvas = canvases(system, system.config.batch, system.placement)
    with _tracing(system.mesh, sharding.RULES):
        traced = loop.compiled(system).trace(state, canvas)
    arguments = {
        "parameters": state.params,
        "moments": state.opt_state,
        "average": state.ema,
        "batch": (canvas, state.step, state.key),
    }
    return _compiled(traced, system.mesh, arguments)


def sampling(system: system_lib.System, rows: int) -> Compiled:
    """The sampler, with averaged parameters, of rows that are all to be made."""
    config = system.config
    given = config.sampling.grid
    plan = sampling_lib.evaluation(
        config,
        system.paradigm,
        config.evaluation.passes[0],
        "uniform" if given == sampling_lib.LEARNED else given,
    )
    where = sharding.of_rows(system.mesh, sharding.SAMPLING)
    params, canvas = train_state.abstract(system).ema, canvases(system, rows, where)
    numbers = jax.ShapeDtypeStruct((rows,), jnp.int32, sharding=where)
    sample = jax.jit(functools.partial(generate.sampled, system), static_argnames="plan")
    seed = jax.ShapeDtypeStruct((), jnp.int32)
    with _tracing(system.mesh, sharding.SAMPLING):
        traced = sample.trace(params, canvas, numbers, seed, plan=plan)
    return _compiled(traced, system.mesh, {"parameters": params, "batch": (canvas, numbers)})


def canvases(system: system_lib.System, rows: int, where: jax.sharding.NamedSharding) -> Canvas:
    """The shapes of a batch that is laid out over the mesh as `where` says."""
    layout = system.layout

    def of(dtype: jnp.dtype, *more: int) -> jax.ShapeDtypeStruct:
        return jax.ShapeDtypeStruct((rows, layout.length, *more), dtype, sharding=where)

    return Canvas(
        ids=of(jnp.int32),
        latents=of(jnp.float32, layout.codec.channels),
        kind=of(jnp.int32),
        segment=of(jnp.int32),
        span=of(jnp.int32),
        position=of(jnp.int32, 3),
        fixed=of(jnp.bool_),
        opening=of(jnp.int32),
    )


def local_bytes(tree: PyTree) -> float:
    """Bytes of a tree of shapes on each chip, by its shardings; without padding."""
    return sum(
        math.prod(leaf.sharding.shard_shape(leaf.shape)) * leaf.dtype.itemsize
        for leaf in jax.tree.leaves(tree)
    )


@contextlib.contextmanager
def _tracing(mesh: jax.sharding.Mesh, rules: sharding.Rules) -> Iterator[None]:
    """`sharding.use` with devices that are only named: what tracing computes, this machine does."""
    with jax.sharding.use_abstract_mesh(mesh.abstract_mesh), nn.logical_axis_rules(rules):
        yield


def _compiled(
    traced: jax.stages.Traced, mesh: jax.sharding.Mesh, arguments: dict[str, PyTree]
) -> Compiled:
    categories = {name: local_bytes(tree) for name, tree in arguments.items()}
    platform = mesh.devices.flat[0].platform
    lowered = traced.lower(lowering_platforms=(platform,))
    with tempfile.TemporaryDirectory() as folder:
        dumped = {"xla_dump_to": folder, "xla_dump_hlo_as_text": True}
        try:
            compiled = lowered.compile(dumped if platform == "tpu" else None)
        except jax.errors.JaxRuntimeError as error:
            temporaries = without_room(str(error), sum(categories.values()))
            return Compiled(Memory(categories | {"temporaries": temporaries}, fits=False), "")
        text = _text(compiled, pathlib.Path(folder))
    told = compiled.memory_analysis()
    # Padding to tiles, and results that are no donated argument, are there beside them.
    padding = told.argument_size_in_bytes - sum(categories.values())
    categories |= {
        "temporaries": float(told.temp_size_in_bytes),
        "results": float(told.output_size_in_bytes - told.alias_size_in_bytes),
        "padding": max(padding, 0.0),
        "code": float(told.generated_code_size_in_bytes),
    }
    return Compiled(Memory(categories), text)


def without_room(told: str, arguments: float) -> float:
    """Bytes of temporaries of a program that XLA refuses for want of memory.

    Args:
        told: XLA's words.
        arguments: bytes of all else.

    Raises:
        UserError: it refuses the program for another reason.
    """
    used = _FULL.search(told)
    if "RESOURCE_EXHAUSTED" not in told or not used:
        raise UserError(f"XLA could not compile this: {told.splitlines()[0]}")
    needed = float(used[2]) * _UNITS[used[3]]
    return needed - arguments if used[1] == "Used" else needed


def _text(compiled: jax.stages.Compiled, folder: pathlib.Path) -> str:
    """The optimized program as the compiler for TPUs has written it, or else as JAX tells it.

    JAX 0.10 cannot read programs in which a v6e's sparse cores gather while others work.
    """
    # There may be small ones beside it, of what runs on other cores.
    written = [*folder.glob("*.after_codegen.txt")]
    if not written:
        return compiled.as_text()
    return max(written, key=lambda path: path.stat().st_size).read_text()
