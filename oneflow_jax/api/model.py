"""Trained models in Python: load one from the folder of its run and generate documents."""

import dataclasses
import functools
import math
import os
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Unpack

import jax
import ml_collections
from etils import epath

from oneflow_jax import evaluate
from oneflow_jax.api import options as options_lib
from oneflow_jax.api.batch import BatchRun
from oneflow_jax.api.call import Call
from oneflow_jax.api.document import Document, EditResult, Prompt, to_internal, to_public
from oneflow_jax.api.info import ModelInfo
from oneflow_jax.api.options import SamplingOptions
from oneflow_jax.api.state import SamplingStep
from oneflow_jax.build import known_names, paradigms, sampling, values
from oneflow_jax.build import system as system_lib
from oneflow_jax.data import document as inner
from oneflow_jax.data import spelling
from oneflow_jax.errors import UserError, check_integer
from oneflow_jax.generation.generator import Generator
from oneflow_jax.generation.running_batch import GeneratedBatch
from oneflow_jax.runtime import compilation_cache, hub, padding, run_lock, storage, workdir
from oneflow_jax.samplers import time_grids
from oneflow_jax.samplers.base import SamplingPlan
from oneflow_jax.shapes import PyTree

ALL_DEVICES_MESH = {"data": -1, "fsdp": 1, "tensor": 1}


def load(path: str | os.PathLike[str], config: Mapping[str, Any] | None = None) -> "Model":
    """Load the model of a run: the EMA parameters of its newest checkpoint, on all devices.

    `load` writes nothing to the folder, which may be read-only. While `load` reads the parameters,
    training on this machine cannot start in the folder. Compiled programs are stored in the user's
    cache folder (docs/python.md#when-programs-are-compiled).

    Args:
        path: folder of the run (its `--workdir`), local or gs://; folder that `--mode=export`
            wrote; `PRETRAINED`, the small model that is part of this package; or `hf://owner/name`,
            an export on the Hugging Face Hub (`runtime.hub`).
        config: overrides of the run's configuration by full key. Examples:
            `{"sampling.steps": 8}` changes a default of sampling, `{"mesh.fsdp": 4}` shards
            parameters that do not fit one device, and `{"platform": "any"}` allows any platform
            for a model that was trained on TPUs. `{"compilation_cache": True}` stores compiled
            programs in the folder of the run, and False does not store them.

    Raises:
        UserError: the folder or its checkpoint does not exist, a training process on this machine
            uses the folder, the run trained a codec or compared models, or an override is invalid.

    Examples:
        >>> import oneflow_jax as of
        >>> model = of.load(of.PRETRAINED, {"sampling.steps": 4})
    """
    if not isinstance(path, str | os.PathLike) or not str(path):
        raise UserError(f"workdir={path!r}: not the path of a folder. Give the folder of a run.")
    is_on_hub = str(path).startswith(hub.SCHEME)
    folder = hub.download(str(path)) if is_on_hub else storage.resolve_path(path, "workdir")
    saved = workdir.load_config(folder, field="workdir")
    if "autoencoder" in saved or "models" in saved:
        raise UserError(
            f"workdir={folder}: this run trained a codec or compared models. Give the folder of a "
            "run that trained a document model."
        )
    if not workdir.has_checkpoints(folder):
        raise UserError(f"workdir={folder}: no checkpoint. Train first, with --mode=train.")
    saved.mesh.update(ALL_DEVICES_MESH)
    run_config = options_lib.override_config(saved, {} if config is None else config)
    system_lib.check_platform(run_config)
    with run_lock.read_lock(folder):
        workdir.check_config(folder, run_config, may_write=False)
        _enable_compilation_cache(folder, (config or {}).get("compilation_cache"))
        system = system_lib.system(_make_inference_config(run_config), folder, "sample")
        return Model(system, evaluate.load_ema_params(system, folder))


class Model:
    """A trained model that fills the gaps of documents and edits finished documents.

    A call compiles a program for the solver, the number of steps, whether guidance is used, the
    number of documents per device (rounded up to 2, 4, 6, 8, 12, ...) and their length (rounded up
    to 32, 48, 64, 96, ... slots). Later calls reuse the program, for any prompts, seed, guidance
    scales, temperature, top-p, top-k, remasking probability, times and start of an edit.
    """

    def __init__(self, system: system_lib.System, params: PyTree) -> None:
        """Create a model from a system and EMA parameters; `load` gets both from a run's folder."""
        self._system = system
        self._generator = Generator(system, params)

    def __repr__(self) -> str:
        return f"<oneflow_jax model {self.config.name!r} ({self.config.paradigm.name})>"

    @property
    def num_compilations(self) -> int:
        """Number of sampling programs that calls of this model compiled, or loaded from the disk.

        Models of one process with equal configurations share their programs.
        """
        return self._generator.num_compilations

    @property
    def config(self) -> ml_collections.ConfigDict:
        """A copy of the run's configuration, with the overrides that were passed to `load`."""
        return self._system.config.copy_and_resolve_references()

    def info(self) -> ModelInfo:
        """Describe the model: its sizes, tasks, limits, and the words and names that it knows.

        Examples:
            >>> model.info().paradigm
            'oneflow'
        """
        system, layout = self._system, self._system.layout
        return ModelInfo(
            name=system.config.name,
            paradigm=system.config.paradigm.name,
            parameters=sum(leaf.size for leaf in jax.tree.leaves(self._generator.params)),
            tasks=paradigms.list_tasks(system.config, system.paradigm),
            pixels=layout.codec.pixels,
            aspect_ratios=layout.aspect_ratios,
            image_slots=math.prod(layout.codec.grid) + layout.has_markers,
            gap_tokens=None if layout.variable_length else layout.text_slots,
            slots=layout.length,
            chooses_parts=layout.variable_length or system.known_layouts is not None,
            can_edit=system.paradigm.supports_editing,
            words=tuple(sorted(layout.vocab.words)),
            names=self._names,
        )

    def generate(
        self, prompt: Prompt, *, samples: int = 1, **options: Unpack[SamplingOptions]
    ) -> list[Document]:
        """Fill the gaps of one prompt `samples` times, and return the documents.

        Raises:
            UserError: the prompt or an option is invalid.

        Examples:
            >>> documents = model.generate("a picture of a tiger: <image>", samples=2, steps=4)
            >>> [len(document.images) for document in documents]
            [1, 1]
        """
        check_integer("samples", samples, 1, values.MAX_SAMPLES)
        return self._generate_documents([self._to_internal(prompt)] * int(samples), options)

    def generate_batch(
        self, prompts: Sequence[Prompt], **options: Unpack[SamplingOptions]
    ) -> list[Document]:
        """Fill the gaps of several prompts, and return one document per prompt.

        Each document depends on the seed and on the index of its prompt in the list. More than
        `evaluation.batch_size` prompts are processed in several batches.

        Raises:
            UserError: a prompt or an option is invalid.

        Examples:
            >>> documents = model.generate_batch(["a lion: <image>", "<text> <image>"], steps=4)
            >>> documents[0].text
            'a lion:'
        """
        if not isinstance(prompts, list | tuple):
            raise UserError(f"prompts={prompts!r}: must be a list of prompts.")
        return self._generate_documents([self._to_internal(prompt) for prompt in prompts], options)

    def edit(
        self, document: Prompt, *, start: float | None = None, **options: Unpack[SamplingOptions]
    ) -> EditResult:
        """Edit a finished document; supported by edit_flow, oneflow and mask_flow.

        Args:
            document: document without gaps; any part of it may change.
            start: time t at which sampling starts from the document, above 0 and below 1. The
                closer `start` is to 0, the more the document changes. The default is
                `sampling.edit_start`.
            **options: see `SamplingOptions`.

        Raises:
            UserError: the document has gaps, an option is invalid, or the model does not support
                editing.

        Examples:
            >>> (document,) = model.generate("<text> <image>", steps=4)
            >>> for edit in model.edit(document, start=0.5, steps=4).edits:
            ...     text = str(edit)  # such as "3: lion -> tiger"
        """
        run = self.start_batch([self.prepare_edit(document, start=start, **options)])
        while not run.is_done:
            run.advance(num_steps=run.num_steps)
        return run.results()[0].documents[0]

    def stream(self, prompt: Prompt, **options: Unpack[SamplingOptions]) -> Iterator[SamplingStep]:
        """Fill the gaps of one prompt and yield each step while sampling runs, then the result.

        Each yielded step except the last shows the document before a step of the sampler, with the
        prediction of this step, which takes one more forward pass. The document of the last one is
        the document that `generate` returns for the same options.

        Raises:
            UserError: the prompt or an option is invalid; raised by the call itself, before the
                first step is requested.

        Examples:
            >>> steps = list(model.stream("<text> <image>", steps=4))
            >>> steps[0].t, steps[-1].t
            (0.0, 1.0)
        """
        return self._iter_steps(self.prepare_generate(prompt, **options))

    def _iter_steps(self, call: Call) -> Iterator[SamplingStep]:
        run = self.start_batch([call])
        while not run.is_done:
            (step,) = run.advance([0])[0]
            yield step
        yield from run.results(shows_states=True)[0].last_steps

    def prepare_generate(
        self, prompt: Prompt, *, samples: int = 1, **options: Unpack[SamplingOptions]
    ) -> Call:
        """Check a call of `generate`, and return it for `start_batch`.

        Raises:
            UserError: the prompt or an option is invalid.
        """
        check_integer("samples", samples, 1, values.MAX_SAMPLES)
        config = options_lib.apply_options(self._system.config, options)
        return self._prepare(self._to_internal(prompt), int(samples), config, edit=False)

    def prepare_edit(
        self, document: Prompt, *, start: float | None = None, **options: Unpack[SamplingOptions]
    ) -> Call:
        """Check a call of `edit`, and return it for `start_batch`.

        Raises:
            UserError: the document has gaps, an option is invalid, or the model does not support
                editing.
        """
        config = options_lib.apply_options(self._system.config, options, start)
        return self._prepare(self._to_internal(document), 1, config, edit=True)

    def start_batch(self, calls: Sequence[Call], max_rows: int | None = None) -> BatchRun:
        """Start a batch of calls with equal values of `Call.batch_key`.

        Each call generates the documents that it generates alone.

        Args:
            calls: calls of this model, from `prepare_generate` or `prepare_edit`.
            max_rows: maximum number of rows of the batch; the calls must have at most this many
                documents. None means `evaluation.batch_size`.
        """
        most = self._system.config.evaluation.batch_size if max_rows is None else max_rows
        return BatchRun(self._generator, calls, padding.round_max_rows(self._system.mesh, most))

    def _prepare(
        self,
        document: inner.Document,
        samples: int,
        config: ml_collections.ConfigDict,
        *,
        edit: bool,
    ) -> Call:
        plan = self._make_plan(config, edit=edit)
        seed, documents = config.sampling.seed, [document] * samples
        if not edit:
            choose = self._generator.layouts.choose
            documents = choose(documents, [seed] * samples, range(samples))
        # Equal prompts, whose images may be large, are laid out only once.
        length = self._generator.row_length(list(dict.fromkeys(documents)), edit=edit)
        return Call(documents, plan, seed, length)

    def list_warnings(self, prompt: Prompt) -> list[str]:
        """List a warning for each letter or word of a prompt that the model does not know.

        The methods that generate or edit log these warnings before they sample, each warning only
        once.

        Raises:
            UserError: the prompt is invalid.

        Examples:
            >>> warnings = model.list_warnings("a picture of a zeppelin: <image>")
        """
        return spelling.list_warnings(self._system.layout.vocab, self._parse(prompt))

    def _parse(self, prompt: Prompt) -> inner.Document:
        layout = self._system.layout
        return to_internal(prompt, layout.codec.pixels, layout.shapes.crop_sizes)

    def _to_internal(self, prompt: Prompt) -> inner.Document:
        document = self._parse(prompt)
        spelling.log_warnings(self._system.layout.vocab, document)
        return document

    def _generate_documents(
        self, documents: Sequence[inner.Document], options: SamplingOptions
    ) -> list[Document]:
        config = options_lib.apply_options(self._system.config, options)
        return [
            document
            for batch in self._generate_batches(documents, config)
            for document in _to_documents(batch)
        ]

    def _generate_batches(
        self,
        documents: Sequence[inner.Document],
        config: ml_collections.ConfigDict,
    ) -> Iterator[GeneratedBatch]:
        """Check the sampling plan, and return an iterator that generates each batch on demand."""
        plan = self._make_plan(config, edit=False)
        batch = padding.padded_batch_size(
            self._system.mesh, len(documents), config.evaluation.batch_size
        )
        return self._generator(documents, plan, seed=config.sampling.seed, batch=batch)

    def _make_plan(self, config: ml_collections.ConfigDict, *, edit: bool) -> SamplingPlan:
        grid_name = config.sampling.time_grid
        grid = self._learned_grid if grid_name == sampling.LEARNED_GRID else grid_name
        return sampling.sampling_plan(config, self._system.paradigm, grid, edit=edit)

    @functools.cached_property
    def _names(self) -> tuple[str, ...]:
        """The names in the training data, listed only once because that reads many documents."""
        return known_names.list_names(self._system.config)

    @functools.cached_property
    def _learned_grid(self) -> time_grids.GridSpec:
        """The learned time grid, estimated only once because that takes many forward passes."""
        config = options_lib.override_config(
            self._system.config, {"sampling.time_grid": sampling.LEARNED_GRID}
        )
        system = dataclasses.replace(self._system, config=config)
        return evaluate.time_grid(system, self._generator.params)


def _enable_compilation_cache(folder: epath.Path, choice: bool | None) -> None:
    """Store compiled programs in the run's folder (True), nowhere (False) or the user's folder."""
    if choice:
        compilation_cache.enable(folder / workdir.COMPILATION_CACHE)
    elif choice is None:
        compilation_cache.enable_user_cache()


def _make_inference_config(config: ml_collections.ConfigDict) -> ml_collections.ConfigDict:
    """Return a configuration for inference on the devices of this process.

    Batch sizes are rounded up to a multiple of the number of devices. Metrics are disabled because
    they may need files and packages that are not installed.
    """
    changed = config.copy_and_resolve_references()
    devices = jax.device_count()
    changed.grad_accum_steps = 1
    for section in (changed, changed.evaluation):
        section.batch_size = -(-section.batch_size // devices) * devices
    changed.evaluation.update(
        {"nfe": (), "full_metrics": False, "inception_weights": "", "clip_dir": ""}
    )
    return changed.lock()


def _to_documents(batch: GeneratedBatch) -> list[Document]:
    return [
        Document(to_public(document.parts), batch.nfe, truncated)
        for document, truncated in zip(batch.documents, batch.truncated, strict=True)
    ]
