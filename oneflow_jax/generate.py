"""Documents from a trained model: its parameters bound, its gaps filled."""

import copy
import dataclasses
import functools
from collections.abc import Iterator, Sequence
from typing import Protocol

import jax
import numpy as np

from oneflow_jax.canvas import Canvas
from oneflow_jax.data import edits
from oneflow_jax.data import layout as layouts
from oneflow_jax.data.document import Document, Gap
from oneflow_jax.errors import UserError
from oneflow_jax.nn import bound_model
from oneflow_jax.nn.model import Model
from oneflow_jax.paradigms.base import Paradigm
from oneflow_jax.runtime import distributed, sharding
from oneflow_jax.samplers.base import SampleOutput, SamplingPlan, Trajectory
from oneflow_jax.shapes import Array, Int, PyTree

LENGTH_MULTIPLE = 16
"""Rows are cut to a multiple of so many slots: few lengths to compile, few slots to waste."""


class GenerativeSystem(Protocol):
    """What generation needs of a run: no configuration, optimizer or data set."""

    @property
    def mesh(self) -> jax.sharding.Mesh:
        """The devices."""

    @property
    def layout(self) -> layouts.Layout:
        """How documents become slots, with vocabulary and codec."""

    @property
    def model(self) -> Model:
        """The network, without parameters."""

    @property
    def paradigm(self) -> Paradigm:
        """How a canvas is sampled."""


@dataclasses.dataclass(frozen=True)
class GeneratedBatch:
    """A batch of finished documents.

    Attributes:
        documents: without gaps.
        canvas: the same as slots, on the host.
        moments: how they came about, on the host, if that was asked for.
        passes: forward passes that the batch took.
        full: which documents ran out of room: something that was to be inserted was left out.
    """

    documents: list[Document]
    canvas: Canvas
    moments: Trajectory | None
    passes: int
    full: list[bool]


class Generator:
    """A trained model, ready to fill the gaps of documents.

    Attributes:
        system: of its run.
        params: laid out over the system's mesh.
    """

    def __init__(self, system: GenerativeSystem, params: PyTree) -> None:
        """Binds the parameters."""
        self.system = system
        self.params = params
        self._sample = jax.jit(functools.partial(sample_batch, system), static_argnames="plan")

    def __call__(
        self, prompts: Sequence[Document], plan: SamplingPlan, *, seed: int, batch: int
    ) -> Iterator[GeneratedBatch]:
        """The prompts with their gaps filled, batch by batch.

        A document depends on the seed and on its place among `prompts`, not on the batch.

        Args:
            prompts: documents with gaps; with a plan that starts above t=0, documents to revise.
            plan: solver, times, guidance, and whether to record the moments.
            seed: of all randomness.
            batch: documents at a time, on all devices together.

        Raises:
            UserError: a prompt has nothing to be made or does not fit the canvas, or the batch
                does not fit the devices.
        """
        mesh, rules = self.system.mesh, sharding.SAMPLING_RULES
        sharding.check_batch_divides(mesh, batch, field="evaluation.batch", rules=rules)
        rows = [prompt_row(self.system.layout, prompt, edit=plan.revises) for prompt in prompts]
        layout = self.system.layout
        if not layout.grows:
            longest = max((len(slots["kind"]) for slots in rows), default=0)
            length = min(-(-longest // LENGTH_MULTIPLE) * LENGTH_MULTIPLE, layout.length)
            layout = dataclasses.replace(layout, length=length)
        for first in range(0, len(rows), batch):
            chosen = rows[first : first + batch]
            count = len(chosen)
            # The last batch is filled up with copies that nobody will see.
            canvas = layout.canvas([*chosen, *[chosen[0]] * (batch - count)])
            sample = self._run(canvas, np.arange(first, first + batch), seed, plan)
            canvas = jax.tree.map(lambda x, n=count: x[:n], sample.canvas)
            moments = sample.moments and _take_rows(sample.moments, count)
            full = sample.full[:count].tolist()
            yield GeneratedBatch(layout.read(canvas), canvas, moments, int(sample.passes), full)

    def of(self, params: PyTree) -> "Generator":
        """The same with other parameters: what was compiled need not be compiled again."""
        other = copy.copy(self)
        other.params = params
        return other

    def _run(
        self, canvas: Canvas, numbers: np.ndarray, seed: int, plan: SamplingPlan
    ) -> SampleOutput:
        rows = sharding.row_sharding(self.system.mesh, sharding.SAMPLING_RULES)
        canvas, numbers = jax.device_put((canvas, numbers.astype(np.int32)), rows)
        with sharding.mesh_context(self.system.mesh, sharding.SAMPLING_RULES):
            sample = self._sample(self.params, canvas, numbers, seed, plan=plan)
        return distributed.to_host(sample)


def sample_batch(
    system: GenerativeSystem,
    params: PyTree,
    canvas: Canvas,
    document_ids: Int[Array, "B"],
    seed: Int[Array, ""],
    *,
    plan: SamplingPlan,
) -> SampleOutput:
    """The program that fills the gaps of a batch of canvases.

    Args:
        system: model and paradigm.
        params: to fill them with.
        canvas: laid out, with gaps.
        document_ids: the place of each document among all, which with the seed is its key.
        seed: of all randomness.
        plan: how to sample.
    """
    model, paradigm = system.model, system.paradigm
    keys = jax.vmap(jax.random.fold_in, (None, 0))(jax.random.key(seed), document_ids)
    table = model.apply({"params": params}, method="table")
    return paradigm.sample(bound_model.BoundModel(model, params), table, keys, canvas, plan)


def _take_rows(trajectory: Trajectory, count: int) -> Trajectory:
    """The moments, as far as they came, of the first `count` documents of a batch."""
    came = trajectory.times >= 0
    fewer = jax.tree.map(lambda x: x[came, :count], trajectory.replace(times=None))
    return fewer.replace(times=trajectory.times[came])


def padded_batch_size(mesh: jax.sharding.Mesh, num_documents: int, max_rows: int) -> int:
    """Rows of a batch for `num_documents` documents, `max_rows` at most.

    Each device gets 1, 2, 3, 4, 6, 8, 12, ... of them: few numbers to compile programs for, and at
    most a third of the rows beyond what the devices must be filled up with goes to waste.
    """
    ways = mesh.shape["data"] * mesh.shape["fsdp"]
    each = -(-num_documents // ways)
    power = 1 << (each - 1).bit_length()
    between = power * 3 // 4
    return min(ways * (between if power >= 4 and each <= between else power), max_rows)


def diff_documents(layout: layouts.Layout, before: Document, after: Document) -> list[edits.Edit]:
    """What a revision changed of the document that was given."""
    # Read back from slots, as `after` was, so that words and pixels that stayed are the same.
    (read,) = layout.read(layout.canvas([layout.revision(before)]))
    return edits.diff_documents(read, after)


def prompt_row(layout: layouts.Layout, prompt: Document, *, edit: bool) -> layouts.RowFields:
    """The slots of a prompt, or of a document to revise.

    Raises:
        UserError: there is nothing to be made, or it does not fit the canvas.
    """
    gaps = any(isinstance(part, Gap) for part in prompt.parts)
    if edit and gaps:
        raise UserError(
            f"The document {prompt.words()!r} has a gap in it, and can only be revised without: "
            "fill it first, with --prompt."
        )
    if edit:
        return layout.revision(prompt)
    if not gaps:
        raise UserError(
            f"The prompt {prompt.words()!r} has no gap to fill: write <image> or <text> where "
            "something is to be made, or give it to --revise to have all of it looked over."
        )
    return layout.prompt(prompt)
