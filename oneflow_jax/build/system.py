"""Builder of a run's objects from its configuration.

This module uses the builders of the parts: `build.data` for data and codecs, `build.network` for
the network, `build.paradigms` for paradigms, and `build.sampling` for sampling plans.
`build.autoencoder_system` builds the objects that train autoencoders. Models, data and training
take typed objects instead of a configuration.
"""

import dataclasses
import functools
import logging

import jax
import jax.numpy as jnp
import ml_collections
import optax
from etils import epath

from oneflow_jax.build import (
    custom_data,
    data,
    evaluation,
    finetune,
    init_from,
    paradigms,
    row_lengths,
    sampling,
    values,
)
from oneflow_jax.build import document_losses as document_rows
from oneflow_jax.build import network as network_lib
from oneflow_jax.build.loop_config import make_loop_config
from oneflow_jax.canvas import Canvas, NoisyCanvas
from oneflow_jax.costs import flops
from oneflow_jax.data import layout as layouts
from oneflow_jax.data import pipeline, streams
from oneflow_jax.data.known_layouts import KnownLayouts
from oneflow_jax.errors import UserError
from oneflow_jax.evaluation import base as base_lib
from oneflow_jax.nn import attention_ops, lora
from oneflow_jax.nn.model import Model
from oneflow_jax.paradigms import base
from oneflow_jax.paradigms import likelihood as likelihood_lib
from oneflow_jax.runtime import metric_writer, sharding, workdir
from oneflow_jax.shapes import Array, Key, PyTree
from oneflow_jax.training import (
    document_losses,
    eval_loss,
    flow_map,
    likelihood,
    step,
    train_state,
    update,
)
from oneflow_jax.training import optimizer as optimizer_lib
from oneflow_jax.training.loop_config import LoopConfig
from oneflow_jax.training.train_state import TrainState


@dataclasses.dataclass(frozen=True)
class System:
    """All objects of a run, except its training state.

    Attributes:
        config: the configuration from which the system was built.
        mesh: the device mesh.
        layout: converter of documents to slots, with vocabulary and codec.
        model: the network.
        paradigm: the paradigm that the network is trained with.
        optimizer_config: settings of the optimizer.
        optimizer: the optimizer.
        known_layouts: layouts of the training documents; None if they are not known, or if the
            model chooses the layout.
        adapter: the parameters to train in place of those of the network, with LoRA.
    """

    config: ml_collections.ConfigDict
    mesh: jax.sharding.Mesh
    layout: layouts.Layout
    model: Model
    paradigm: base.Paradigm
    optimizer_config: optimizer_lib.OptimizerConfig
    optimizer: optax.GradientTransformation
    known_layouts: KnownLayouts | None = None
    adapter: lora.LoRA = step.FULL
    throughput_keys = ("documents", "slots")

    @property
    def flops(self) -> float:
        """FLOPs of the matrix products of one training step."""
        network = flops.from_model(self.model, self.layout.codec.channels)
        work = flops.train(network, self.config.batch_size, self.config.data.sequence_length)
        if self.config.paradigm.flow_map:
            work *= flow_map.FLOPS_FACTOR
        if self.optimizer_config.name == "muon":
            work += flops.muon(network, optimizer_lib.NEWTON_SCHULZ_STEPS)
        return work

    @property
    def row_losses(self) -> step.RowLosses:
        """The losses of each row in training."""
        has_map = self.config.paradigm.flow_map
        return flow_map.per_row_losses if has_map else step.denoising_losses

    @functools.cached_property
    def loop_config(self) -> LoopConfig:
        """Settings of the training loop."""
        return make_loop_config(self.config)

    @functools.cached_property
    def abstract_state(self) -> TrainState:
        """Shapes, dtypes and shardings of the training state, without its values."""
        return train_state.abstract_state(self)

    @property
    def batch_sharding(self) -> jax.sharding.NamedSharding:
        """The sharding of training batches."""
        return sharding.batch_sharding(self.mesh)

    def init_state(self, key: Key[Array, ""]) -> TrainState:
        """Return the initial state, boxed in linen's partitioning metadata."""
        # Only the shape of this input matters. It has as many rows as a batch because rows are
        # sharded over devices.
        lengths = (self.config.batch_size, self.layout.length)
        view = NoisyCanvas(
            modality=jnp.zeros(lengths, jnp.int32),
            segment=jnp.zeros(lengths, jnp.int32),
            position=jnp.zeros((*lengths, 3), jnp.int32),
            embeds=jnp.zeros((*lengths, self.config.model.embed_width)),
            latents=jnp.zeros((*lengths, self.layout.codec.channels)),
            time=jnp.zeros(lengths),
        )
        return step.init_state(
            key, model=self.model, optimizer=self.optimizer, view=view, adapter=self.adapter
        )

    def initialize_from(self, state: TrainState) -> TrainState:
        """Return the initial state with the parameters of the run in `config.init_from`."""
        state = init_from.init_from_checkpoint(self, state)
        if finetune.is_finetuning(self.config):
            counts = optimizer_lib.count_trained(state.params, self.optimizer_config.freeze)
            documents = len(data.open_split(self.config, "train"))
            lengths = row_lengths.describe(self.config, self.layout)
            finetune.log_summary(self.config, self.layout.vocab, counts, documents, lengths)
        return state

    def merge_params(self, params: PyTree) -> PyTree:
        """Return the parameters of the network for the trained parameters of a state."""
        return self.adapter.merge(params)

    def train_batches(self) -> streams.BatchStreams:
        """Return the endless stream of training batches, as arrays on the devices."""
        data_config = self.config.data
        return self._batches(
            "train", num_workers=data_config.num_workers, cache_size=data_config.cache_size
        )

    def train_step(self, state: TrainState, canvas: Canvas) -> tuple[TrainState, update.Metrics]:
        """Return the state after one step on a batch, and the metrics to log."""
        return step.train_step(
            state,
            canvas,
            model=self.model,
            paradigm=self.paradigm,
            optimizer=self.optimizer,
            ema_decay=self.optimizer_config.ema_decay,
            num_microbatches=self.config.grad_accum_steps,
            freeze=self.optimizer_config.freeze,
            row_losses=self.row_losses,
            adapter=self.adapter,
        )

    def eval_losses(self, split: str = "heldout") -> eval_loss.EvalLosses:
        """Return a function that maps parameters to the losses of one batch of a split."""
        batches = self._batches(split, num_workers=0, cache_size=0)
        time_bins = self.config.evaluation.time_bins
        train = self._batches("train", num_workers=0, cache_size=0)
        return eval_loss.EvalLosses(
            batches, train, self.model, self.paradigm, time_bins, self.config.seed
        )

    def document_losses(self) -> document_losses.DocumentLosses | None:
        """Return a function that maps parameters to losses of single documents.

        The result is None if `evaluation.loss_documents` is 0, or if a split has no document with
        text and images.
        """
        rows = document_rows.make_rows(self.config, self.layout, self.batch_sharding)
        if not rows:
            return None
        match = (
            document_rows.measure_caption_match(self.config)
            if custom_data.is_custom(self.config)
            else {}
        )
        time_bins = self.config.evaluation.time_bins
        return document_losses.DocumentLosses(
            rows, self.model, self.paradigm, time_bins, self.config.seed, match
        )

    def likelihood(self, split: str = "heldout") -> likelihood.Likelihood | None:
        """Return a function that maps parameters to the likelihood of a split's text.

        The result is None if neither the likelihood nor a bound is known for the paradigm.
        """
        bound = likelihood_lib.likelihood_bound(self.paradigm)
        if bound is None:
            return None
        batches = self._batches(split, num_workers=0, cache_size=0)
        available = len(data.open_pipeline_split(self.config, self.layout, split))
        return likelihood.Likelihood(
            batches, available, self.model, bound.paradigm, bound.exact, self.config.seed
        )

    def _batches(self, split: str, *, num_workers: int, cache_size: int) -> streams.BatchStreams:
        return pipeline.canvas_batches(
            data.open_pipeline_split(self.config, self.layout, split),
            self.layout,
            batch_size=self.config.batch_size,
            num_streams=self.config.data.num_streams,
            seed=self.config.seed,
            num_workers=num_workers,
            cache_size=cache_size,
            sharding=self.batch_sharding,
        )


def system(
    config: ml_collections.ConfigDict,
    folder: epath.Path,
    mode: str = "train",
    *,
    accept_changed_data: bool = False,
) -> System:
    """Build the objects of the run in `folder`.

    The first call for a run prepares the data set and trains the tokenizer.

    Args:
        config: the run's configuration.
        folder: the run's folder.
        mode: mode of the command line; sampling and exporting do not read the user's own data.
        accept_changed_data: whether a run that was trained on other data may continue.

    Raises:
        UserError: a value in the configuration is wrong or contradicts another value, or the data
            differs from the data of the run.
    """
    config = workdir.expand_paths(config)
    values.validate(config)
    check_platform(config)
    init_from.validate(config, folder)
    if finetune.is_finetuning(config) and mode in ("train", "prepare"):
        accepted = accept_changed_data or mode == "prepare"
        finetune.check_start(config, folder, accept_changes=accepted)
    mesh = _make_mesh(config, jax.devices())
    streams.check_divisible(config.batch_size, config.data.num_streams)
    # Check all values now: otherwise errors would appear only after data preparation or training.
    evaluation.validate(config)
    make_loop_config(config)
    if mode in ("train", "prepare"):
        _assemble(config, mesh, data.abstract_layout(config))
    layout = data.make_layout(config, folder, mode, accept_changed_data=accept_changed_data)
    return dataclasses.replace(
        _assemble(config, mesh, layout, finetune.make_adapter(config, folder, layout.vocab)),
        known_layouts=data.load_known_layouts(config, folder, layout, mode),
    )


def abstract_system(config: ml_collections.ConfigDict, devices: list[jax.Device]) -> System:
    """Build a system that can compile programs but not run them, without data or a tokenizer.

    The devices need not be attached.

    Raises:
        UserError: a value in the configuration is wrong or contradicts another value.
    """
    values.validate(config)
    mesh = _make_mesh(config, devices)
    return _assemble(config, mesh, data.abstract_layout(config))


def _make_mesh(config: ml_collections.ConfigDict, devices: list[jax.Device]) -> jax.sharding.Mesh:
    mesh = sharding.make_mesh(config.mesh.to_dict(), devices)
    sharding.check_batch_divides(mesh, config.batch_size, config.grad_accum_steps)
    parts = config.grad_accum_steps * sharding.num_shards(mesh, "rows")
    if config.paradigm.flow_map and config.batch_size % (parts * flow_map.ROWS_PER_MAP_ROW):
        raise UserError(
            f"batch_size={config.batch_size}: with paradigm.flow_map, every second row learns the "
            f"flow map, but a device has {config.batch_size // parts} rows of a microbatch. Choose "
            f"a multiple of {parts * flow_map.ROWS_PER_MAP_ROW}."
        )
    for field, size, axis in (
        ("data.sequence_length", config.data.sequence_length, "slots"),
        ("model.heads", config.model.heads, "heads"),
        ("model.kv_heads", config.model.kv_heads, "kv_heads"),
    ):
        sharding.check_divides(mesh, field, size, axis)
    return mesh


def _assemble(
    config: ml_collections.ConfigDict,
    mesh: jax.sharding.Mesh,
    layout: layouts.Layout,
    adapter: lora.LoRA = step.FULL,
) -> System:
    paradigm = paradigms.paradigm(config, layout.vocab, layout.codec)
    _check_attention(config, paradigm, mesh)
    settings = optimizer_lib.OptimizerConfig(
        total_steps=config.steps,
        **config.optimizer.to_dict() | {"freeze": adapter.freeze(config.optimizer.freeze)},
    )
    sampling.validate(config, paradigm)
    return System(
        config=config,
        mesh=mesh,
        layout=layout,
        model=network_lib.make_model(config, layout.vocab.padded_size(), paradigm),
        paradigm=paradigm,
        optimizer_config=settings,
        optimizer=optimizer_lib.optimizer(settings),
        adapter=adapter,
    )


def check_platform(config: ml_collections.ConfigDict) -> None:
    """Check that JAX runs on the platform that the configuration needs.

    Raises:
        UserError: the devices of this machine belong to another platform.
    """
    needs = config.platform
    devices = jax.devices()
    if needs not in ("any", devices[0].platform):
        raise UserError(
            f"platform={needs}: {config.name} needs {needs.upper()} devices, but JAX found "
            f"{len(devices)} {devices[0].platform.upper()} device(s) ({devices[0].device_kind}). "
            f"{config.platform_help} "
            "On this machine run --config=configs/quickstart.py (5 minutes on 2 cores) or "
            "--config=configs/digits.py instead."
        )


def supported_suite(system: System) -> base_lib.EvalSuite:
    """Return the evaluation suite of the data set, with the tasks that the model supports."""
    suite = evaluation.make_suite(system.config, system.layout)
    supported = tuple(
        task
        for task in suite.tasks
        if (system.paradigm.supports_editing or not task.is_editing)
        # A model that writes all text first cannot caption images.
        and not (system.layout.images_last and task.is_captioning)
    )
    return dataclasses.replace(suite, tasks=supported)


def _check_attention(
    config: ml_collections.ConfigDict, paradigm: base.Paradigm, mesh: jax.sharding.Mesh
) -> None:
    """Check that the attention kernel supports the run; log what "auto" chooses on accelerators."""
    implementation, pattern = config.model.attention, paradigm.attention_pattern
    if pattern not in attention_ops.KERNEL_PATTERNS.get(implementation, (pattern,)):
        raise UserError(
            f"model.attention={implementation!r}: this kernel supports only causal and "
            f"bidirectional masks. In {config.paradigm.name} a slot attends to {pattern.value}. "
            "Use 'auto' or 'blockwise'."
        )
    with sharding.mesh_context(mesh):
        problem = attention_ops.describe_problem(
            pattern,
            config.data.sequence_length,
            config.model.dtype,
            config.model.head_width,
            score_cap=config.model.score_cap,
            has_window=0 < config.model.sliding_window < config.data.sequence_length,
        )
    attention_ops.resolve_implementation(implementation, problem)
    if mesh.shape["context"] > 1:
        count = mesh.shape["context"]
        logging.info("mesh.context=%d: training uses ring attention, not model.attention.", count)
    elif implementation == "auto" and jax.default_backend() != "cpu":  # A CPU has no kernels.
        chosen, reason = attention_ops.choose_implementation(problem)
        metric_writer.log_once(
            "model.attention='auto': whole rows use %s, because %s.", chosen, reason
        )
