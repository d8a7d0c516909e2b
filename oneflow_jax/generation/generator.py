"""The generator: a trained model that fills the gaps of documents, or edits documents."""

import functools
from collections.abc import Iterator, Sequence

import jax
import numpy as np

from oneflow_jax.data import layout as layouts
from oneflow_jax.data import prompt_rows
from oneflow_jax.data.document import Document
from oneflow_jax.generation import batch_rows, sampler
from oneflow_jax.generation.layout_choice import LayoutChoice
from oneflow_jax.generation.running_batch import GeneratedBatch, RunningBatch
from oneflow_jax.generation.system import GenerativeSystem
from oneflow_jax.runtime import programs, sharding
from oneflow_jax.samplers.base import SamplingPlan
from oneflow_jax.shapes import PyTree

MAX_PROGRAMS = 64
"""Maximum number of samplers whose compiled programs stay in memory."""

PROGRAMS: programs.ProgramCache[programs.SamplerPrograms] = programs.ProgramCache(MAX_PROGRAMS)
"""The compiled samplers of all generators of this process."""


class Generator:
    """A trained model that fills the gaps of documents.

    Attributes:
        system: the model's parts.
        params: parameters, sharded over the system's mesh.
        layouts: chooses a layout for the gap <document>, if the model does not.
        num_compilations: number of samplers whose programs calls of this generator compiled, or
            loaded from the compilation cache on disk.
    """

    def __init__(self, system: GenerativeSystem, params: PyTree) -> None:
        """Store the system and the parameters."""
        self.system = system
        self.params = params
        self.layouts = LayoutChoice(system, params)
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
        size. If the model does not choose layouts, `layouts` replaces the gap <document>.

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
        rows = self._lay_out(prompts, plan, [seed] * len(prompts), ids)
        length = batch_rows.padded_length(self.system.layout, rows)
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
        rows = self._lay_out(prompts, plan, seeds, noise_ids)
        self._check_batch(batch)
        return self._start(
            rows, plan, seeds, noise_ids, batch, batch_rows.padded_length(self.system.layout, rows)
        )

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
        missing = batch - len(rows)
        numbers = (
            np.asarray([*values, *[values[0]] * missing], np.int32) for values in (noise_ids, seeds)
        )
        inputs = (self.params, *batch_rows.place(self.system, rows, batch, length, *numbers), plan)
        return RunningBatch(self.system, self._programs(inputs), inputs, len(rows))

    def row_length(self, prompts: Sequence[Document], *, edit: bool) -> int:
        """Return the number of slots of the rows in which these prompts run as one batch.

        The prompts of a model that does not choose layouts must have no gap <document>.

        Raises:
            UserError: see `__call__`.
        """
        layout = self.system.layout
        rows = [prompt_rows.prompt_row(layout, prompt, edit=edit) for prompt in prompts]
        return batch_rows.padded_length(layout, rows)

    def _lay_out(
        self,
        prompts: Sequence[Document],
        plan: SamplingPlan,
        seeds: Sequence[int],
        noise_ids: Sequence[int],
    ) -> list[layouts.RowFields]:
        if not plan.is_edit:
            prompts = self.layouts.choose(prompts, seeds, noise_ids)
        layout = self.system.layout
        return [prompt_rows.prompt_row(layout, prompt, edit=plan.is_edit) for prompt in prompts]

    def _programs(self, inputs: PyTree) -> programs.SamplerPrograms:
        """Return the programs for the structure and shapes of the arguments of `make_sampler`.

        Generators with equal meshes, models and paradigms share their programs.
        """
        parts = {"model": self.system.model, "paradigm": self.system.paradigm}
        leaves, structure = jax.tree.flatten(inputs)
        shapes = tuple((np.shape(leaf), jax.dtypes.result_type(leaf)) for leaf in leaves)
        found, is_new = PROGRAMS.get(
            (self.system.mesh, *parts.values(), structure, shapes),
            lambda: programs.SamplerPrograms(functools.partial(sampler.make_sampler, **parts)),
        )
        self.num_compilations += is_new
        return found
