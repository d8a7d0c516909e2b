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
from oneflow_jax.api.document import Document, Prompt, Revision, shown, taken
from oneflow_jax.api.options import Options
from oneflow_jax.api.state import State
from oneflow_jax.build import sampling
from oneflow_jax.build import system as system_lib
from oneflow_jax.data import document as inner
from oneflow_jax.errors import UserError
from oneflow_jax.runtime import host, storage, workdir
from oneflow_jax.samplers import time_grids
from oneflow_jax.shapes import PyTree
from oneflow_jax.viewer import from_samples

ON_ALL_DEVICES = {"data": -1, "fsdp": 1, "tensor": 1}


def load(path: str | os.PathLike[str], config: Mapping[str, Any] | None = None) -> "Model":
    """The model that a run has trained: its newest averaged parameters, on all devices.

    The folder is held while they are read, so that no training may change it; nothing in it is
    changed.

    Args:
        path: the folder of the run, its `--workdir`, gs:// too; or `SHIPPED`, the small model that
            comes with the project, or another that `--mode=release` made.
        config: other values for its configuration, by full names, as in `{"sampling.steps": 8}`:
            defaults of sampling, or `{"mesh.fsdp": 4}` for parameters that do not fit one device,
            or `{"platform": "any"}` for those of a TPU elsewhere.

    Raises:
        UserError: there is no such folder or no checkpoint in it, a training is under way there (on
            this machine), it is the run of a codec, or a value is wrong.
    """
    folder = storage.located(os.path.expanduser(os.fspath(path)), "workdir")
    saved = workdir.saved_config(folder, field="workdir")
    if "autoencoder" in saved or "contestants" in saved:
        raise UserError(
            f"workdir={folder} holds no model of documents: it trained a codec, or compared "
            "paradigms, which have folders of their own."
        )
    if not workdir.has_checkpoints(folder):
        raise UserError(f"workdir={folder} has no checkpoint: train first, with --mode=train.")
    saved.mesh.update(ON_ALL_DEVICES)
    given = ways.changed(saved, config or {})
    system_lib.check_platform(given)
    # In a release nobody trains; and it may be where nothing can be written.
    unchanging = workdir.is_release(folder)
    with contextlib.nullcontext() if unchanging else workdir.claimed(folder):
        workdir.check_config(folder, given)
        if given.keep_compiled:
            host.keep_compiled(folder / workdir.COMPILED)
        system = system_lib.system(_without_training(given), folder)
        return Model(system, evaluate.averaged(system, folder))


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
        self, prompt: Prompt, *, samples: int = 1, **options: Unpack[Options]
    ) -> list[Document]:
        """Fills the gaps of one prompt, `samples` times over.

        Raises:
            UserError: the prompt or an option is wrong.
        """
        if not isinstance(samples, int) or samples < 1:
            raise UserError(f"samples={samples!r} must be a whole number above 0.")
        return self._finished([self._taken(prompt)] * samples, options)

    def generate_batch(
        self, prompts: Sequence[Prompt], **options: Unpack[Options]
    ) -> list[Document]:
        """Fills the gaps of several prompts at once, each once.

        A document depends on the seed and its place among the prompts. More than
        `evaluation.batch` of them are made one batch after another.

        Raises:
            UserError: a prompt or an option is wrong.
        """
        if not isinstance(prompts, list | tuple):
            raise UserError(f"generate_batch wants a list of prompts, not {prompts!r}.")
        return self._finished([self._taken(prompt) for prompt in prompts], options)

    def revise(
        self, document: Prompt, *, start: float | None = None, **options: Unpack[Options]
    ) -> Revision:
        """Looks over a finished document, by models that can: edit_flow, oneflow, mask_flow.

        Args:
            document: without gaps; all of it may change.
            start: above 0 and below 1: the share of it that is taken to be right; the closer to
                0, the more is made anew. `sampling.start` if left out.
            **options: see `Options`.

        Raises:
            UserError: the document has gaps, an option is wrong, or the model cannot revise.
        """
        before = self._taken(document)
        config = ways.applied(self._system.config, options, start)
        (made,) = self._made([before], config, revise=True)
        (after,) = made.documents
        changes = generation.changes(self._system.layout, before, after)
        return Revision(shown(after.parts), made.passes, made.full[0], tuple(changes))

    def stream(self, prompt: Prompt, **options: Unpack[Options]) -> Iterator[State]:
        """Fills the gaps of one prompt, and yields each step of it, the finished document last.

        All steps run on the device as one program, so the first state comes when the last is
        there: this is to watch how a document came about, not to see it earlier. The document is
        that of `generate` with the same options.

        Raises:
            UserError: the prompt or an option is wrong; at once, not at the first state.
        """
        config = ways.applied(self._system.config, options)
        document = self._taken(prompt)
        generation.row(self._system.layout, document, revise=False)
        return self._states(self._made([document], config, record=True))

    def _states(self, batches: Iterator[generation.Made]) -> Iterator[State]:
        (made,) = batches
        (told,) = from_samples.stories(self._system.layout, made.moments, [""], [""])
        for frame in told.frames[:-1]:
            yield states.of(frame)
        yield states.of(told.frames[-1], _documents(made)[0])

    def _taken(self, prompt: Prompt) -> inner.Document:
        return taken(prompt, self._system.layout.codec.pixels)

    def _finished(self, documents: Sequence[inner.Document], given: Options) -> list[Document]:
        config = ways.applied(self._system.config, given)
        return [document for made in self._made(documents, config) for document in _documents(made)]

    def _made(
        self,
        documents: Sequence[inner.Document],
        config: ml_collections.ConfigDict,
        *,
        revise: bool = False,
        record: bool = False,
    ) -> Iterator[generation.Made]:
        """The batches, made when they are asked for; a wrong plan is told at once."""
        system = self._system
        named = config.sampling.grid
        grid = self._learned if named == sampling.LEARNED else named
        plan = sampling.sampling(config, system.paradigm, grid, revise=revise, record=record)
        batch = generation.rows_at_once(system.mesh, len(documents), config.evaluation.batch)
        return self._generator(documents, plan, seed=config.sampling.seed, batch=batch)

    @functools.cached_property
    def _learned(self) -> time_grids.Spacing:
        """Measured once: a program is compiled for each grid."""
        config = ways.changed(self._system.config, {"sampling.grid": sampling.LEARNED})
        system = dataclasses.replace(self._system, config=config)
        return evaluate.spacing(system, self._generator.params)


def _without_training(config: ml_collections.ConfigDict) -> ml_collections.ConfigDict:
    """Batches that fit the devices here, and no figures, which may need files and packages."""
    changed = config.copy_and_resolve_references()
    devices = jax.device_count()
    changed.parts = 1
    for given in (changed, changed.evaluation):
        given.batch = -(-given.batch // devices) * devices
    changed.evaluation.update({"passes": (), "thorough": False, "inception": "", "clip": ""})
    return changed.lock()


def _documents(made: generation.Made) -> list[Document]:
    return [
        Document(shown(document.parts), made.passes, full)
        for document, full in zip(made.documents, made.full, strict=True)
    ]
