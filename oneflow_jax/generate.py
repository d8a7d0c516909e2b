"""Generation: a trained model fills the gaps of documents, or edits documents."""

import dataclasses
import functools
import itertools
from collections.abc import Iterator, Sequence
from typing import Protocol

import jax
import numpy as np

from oneflow_jax.canvas import Canvas
from oneflow_jax.data import edits
from oneflow_jax.data import layout as layouts
from oneflow_jax.data.document import Document, Gap
from oneflow_jax.errors import UserError
from oneflow_jax.nn import bound_model, unstack
from oneflow_jax.nn.model import Model
from oneflow_jax.paradigms.base import Paradigm
from oneflow_jax.runtime import distributed, padding, programs, sharding
from oneflow_jax.samplers import steps
from oneflow_jax.samplers.base import (
    Frame,
    SampleOutput,
    SamplingPlan,
    Trajectory,
    stack_frames,
)
from oneflow_jax.samplers.steps import Progress, Sampler
from oneflow_jax.shapes import Array, Int, PyTree

MAX_PROGRAMS = 64
"""Maximum number of samplers whose compiled programs stay in memory."""

PROGRAMS: programs.ProgramCache[programs.SamplerPrograms] = programs.ProgramCache(MAX_PROGRAMS)
"""The compiled samplers of all generators of this process."""


class GenerativeSystem(Protocol):
    """The parts of a run that generation needs, without configuration, optimizer and data."""

    @property
    def mesh(self) -> jax.sharding.Mesh:
        """The mesh of devices."""

    @property
    def layout(self) -> layouts.Layout:
        """The layout, which converts documents to slots, with its vocabulary and codec."""

    @property
    def model(self) -> Model:
        """The network, without parameters."""

    @property
    def paradigm(self) -> Paradigm:
        """The paradigm, which fills canvases with its sampler."""


@dataclasses.dataclass(frozen=True)
class GeneratedBatch:
    """A batch of finished documents.

    Attributes:
        documents: the documents, without gaps.
        canvas: the slots of the documents, in host memory.
        trajectory: the sampling steps, in host memory; None if they were not recorded.
        nfe: number of forward passes of the batch.
        truncated: for each document, True if the sampler dropped an insertion because the canvas
            was full.
    """

    documents: list[Document]
    canvas: Canvas
    trajectory: Trajectory | None
    nfe: int
    truncated: list[bool]


class RunningBatch:
    """A batch of documents that is being sampled, on the devices; `Generator.start` creates it.

    Attributes:
        num_steps: number of steps; the maximum if the documents determine it.
        frame_steps: numbers of the steps before which a trajectory has a frame.
    """

    def __init__(
        self,
        system: GenerativeSystem,
        sampler_programs: programs.SamplerPrograms,
        inputs: PyTree,
        count: int,
    ) -> None:
        """Start the batch.

        Args:
            system: the model's parts.
            sampler_programs: programs for the inputs.
            inputs: arguments of `make_sampler`, on the devices.
            count: number of documents; the other rows are padding.
        """
        self._system = system
        self._programs = sampler_programs
        self._inputs = inputs
        self._count = count
        self._progress: Progress = self._call("start")
        self.num_steps = int(distributed.to_host(self._progress.num_steps))
        self.frame_steps = steps.frame_steps(self.num_steps, self._progress.max_frames)

    @property
    def end_time(self) -> float:
        """Global time of finished documents, at most (`Frame.run_time`)."""
        return self._progress.end_time

    @property
    def is_done(self) -> bool:
        """Whether no step is left; waits for the steps that were started."""
        return bool(distributed.to_host(self._progress.is_done))

    def advance(self, stop: int) -> None:
        """Start the steps until `stop` steps are taken in all; do not wait for them."""
        self._progress = self._call("advance", self._progress, np.int32(stop))

    def start_frame(self) -> Frame:
        """Start the computation of the documents before the next step, and return its result."""
        return self._call("frame", self._progress)

    def read_frame(self, frame: Frame) -> Frame:
        """Copy a frame to host memory, without the rows of padding."""
        return distributed.to_host(frame).take_rows(slice(self._count))

    def finish(self, frames: Sequence[Frame] | None = None) -> GeneratedBatch:
        """Return the finished documents.

        Args:
            frames: earlier frames, in host memory; None for a batch without a trajectory.
        """
        sample = distributed.to_host(self._call("finish", self._progress))
        canvas = jax.tree.map(lambda x: x[: self._count], sample.canvas)
        trajectory = None
        if frames is not None:
            trajectory = stack_frames([*frames, sample.frame.take_rows(slice(self._count))])
        documents, cut = self._system.layout.decode(canvas), sample.truncated[: self._count]
        return GeneratedBatch(documents, canvas, trajectory, int(sample.nfe), cut.tolist())

    def record_frames(self) -> list[Frame]:
        """Take all steps, and return the frames before those in `frame_steps`, in host memory."""
        frames = []
        for _, stop in itertools.pairwise((*self.frame_steps, self.num_steps)):
            if self.is_done:
                break
            frame = self.start_frame()
            self.advance(stop)
            frames.append(self.read_frame(frame))
        return frames

    def is_compiled(self, name: str) -> bool:
        """Return whether a program of the sampler, such as "advance", is in memory."""
        return name in self._programs.used

    def _call(self, name: str, *arguments: PyTree) -> PyTree:
        with sharding.mesh_context(self._system.mesh, sharding.SAMPLING_RULES):
            result = getattr(self._programs, name)(self._inputs, *arguments)
        self._programs.used.add(name)
        return result


class Generator:
    """A trained model that fills the gaps of documents.

    Attributes:
        system: the model's parts.
        params: parameters, sharded over the system's mesh.
        num_compilations: number of samplers whose programs calls of this generator compiled, or
            loaded from the compilation cache on disk.
    """

    def __init__(self, system: GenerativeSystem, params: PyTree) -> None:
        """Store the system and the parameters."""
        self.system = system
        self.params = params
        self.num_compilations = 0

    def __call__(
        self,
        prompts: Sequence[Document],
        plan: SamplingPlan,
        *,
        seed: int,
        batch: int,
        noise_ids: Sequence[int] = (),
        record: bool = False,
    ) -> Iterator[GeneratedBatch]:
        """Fill the gaps of the prompts, batch by batch.

        A generated document depends on its prompt, the seed and its noise id, but not on the batch
        size.

        Args:
            prompts: documents with gaps; finished documents to edit if the plan starts above t=0.
            plan: solver, times and guidance.
            seed: RNG seed.
            batch: number of documents in a batch, over all devices.
            noise_ids: number of each prompt that determines its PRNG key together with `seed`; ()
                for its index among `prompts`.
            record: whether to return the trajectory of each batch.

        Raises:
            UserError: a prompt has no gap, a document to edit has a gap, one of them does not fit
                the canvas, or the batch cannot be split evenly over the devices.
        """
        ids = noise_ids or range(len(prompts))
        rows = [prompt_row(self.system.layout, prompt, edit=plan.is_edit) for prompt in prompts]
        length = self._padded_length(rows)
        self._check_batch(batch)
        for first in range(0, len(rows), batch):
            chosen = slice(first, first + batch)
            seeds = [seed] * len(rows[chosen])
            running = self._start(rows[chosen], plan, seeds, ids[chosen], batch, length)
            if record:
                yield running.finish(running.record_frames())
            else:
                running.advance(running.num_steps)
                yield running.finish()

    def start(
        self,
        prompts: Sequence[Document],
        plan: SamplingPlan,
        *,
        seeds: Sequence[int],
        noise_ids: Sequence[int],
        batch: int,
    ) -> RunningBatch:
        """Start one batch, and take no step yet.

        Args:
            prompts: at most `batch` documents; see `__call__`.
            plan: solver, times and guidance.
            seeds: RNG seed of each prompt.
            noise_ids: number of each prompt that determines its PRNG key together with its seed.
            batch: number of rows, over all devices.

        Raises:
            UserError: see `__call__`.
        """
        rows = [prompt_row(self.system.layout, prompt, edit=plan.is_edit) for prompt in prompts]
        self._check_batch(batch)
        return self._start(rows, plan, seeds, noise_ids, batch, self._padded_length(rows))

    def _check_batch(self, batch: int) -> None:
        sharding.check_batch_divides(
            self.system.mesh,
            batch,
            field="evaluation.batch_size",
            rules=sharding.SAMPLING_RULES,
        )

    def _start(
        self,
        rows: Sequence[layouts.RowFields],
        plan: SamplingPlan,
        seeds: Sequence[int],
        noise_ids: Sequence[int],
        batch: int,
        length: int,
    ) -> RunningBatch:
        # Fill the batch with copies of its first row, which `RunningBatch` drops again.
        missing = batch - len(rows)
        layout = dataclasses.replace(self.system.layout, length=length)
        canvas = layout.canvas([*rows, *[rows[0]] * missing])
        numbers = (
            np.asarray([*values, *[values[0]] * missing], np.int32) for values in (noise_ids, seeds)
        )
        where = sharding.row_sharding(self.system.mesh, sharding.SAMPLING_RULES)
        inputs = (self.params, *jax.device_put((canvas, *numbers), where), plan)
        return RunningBatch(self.system, self._programs(inputs), inputs, len(rows))

    def row_length(self, prompts: Sequence[Document], *, edit: bool) -> int:
        """Return the number of slots of the rows in which these prompts run as one batch.

        Raises:
            UserError: see `__call__`.
        """
        layout = self.system.layout
        return self._padded_length([prompt_row(layout, prompt, edit=edit) for prompt in prompts])

    def _padded_length(self, rows: Sequence[layouts.RowFields]) -> int:
        layout = self.system.layout
        if layout.variable_length:
            return layout.length
        return padding.padded_length(
            max((len(row["modality"]) for row in rows), default=0), layout.length
        )

    def _programs(self, inputs: PyTree) -> programs.SamplerPrograms:
        """Return the programs for the structure and shapes of the arguments of `make_sampler`.

        Generators with equal meshes, models and paradigms share their programs.
        """
        parts = {"model": self.system.model, "paradigm": self.system.paradigm}
        leaves, structure = jax.tree.flatten(inputs)
        shapes = tuple((np.shape(leaf), jax.dtypes.result_type(leaf)) for leaf in leaves)
        found, is_new = PROGRAMS.get(
            (self.system.mesh, *parts.values(), structure, shapes),
            lambda: programs.SamplerPrograms(functools.partial(make_sampler, **parts)),
        )
        self.num_compilations += is_new
        return found


def make_sampler(
    params: PyTree,
    canvas: Canvas,
    document_ids: Int[Array, "B"],
    seeds: Int[Array, "B"],
    plan: SamplingPlan,
    *,
    model: Model,
    paradigm: Paradigm,
) -> Sampler:
    """Return the sampler of a batch of canvases.

    A compiled program depends on the structure of the plan, and takes its values as arguments
    (`samplers.plan_values`). The function must run in the mesh context of
    `sharding.SAMPLING_RULES`.

    Args:
        params: the model's parameters.
        canvas: canvases with gaps.
        document_ids: index of each document among all prompts; seed and index determine the
            document's PRNG key.
        seeds: RNG seed of each document.
        plan: solver, times and guidance.
        model: the network.
        paradigm: the paradigm, whose sampler fills the gaps.
    """
    model, params = unstack.unstack_layers(model, params)
    keys = jax.vmap(lambda seed, n: jax.random.fold_in(jax.random.key(seed), n))(
        seeds, document_ids
    )
    table = model.apply({"params": params}, method="embedding_table")
    network = bound_model.BoundModel(model, params)
    return paradigm.sampler(network, table, keys, canvas, plan)


def sample_batch(*inputs: PyTree, model: Model, paradigm: Paradigm) -> SampleOutput:
    """Fill the gaps of a batch of canvases in one program; see `make_sampler` for the arguments."""
    return steps.sample(make_sampler(*inputs, model=model, paradigm=paradigm))


def diff_documents(layout: layouts.Layout, before: Document, after: Document) -> list[edits.Edit]:
    """List the edits between a given document and its edited version."""
    # `after` was decoded from slots, so convert `before` to slots and back too: this may change the
    # case of words and the pixels, and these changes are not edits.
    (read,) = layout.decode(layout.canvas([layout.edit_row(before)]))
    return edits.diff_documents(read, after)


def prompt_row(layout: layouts.Layout, prompt: Document, *, edit: bool) -> layouts.RowFields:
    """Lay out a prompt, or a document to edit, as slots.

    Raises:
        UserError: the prompt has no gap, the document to edit has a gap, or the document does not
            fit the canvas.
    """
    gaps = any(isinstance(part, Gap) for part in prompt.parts)
    if edit and gaps:
        raise UserError(
            f"The document {prompt.text()!r} has a gap, and only finished documents can be edited: "
            "fill the gap first, with --prompt."
        )
    if edit:
        return layout.edit_row(prompt)
    if not gaps:
        raise UserError(
            f"The prompt {prompt.text()!r} has no gap to fill: write <image> or <text> where "
            "something is to be generated. To revise a finished document, edit it (on the command "
            "line: --edit)."
        )
    return layout.prompt_row(prompt)
