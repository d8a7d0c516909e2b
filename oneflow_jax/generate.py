"""Generation: a trained model fills the gaps of documents, or edits documents."""

import dataclasses
import functools
from collections.abc import Callable, Iterator, Sequence
from typing import Protocol

import jax
import numpy as np

from oneflow_jax.canvas import Canvas
from oneflow_jax.data import edits, spelling
from oneflow_jax.data import layout as layouts
from oneflow_jax.data.document import Document, Gap
from oneflow_jax.errors import UserError
from oneflow_jax.nn import bound_model, unstack
from oneflow_jax.nn.model import Model
from oneflow_jax.paradigms.base import Paradigm
from oneflow_jax.runtime import distributed, programs, sharding
from oneflow_jax.samplers.base import SampleOutput, SamplingPlan, Trajectory
from oneflow_jax.shapes import Array, Int, PyTree

MIN_LENGTH = 32
"""Minimum row length in slots.

Shorter rows save a few hundredths of a second per call (docs/python.md), but each length needs
programs of its own, which take several seconds to compile.
"""

MAX_PROGRAMS = 64
"""Maximum number of compiled sampling programs that stay in memory."""

PROGRAMS = programs.ProgramCache(MAX_PROGRAMS)
"""The compiled sampling programs of all generators of this process."""


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
        trajectory: the sampling steps, in host memory; None if the plan does not ask for them.
        nfe: number of forward passes of the batch.
        truncated: for each document, True if the sampler dropped an insertion because the canvas
            was full.
    """

    documents: list[Document]
    canvas: Canvas
    trajectory: Trajectory | None
    nfe: int
    truncated: list[bool]


class Generator:
    """A trained model that fills the gaps of documents.

    Attributes:
        system: the model's parts.
        params: parameters, sharded over the system's mesh.
        num_compilations: number of sampling programs that calls of this generator compiled, or
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
        seed: int | Sequence[int],
        batch: int,
        noise_ids: Sequence[int] = (),
    ) -> Iterator[GeneratedBatch]:
        """Fill the gaps of the prompts, batch by batch.

        A generated document depends on its prompt, the seed and its noise id, but not on the batch
        size.

        Args:
            prompts: documents with gaps; finished documents to edit if the plan starts above t=0.
            plan: solver, times, guidance, and whether to record the trajectory.
            seed: RNG seed, or one seed for each prompt.
            batch: number of documents in a batch, over all devices.
            noise_ids: number of each prompt that determines its PRNG key together with `seed`; ()
                for its index among `prompts`.

        Raises:
            UserError: a prompt has no gap, a document to edit has a gap, one of them does not fit
                the canvas, or the batch cannot be split evenly over the devices.
        """
        mesh, rules = self.system.mesh, sharding.SAMPLING_RULES
        sharding.check_batch_divides(mesh, batch, field="evaluation.batch_size", rules=rules)
        rows = [prompt_row(self.system.layout, prompt, edit=plan.is_edit) for prompt in prompts]
        layout = dataclasses.replace(self.system.layout, length=self._padded_length(rows))
        for first in range(0, len(rows), batch):
            chosen = rows[first : first + batch]
            count = len(chosen)
            # Pad the last batch with copies of its first row; the code below drops the copies.
            canvas = layout.canvas([*chosen, *[chosen[0]] * (batch - count)])
            ids = np.arange(first, first + batch)
            if noise_ids:
                ids[:count] = noise_ids[first : first + count]
            seeds = np.resize(np.broadcast_to(seed, len(rows))[first : first + count], batch)
            sample = self._run(canvas, ids, seeds, plan)
            canvas = jax.tree.map(lambda x, n=count: x[:n], sample.canvas)
            moments = sample.trajectory and _take_rows(sample.trajectory, count)
            full = sample.truncated[:count].tolist()
            yield GeneratedBatch(layout.decode(canvas), canvas, moments, int(sample.nfe), full)

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
        return padded_length(max((len(row["modality"]) for row in rows), default=0), layout.length)

    def _run(
        self, canvas: Canvas, document_ids: np.ndarray, seeds: np.ndarray, plan: SamplingPlan
    ) -> SampleOutput:
        rows = sharding.row_sharding(self.system.mesh, sharding.SAMPLING_RULES)
        numbers = (document_ids.astype(np.int32), seeds.astype(np.int32))
        canvas, document_ids, seeds = jax.device_put((canvas, *numbers), rows)
        arguments = (self.params, canvas, document_ids, seeds, plan)
        with sharding.mesh_context(self.system.mesh, sharding.SAMPLING_RULES):
            sample = self._program(arguments)(*arguments)
        return distributed.to_host(sample)

    def _program(self, arguments: PyTree) -> Callable[..., SampleOutput]:
        """Return the program for the structure and shapes of the arguments of `sample_batch`.

        Generators with equal meshes, models and paradigms share their programs.
        """
        parts = {"model": self.system.model, "paradigm": self.system.paradigm}
        leaves, structure = jax.tree.flatten(arguments)
        shapes = tuple((np.shape(leaf), jax.dtypes.result_type(leaf)) for leaf in leaves)
        program, is_new = PROGRAMS.get(
            (self.system.mesh, *parts.values(), structure, shapes),
            lambda: jax.jit(functools.partial(sample_batch, **parts)),
        )
        self.num_compilations += is_new
        return program


def sample_batch(
    params: PyTree,
    canvas: Canvas,
    document_ids: Int[Array, "B"],
    seeds: Int[Array, "B"],
    plan: SamplingPlan,
    *,
    model: Model,
    paradigm: Paradigm,
) -> SampleOutput:
    """Fill the gaps of a batch of canvases.

    A compiled program depends on the structure of the plan, and takes its values as arguments
    (`samplers.plan_values`). The function must run in the mesh context of
    `sharding.SAMPLING_RULES`.

    Args:
        params: the model's parameters.
        canvas: canvases with gaps.
        document_ids: index of each document among all prompts; seed and index determine the
            document's PRNG key.
        seeds: RNG seed of each document.
        plan: solver, times, guidance, and whether to record the trajectory.
        model: the network.
        paradigm: the paradigm, whose sampler fills the gaps.
    """
    model, params = unstack.unstack_layers(model, params)
    keys = jax.vmap(lambda seed, n: jax.random.fold_in(jax.random.key(seed), n))(
        seeds, document_ids
    )
    table = model.apply({"params": params}, method="embedding_table")
    network = bound_model.BoundModel(model, params)
    return paradigm.sample(network, table, keys, canvas, plan)


def _take_rows(trajectory: Trajectory, count: int) -> Trajectory:
    """Return the frames that were recorded, for the first `count` documents of the batch."""
    came = trajectory.run_times >= 0
    fewer = jax.tree.map(lambda x: x[came, :count], trajectory.replace(run_times=None))
    return fewer.replace(run_times=trajectory.run_times[came])


def padded_batch_size(mesh: jax.sharding.Mesh, num_documents: int, max_rows: int) -> int:
    """Return the batch size for `num_documents` documents, at most `max_rows`.

    Each device gets 1, 4, 6, 8, 12, 16, 24, ... rows, so that programs are compiled for only a few
    batch sizes. On a CPU, 4 short rows take 1.6 times as long as one row (docs/python.md).
    """
    ways = mesh.shape["data"] * mesh.shape["fsdp"]
    each = -(-num_documents // ways)
    return min(ways * (1 if each <= 1 else max(4, _round_up(each))), max_rows)


def padded_length(num_slots: int, max_length: int) -> int:
    """Return the row length for documents of `num_slots` slots, at most `max_length`.

    Rows have 32, 48, 64, 96, 128, ... slots, so that programs are compiled for only a few lengths.
    """
    return min(max(MIN_LENGTH, _round_up(num_slots)), max_length)


def _round_up(number: int) -> int:
    """Return the next of 1, 2, 3, 4, 6, 8, 12, ..., whose ratio is at most 1.5 from 2 on."""
    power = 1 << (number - 1).bit_length()
    between = power * 3 // 4
    return between if power >= 4 and number <= between else power


def diff_documents(layout: layouts.Layout, before: Document, after: Document) -> list[edits.Edit]:
    """List the edits between a given document and its edited version."""
    # `after` was decoded from slots, so convert `before` to slots and back too: this may change the
    # case of words and the pixels, and these changes are not edits.
    (read,) = layout.decode(layout.canvas([layout.edit_row(before)]))
    return edits.diff_documents(read, after)


def prompt_row(layout: layouts.Layout, prompt: Document, *, edit: bool) -> layouts.RowFields:
    """Lay out a prompt, or a document to edit, as slots; warn if this changes the case of words.

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
        row = layout.edit_row(prompt)
        spelling.log_folded(layout.vocab, prompt)
        return row
    if not gaps:
        raise UserError(
            f"The prompt {prompt.text()!r} has no gap to fill: write <image> or <text> where "
            "something is to be generated, or give the document to --edit to edit all of it."
        )
    row = layout.prompt_row(prompt)
    spelling.log_folded(layout.vocab, prompt)
    return row
