"""Compiles the programs of a run ahead of time, from shapes, for devices that need not exist."""

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

from oneflow_jax.build import sampling as sampling_lib
from oneflow_jax.build import system as system_lib
from oneflow_jax.canvas import Canvas
from oneflow_jax.errors import UserError
from oneflow_jax.generation import sampler as samplers
from oneflow_jax.runtime import gpu, sharding
from oneflow_jax.shapes import PyTree
from oneflow_jax.training import loop

_OOM_PATTERN = re.compile(r"(Used|HLO temporaries \() ?([\d.]+)([KMG])")
"""Numbers in XLA's out-of-memory errors: the program's total memory, or its temporaries alone."""

_UNITS = {"K": 2**10, "M": 2**20, "G": 2**30}


@dataclasses.dataclass(frozen=True)
class Memory:
    """Memory of each chip while a program runs.

    Attributes:
        categories: bytes by category, for example "parameters" or "temporaries".
        fits: whether the program compiled without running out of memory. If False, `categories`
            has only the arguments and the temporaries.
    """

    categories: dict[str, float]
    fits: bool = True

    @property
    def total(self) -> float:
        """Sum of all categories, in bytes."""
        return sum(self.categories.values())


@dataclasses.dataclass(frozen=True)
class CompiledProgram:
    """Result of compiling a program.

    Attributes:
        memory: memory that the program needs.
        text: text of the optimized program; "" if it ran out of memory.
    """

    memory: Memory
    text: str


def compile_train_step(system: system_lib.System) -> CompiledProgram:
    """Compile the training step of a run."""
    state = system.abstract_state
    canvas = abstract_canvas(system, system.config.batch_size, system.batch_sharding)
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
    """Compile the sampler for the EMA parameters and `rows` rows, with the first configured NFE."""
    config = system.config
    time_grid = config.sampling.time_grid
    plan = sampling_lib.eval_plan(
        config,
        system.paradigm,
        config.evaluation.nfe[0],
        "uniform" if time_grid == sampling_lib.LEARNED_GRID else time_grid,
    )
    where = sharding.row_sharding(system.mesh, sharding.SAMPLING_RULES)
    params, canvas = system.abstract_state.ema, abstract_canvas(system, rows, where)
    numbers = jax.ShapeDtypeStruct((rows,), jnp.int32, sharding=where)
    with _abstract_mesh_context(system.mesh, sharding.SAMPLING_RULES):
        sample_batch = functools.partial(
            samplers.sample_batch, model=system.model, paradigm=system.paradigm
        )
        # The plan is a constant of this program, so that XLA knows the number of steps.
        traced = jax.jit(lambda *inputs: sample_batch(*inputs, plan)).trace(
            params, canvas, numbers, numbers
        )
    return _compile(traced, system.mesh, {"parameters": params, "batch": (canvas, numbers)})


def abstract_canvas(
    system: system_lib.System, rows: int, canvas_sharding: jax.sharding.NamedSharding
) -> Canvas:
    """Return the canvas of a batch as shapes with a sharding, without arrays."""
    layout = system.layout

    def field(dtype: jnp.dtype, *more: int) -> jax.ShapeDtypeStruct:
        return jax.ShapeDtypeStruct((rows, layout.length, *more), dtype, sharding=canvas_sharding)

    return Canvas(
        ids=field(jnp.int32),
        latents=field(jnp.float32, layout.codec.channels),
        modality=field(jnp.int32),
        segment=field(jnp.int32),
        span=field(jnp.int32),
        position=field(jnp.int32, 3),
        is_given=field(jnp.bool_),
        insertable=field(jnp.int32),
    )


def bytes_per_device(tree: PyTree) -> float:
    """Return the bytes that a tree of sharded shapes takes on each device, without padding."""
    return sum(
        math.prod(leaf.sharding.shard_shape(leaf.shape)) * leaf.dtype.itemsize
        for leaf in jax.tree.leaves(tree)
    )


@contextlib.contextmanager
def _abstract_mesh_context(mesh: jax.sharding.Mesh, rules: sharding.Rules) -> Iterator[None]:
    """Enter a mesh context for tracing, in which the devices hold no data.

    Values that JAX computes during tracing then stay on the host, since the devices need not exist.
    """
    with jax.sharding.use_abstract_mesh(mesh.abstract_mesh), nn.logical_axis_rules(rules):
        yield


def _compile(
    traced: jax.stages.Traced, mesh: jax.sharding.Mesh, arguments: dict[str, PyTree]
) -> CompiledProgram:
    categories = {name: bytes_per_device(tree) for name, tree in arguments.items()}
    device = mesh.devices.flat[0]
    platform = "cuda" if device.platform == "gpu" else device.platform
    lowered = traced.lower(lowering_platforms=(platform,))
    with tempfile.TemporaryDirectory() as folder:
        try:
            compiled = lowered.compile(_compiler_options(platform, folder))
        except jax.errors.JaxRuntimeError as error:
            temporaries = parse_oom_temporaries(str(error), sum(categories.values()))
            return CompiledProgram(
                Memory(categories | {"temporaries": temporaries}, fits=False), ""
            )
        text = _optimized_hlo(compiled, pathlib.Path(folder))
    analysis = compiled.memory_analysis()
    # The program also needs memory for temporaries, for results that do not alias a donated
    # argument, and for padding to tiles.
    padding = analysis.argument_size_in_bytes - sum(categories.values())
    categories |= {
        "temporaries": float(analysis.temp_size_in_bytes),
        "results": float(analysis.output_size_in_bytes - analysis.alias_size_in_bytes),
        "padding": max(padding, 0.0),
        "code": float(analysis.generated_code_size_in_bytes),
    }
    return CompiledProgram(Memory(categories), text)


def _compiler_options(platform: str, folder: str) -> dict[str, bool | int | str] | None:
    """Return XLA's options: a dump to `folder` for TPUs, and the options of a run for GPUs."""
    if platform == "tpu":
        return {"xla_dump_to": folder, "xla_dump_hlo_as_text": True}
    if platform == "cuda":
        # On a GPU, the compiler measures several kernels for each product and takes the fastest.
        return gpu.XLA_OPTIONS | {"xla_gpu_autotune_level": 0}
    return None


def parse_oom_temporaries(message: str, argument_bytes: float) -> float:
    """Read the bytes of a program's temporaries from XLA's out-of-memory error.

    Args:
        message: XLA's error message.
        argument_bytes: bytes of the program's arguments.

    Raises:
        UserError: the program failed to compile for another reason.
    """
    used = _OOM_PATTERN.search(message)
    if "RESOURCE_EXHAUSTED" not in message or not used:
        raise UserError(f"XLA could not compile this program: {message.splitlines()[0]}")
    needed = float(used[2]) * _UNITS[used[3]]
    return needed - argument_bytes if used[1] == "Used" else needed


def _optimized_hlo(compiled: jax.stages.Compiled, folder: pathlib.Path) -> str:
    """Return the text of the optimized program: the TPU compiler's dump if any, else JAX's text.

    The dump is preferred because JAX 0.10 cannot return the text of v6e programs whose sparse cores
    run gathers concurrently.
    """
    # The compiler may also dump smaller programs that run on other cores; take the largest one.
    written = [*folder.glob("*.after_codegen.txt")]
    if not written:
        return compiled.as_text()
    return max(written, key=lambda path: path.stat().st_size).read_text()
