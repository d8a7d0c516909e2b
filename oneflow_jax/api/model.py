"""A trained model in the hands of Python: loaded from its run's folder, asked for documents."""

import contextlib
import dataclasses
import functools
import os
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Unpack

import jax
import ml_collections

from oneflow_jax import evaluate
from oneflow_jax import generate as generation
from oneflow_jax.api import options as ways
from oneflow_jax.api import state as states
from oneflow_jax.api.document import Document, EditResult, Prompt, to_internal, to_public
from oneflow_jax.api.options import SamplingOptions
from oneflow_jax.api.state import SamplingStep
from oneflow_jax.build import sampling
from oneflow_jax.build import system as system_lib
from oneflow_jax.data import document as inner
from oneflow_jax.errors import UserError
from oneflow_jax.runtime import host, storage, workdir
from oneflow_jax.samplers import time_grids
from oneflow_jax.shapes import PyTree
from oneflow_jax.viewer import from_samples

ALL_DEVICES_MESH = {"data": -1, "fsdp": 1, "tensor": 1}


def load(path: str | os.PathLike[str], config: Mapping[str, Any] | None = None) -> "Model":
    """The model that a run has trained: its newest averaged parameters, on all devices.

    The folder is held while they are read, so that no training may change it; nothing in it is
    changed.

    Args:
        path: the folder of the run, its `--workdir`, gs:// too; or `PRETRAINED`, the small model
            that comes with the project, or another that `--mode=release` made.
        config: other values for its configuration, by full names, as in `{"sampling.steps": 8}`:
            defaults of sampling, or `{"mesh.fsdp": 4}` for parameters that do not fit one device,
            or `{"platform": "any"}` for those of a TPU elsewhere.

    Raises:
        UserError: there is no such folder or no checkpoint in it, a training is under way there (on
            this machine), it is the run of a codec, or a value is wrong.
    """
    folder = storage.resolve_path(os.path.expanduser(os.fspath(path)), "workdir")
    saved = workdir.load_config(folder, field="workdir")
    if "autoencoder" in saved or "contestants" in saved:
        raise UserError(
            f"workdir={folder} holds no model of documents: it trained a codec, or compared "
            "paradigms, which have folders of their own."
        )
    if not workdir.has_checkpoints(folder):
        raise UserError(f"workdir={folder} has no checkpoint: train first, with --mode=train.")
    saved.mesh.update(ALL_DEVICES_MESH)
    given = ways.override_config(saved, config or {})
    system_lib.check_platform(given)
    # In a release nobody trains; and it may be where nothing can be written.
    unchanging = workdir.is_export(folder)
    with contextlib.nullcontext() if unchanging else workdir.lock(folder):
        workdir.check_config(folder, given)
        if given.keep_compiled:
            host.enable_compilation_cache(folder / workdir.COMPILATION_CACHE)
        system = system_lib.system(_inference_config(given), folder)
        return Model(system, evaluate.load_ema_params(system, folder))


class Model:
    """A trained model, which fills the gaps of documents and looks over finished ones.

    The first call with some options compiles a program for the number of documents (1, 2, 3, 4, 6,
    8, 12, ... on each device; others are rounded up) and their length (a multiple of 16 slots).
    Later calls alike use it again, whatever the prompts and the seed.
    """

    def __init__(self, system: system_lib.System, params: PyTree) -> None:
        """Of a system and averaged parameters; `load` has them from a folder."""
        self._system = system
        self._generator = generation.Generator(system, params)

    def __repr__(self) -> str:
        return f"<oneflow_jax model {self.config.name!r} ({self.config.paradigm.name})>"

    @property
    def config(self) -> ml_collections.ConfigDict:
        """The configuration of its run, with what `load` was given; a copy."""
        return self._system.config.copy_and_resolve_references()

    def generate(
        self, prompt: Prompt, *, samples: int = 1, **options: Unpack[SamplingOptions]
    ) -> list[Document]:
        """Fills the gaps of one prompt, `samples` times over.

        Raises:
            UserError: the prompt or an option is wrong.
        """
        if not isinstance(samples, int) or samples < 1:
            raise UserError(f"samples={samples!r} must be a whole number above 0.")
        return self._generate_documents([self._to_internal(prompt)] * samples, options)

    def generate_batch(
        self, prompts: Sequence[Prompt], **options: Unpack[SamplingOptions]
    ) -> list[Document]:
        """Fills the gaps of several prompts at once, each once.

        A document depends on the seed and its place among the prompts. More than
        `evaluation.batch` of them are made one batch after another.

        Raises:
            UserError: a prompt or an option is wrong.
        """
        if not isinstance(prompts, list | tuple):
            raise UserError(f"generate_batch wants a list of prompts, not {prompts!r}.")
        return self._generate_documents([self._to_internal(prompt) for prompt in prompts], options)

    def revise(
        self, document: Prompt, *, start: float | None = None, **options: Unpack[SamplingOptions]
    ) -> EditResult:
        """Looks over a finished document, by models that can: edit_flow, oneflow, mask_flow.

        Args:
            document: without gaps; all of it may change.
            start: above 0 and below 1: the share of it that is taken to be right; the closer to
                0, the more is made anew. `sampling.start` if left out.
            **options: see `Options`.

        Raises:
            UserError: the document has gaps, an option is wrong, or the model cannot revise.
        """
        before = self._to_internal(document)
        config = ways.apply_options(self._system.config, options, start)
        (made,) = self._generate_batches([before], config, revise=True)
        (after,) = made.documents
        changes = generation.diff_documents(self._system.layout, before, after)
        return EditResult(to_public(after.parts), made.passes, made.full[0], tuple(changes))

    def stream(self, prompt: Prompt, **options: Unpack[SamplingOptions]) -> Iterator[SamplingStep]:
        """Fills the gaps of one prompt, and yields each step of it, the finished document last.

        All steps run on the device as one program, so the first state comes when the last is
        there: this is to watch how a document came about, not to see it earlier. The document is
        that of `generate` with the same options.

        Raises:
            UserError: the prompt or an option is wrong; at once, not at the first state.
        """
        config = ways.apply_options(self._system.config, options)
        document = self._to_internal(prompt)
        generation.prompt_row(self._system.layout, document, edit=False)
        return self._states(self._generate_batches([document], config, record=True))

    def _states(self, batches: Iterator[generation.GeneratedBatch]) -> Iterator[SamplingStep]:
        (made,) = batches
        (told,) = from_samples.build_views(self._system.layout, made.moments, [""], [""])
        for frame in told.frames[:-1]:
            yield states.from_frame(frame)
        yield states.from_frame(told.frames[-1], _to_documents(made)[0])

    def _to_internal(self, prompt: Prompt) -> inner.Document:
        return to_internal(prompt, self._system.layout.codec.pixels)

    def _generate_documents(
        self, documents: Sequence[inner.Document], given: SamplingOptions
    ) -> list[Document]:
        config = ways.apply_options(self._system.config, given)
        return [
            document
            for made in self._generate_batches(documents, config)
            for document in _to_documents(made)
        ]

    def _generate_batches(
        self,
        documents: Sequence[inner.Document],
        config: ml_collections.ConfigDict,
        *,
        revise: bool = False,
        record: bool = False,
    ) -> Iterator[generation.GeneratedBatch]:
        """The batches, made when they are asked for; a wrong plan is told at once."""
        system = self._system
        named = config.sampling.grid
        grid = self._learned_grid if named == sampling.LEARNED_GRID else named
        plan = sampling.sampling_plan(
            config, system.paradigm, grid, edit=revise, return_trajectory=record
        )
        batch = generation.padded_batch_size(system.mesh, len(documents), config.evaluation.batch)
        return self._generator(documents, plan, seed=config.sampling.seed, batch=batch)

    @functools.cached_property
    def _learned_grid(self) -> time_grids.GridSpec:
        """Measured once: a program is compiled for each grid."""
        config = ways.override_config(self._system.config, {"sampling.grid": sampling.LEARNED_GRID})
        system = dataclasses.replace(self._system, config=config)
        return evaluate.time_grid(system, self._generator.params)


def _inference_config(config: ml_collections.ConfigDict) -> ml_collections.ConfigDict:
    """Batches that fit the devices here, and no figures, which may need files and packages."""
    changed = config.copy_and_resolve_references()
    devices = jax.device_count()
    changed.parts = 1
    for given in (changed, changed.evaluation):
        given.batch = -(-given.batch // devices) * devices
    changed.evaluation.update({"passes": (), "thorough": False, "inception": "", "clip": ""})
    return changed.lock()


def _to_documents(batch: generation.GeneratedBatch) -> list[Document]:
    return [
        Document(to_public(document.parts), batch.passes, full)
        for document, full in zip(batch.documents, batch.full, strict=True)
    ]
