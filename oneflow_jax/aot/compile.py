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

_OOM_PATTERN = re.compile(r"(Used|HLO temporaries \() ?([\d.]+)([KMG])")
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
class CompiledProgram:
    """A program as the compiler made it.

    Attributes:
        memory: that it needs.
        text: of the optimized program; "" if there was no room for it.
    """

    memory: Memory
    text: str


def compile_train_step(system: system_lib.System) -> CompiledProgram:
    """The training step: its state is donated."""
    state = train_state.abstract_state(system)
    canvas = abstract_canvas(system, system.config.batch, system.placement)
    with _abstract_mesh_context(system.mesh, sharding.RULES):
        traced = loop.jit_train_step(system).trace(state, canvas)
    arguments = {
        "parameters": state.params,
        "moments": state.opt_state,
        "average": state.ema,
        "batch": (canvas, state.step, state.key),
    }
    return _compile(traced, system.mesh, arguments)


def compile_sampler(system: system_lib.System, rows: int) -> CompiledProgram:
    """The sampler, with averaged parameters, of rows that are all to be made."""
    config = system.config
    given = config.sampling.grid
    plan = sampling_lib.eval_plan(
        config,
        system.paradigm,
        config.evaluation.passes[0],
        "uniform" if given == sampling_lib.LEARNED_GRID else given,
    )
    where = sharding.row_sharding(system.mesh, sharding.SAMPLING_RULES)
    params, canvas = train_state.abstract_state(system).ema, abstract_canvas(system, rows, where)
    numbers = jax.ShapeDtypeStruct((rows,), jnp.int32, sharding=where)
    sample = jax.jit(functools.partial(generate.sample_batch, system), static_argnames="plan")
    seed = jax.ShapeDtypeStruct((), jnp.int32)
    with _abstract_mesh_context(system.mesh, sharding.SAMPLING_RULES):
        traced = sample.trace(params, canvas, numbers, seed, plan=plan)
    return _compile(traced, system.mesh, {"parameters": params, "batch": (canvas, numbers)})


def abstract_canvas(
    system: system_lib.System, rows: int, canvas_sharding: jax.sharding.NamedSharding
) -> Canvas:
    """The shapes of a batch that is laid out over the mesh as `canvas_sharding` says."""
    layout = system.layout

    def of(dtype: jnp.dtype, *more: int) -> jax.ShapeDtypeStruct:
        return jax.ShapeDtypeStruct((rows, layout.length, *more), dtype, sharding=canvas_sharding)

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


def bytes_per_device(tree: PyTree) -> float:
    """Bytes of a tree of shapes on each chip, by its shardings; without padding."""
    return sum(
        math.prod(leaf.sharding.shard_shape(leaf.shape)) * leaf.dtype.itemsize
        for leaf in jax.tree.leaves(tree)
    )


@contextlib.contextmanager
def _abstract_mesh_context(mesh: jax.sharding.Mesh, rules: sharding.Rules) -> Iterator[None]:
    """`sharding.use` with devices that are only named: what tracing computes, this machine does."""
    with jax.sharding.use_abstract_mesh(mesh.abstract_mesh), nn.logical_axis_rules(rules):
        yield


def _compile(
    traced: jax.stages.Traced, mesh: jax.sharding.Mesh, arguments: dict[str, PyTree]
) -> CompiledProgram:
    categories = {name: bytes_per_device(tree) for name, tree in arguments.items()}
    platform = mesh.devices.flat[0].platform
    lowered = traced.lower(lowering_platforms=(platform,))
    with tempfile.TemporaryDirectory() as folder:
        dumped = {"xla_dump_to": folder, "xla_dump_hlo_as_text": True}
        try:
            compiled = lowered.compile(dumped if platform == "tpu" else None)
        except jax.errors.JaxRuntimeError as error:
            temporaries = parse_oom_temporaries(str(error), sum(categories.values()))
            return CompiledProgram(
                Memory(categories | {"temporaries": temporaries}, fits=False), ""
            )
        text = _optimized_hlo(compiled, pathlib.Path(folder))
    told = compiled.memory_analysis()
    # Padding to tiles, and results that are no donated argument, are there beside them.
    padding = told.argument_size_in_bytes - sum(categories.values())
    categories |= {
        "temporaries": float(told.temp_size_in_bytes),
        "results": float(told.output_size_in_bytes - told.alias_size_in_bytes),
        "padding": max(padding, 0.0),
        "code": float(told.generated_code_size_in_bytes),
    }
    return CompiledProgram(Memory(categories), text)


def parse_oom_temporaries(message: str, argument_bytes: float) -> float:
    """Bytes of temporaries of a program that XLA refuses for want of memory.

    Args:
        message: XLA's words.
        argument_bytes: bytes of all else.

    Raises:
        UserError: it refuses the program for another reason.
    """
    used = _OOM_PATTERN.search(message)
    if "RESOURCE_EXHAUSTED" not in message or not used:
        raise UserError(f"XLA could not compile this: {message.splitlines()[0]}")
    needed = float(used[2]) * _UNITS[used[3]]
    return needed - argument_bytes if used[1] == "Used" else needed


def _optimized_hlo(compiled: jax.stages.Compiled, folder: pathlib.Path) -> str:
    """The optimized program as the compiler for TPUs has written it, or else as JAX tells it.

    JAX 0.10 cannot read programs in which a v6e's sparse cores gather while others work.
    """
    # There may be small ones beside it, of what runs on other cores.
    written = [*folder.glob("*.after_codegen.txt")]
    if not written:
        return compiled.as_text()
    return max(written, key=lambda path: path.stat().st_size).read_text()
