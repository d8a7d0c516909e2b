"""Build the objects of a run from its configuration.

`build.data` does it for data and codecs, `build.paradigms` for paradigms, `build.sampling` for
sampling; `autoencoder_training.system` for the training of autoencoders. Below these modules there
are objects with typed fields.
"""

import dataclasses
import logging
import operator

import jax
import jax.numpy as jnp
import ml_collections
import optax
from etils import epath

from oneflow_jax.build import data, evaluation, init_from, paradigms, sampling
from oneflow_jax.canvas import Canvas, NoisyCanvas
from oneflow_jax.costs import flops
from oneflow_jax.data import layout as layouts
from oneflow_jax.data import pipeline, streams
from oneflow_jax.errors import UserError
from oneflow_jax.evaluation import base as base_lib
from oneflow_jax.nn import attention_ops, backbone, splash_attention, two_tower
from oneflow_jax.nn.model import Model
from oneflow_jax.paradigms import base
from oneflow_jax.paradigms import likelihood as likelihood_lib
from oneflow_jax.runtime import sharding
from oneflow_jax.shapes import Array, Key
from oneflow_jax.training import eval_loss, likelihood, step, update
from oneflow_jax.training import optimizer as optimizer_lib
from oneflow_jax.training.train_state import TrainState

POSITIVE_KEYS = (
    "steps",
    "batch",
    "parts",
    "data.length",
    "data.streams",
    "logging.every",
    "checkpoint.keep",
    "evaluation.every",
    "evaluation.clocks",
    "evaluation.samples",
    "evaluation.batch",
    "sampling.samples",
    "sampling.steps",
)
"""What there must be one of at least."""


@dataclasses.dataclass(frozen=True)
class System:
    """Everything that a run is made of, but its state.

    Attributes:
        config: the configuration it was built from, for the record.
        mesh: the devices.
        layout: how documents become slots, with vocabulary and codec.
        model, paradigm: what is trained, and how.
        settings, optimizer: of training.
    """

    config: ml_collections.ConfigDict
    mesh: jax.sharding.Mesh
    layout: layouts.Layout
    model: Model
    paradigm: base.Paradigm
    settings: optimizer_lib.OptimizerConfig
    optimizer: optax.GradientTransformation
    amounts = ("documents", "slots")

    @property
    def flops(self) -> float:
        """Of the matrix products of one step."""
        network = flops.from_model(self.model, self.layout.codec.channels)
        return flops.train(network, self.config.batch, self.config.data.length)

    @property
    def placement(self) -> jax.sharding.NamedSharding:
        """Where training batches lie."""
        return sharding.batch_sharding(self.mesh)

    def first_state(self, key: Key[Array, ""]) -> TrainState:
        """The state before the first step, boxed in linen's partitioning metadata."""
        # As many rows as a batch has, since devices share them out; nothing is computed of them.
        lengths = (self.config.batch, self.layout.length)
        view = NoisyCanvas(
            kind=jnp.zeros(lengths, jnp.int32),
            segment=jnp.zeros(lengths, jnp.int32),
            position=jnp.zeros((*lengths, 3), jnp.int32),
            embeds=jnp.zeros((*lengths, self.config.model.embed_width)),
            latents=jnp.zeros((*lengths, self.layout.codec.channels)),
            clock=jnp.zeros(lengths),
        )
        return step.init_state(key, model=self.model, optimizer=self.optimizer, view=view)

    def begun(self, state: TrainState) -> TrainState:
        """The first state with what it takes over from the run in `config.start`."""
        return init_from.init_from_checkpoint(self, state)

    def batches(self) -> streams.BatchStreams:
        """The endless training batches, on the devices."""
        given = self.config.data
        return self._batches("train", workers=given.workers, cache=given.cache)

    def update(self, state: TrainState, canvas: Canvas) -> tuple[TrainState, update.Metrics]:
        """The state after one step on a batch, and what to log of it."""
        return step.train_step(
            state,
            canvas,
            model=self.model,
            paradigm=self.paradigm,
            optimizer=self.optimizer,
            ema_decay=self.settings.ema,
            num_microbatches=self.config.parts,
            freeze=self.settings.frozen,
        )

    def losses(self, split: str = "heldout") -> eval_loss.EvalLosses:
        """What tells the losses of a batch of one split."""
        batches = self._batches(split, workers=0, cache=0)
        clocks = self.config.evaluation.clocks
        return eval_loss.EvalLosses(batches, self.model, self.paradigm, clocks, self.config.seed)

    def likelihood(self, split: str = "heldout") -> likelihood.Likelihood | None:
        """What tells how likely a split's words are; None if the paradigm cannot."""
        scorer = likelihood_lib.likelihood_bound(self.paradigm)
        if scorer is None:
            return None
        batches = self._batches(split, workers=0, cache=0)
        available = len(data.open_pipeline_split(self.config, self.layout, split))
        return likelihood.Likelihood(batches, available, self.model, scorer, self.config.seed)

    def _batches(self, split: str, *, workers: int, cache: int) -> streams.BatchStreams:
        return pipeline.canvas_batches(
            data.open_pipeline_split(self.config, self.layout, split),
            self.layout,
            batch_size=self.config.batch,
            num_streams=self.config.data.streams,
            seed=self.config.seed,
            num_workers=workers,
            cache_size=cache,
            sharding=self.placement,
        )


def system(config: ml_collections.ConfigDict, folder: epath.Path) -> System:
    """Everything that a run in `folder` is made of.

    The data set is prepared and the tokenizer learned if they are not there yet.

    Raises:
        UserError: a value in the configuration is wrong, alone or beside another.
    """
    check_platform(config)
    _check_positive(config)
    init_from.validate(config, folder)
    mesh = _make_mesh(config, jax.devices())
    streams.check_divisible(config.batch, config.data.streams)
    built = _assemble(config, mesh, data.make_layout(config, folder))
    # What would fail after training is refused before.
    evaluation.validate(config)
    return built


def abstract_system(config: ml_collections.ConfigDict, devices: list[jax.Device]) -> System:
    """The system as it would be on other devices: to be compiled for them, and not to be run.

    It needs neither them nor data nor tokenizer.

    Raises:
        UserError: a value in the configuration is wrong, alone or beside another.
    """
    _check_positive(config)
    mesh = _make_mesh(config, devices)
    return _assemble(config, mesh, data.abstract_layout(config))


def _make_mesh(config: ml_collections.ConfigDict, devices: list[jax.Device]) -> jax.sharding.Mesh:
    mesh = sharding.make_mesh(config.mesh.to_dict(), devices)
    sharding.check_batch_divides(mesh, config.batch, config.parts)
    for field, size, axis in (
        ("data.length", config.data.length, "slots"),
        ("model.heads", config.model.heads, "heads"),
        ("model.kv_heads", config.model.kv_heads, "kv_heads"),
    ):
        sharding.check_divides(mesh, field, size, axis)
    return mesh


def _assemble(
    config: ml_collections.ConfigDict, mesh: jax.sharding.Mesh, layout: layouts.Layout
) -> System:
    paradigm = paradigms.paradigm(config, layout.vocab, layout.codec)
    _check_attention(config, paradigm, mesh)
    settings = optimizer_lib.OptimizerConfig(steps=config.steps, **config.optimizer)
    sampling.validate(config, paradigm)
    return System(
        config=config,
        mesh=mesh,
        layout=layout,
        model=_make_model(config, layout.vocab.padded_size(), paradigm),
        paradigm=paradigm,
        settings=settings,
        optimizer=optimizer_lib.optimizer(settings),
    )


def check_platform(config: ml_collections.ConfigDict) -> None:
    """Refuses to start where the configuration cannot run.

    Raises:
        UserError: the configuration is for another kind of device; it says which, and what else
            to run.
    """
    needs = config.platform
    found = jax.devices()
    if needs not in ("any", found[0].platform):
        raise UserError(
            f"{config.name} needs {needs.upper()} devices, and JAX found {len(found)} "
            f"{found[0].platform.upper()} device(s) here ({found[0].device_kind}). {config.needs} "
            "On this machine run --config=configs/quickstart.py (15 minutes on 2 cores) or "
            "--config=configs/digits.py instead."
        )


def supported_suite(system: System) -> base_lib.EvalSuite:
    """What the configured data set asks of a model, as far as it can do that at all."""
    whole = evaluation.make_suite(system.config, system.layout)
    able = tuple(
        task
        for task in whole.tasks
        if (system.paradigm.revises or not task.revises)
        # Who writes all words first has not seen the pictures then.
        and not (system.layout.text_first and task.captions)
    )
    return dataclasses.replace(whole, tasks=able)


def _check_positive(config: ml_collections.ConfigDict) -> None:
    for field in POSITIVE_KEYS:
        value = operator.attrgetter(field)(config)
        if value < 1:
            raise UserError(f"{field}={value} must be at least 1.")


def _make_model(
    config: ml_collections.ConfigDict, vocab_size: int, paradigm: base.Paradigm
) -> Model:
    values = config.model.to_dict()
    embed_width = values.pop("embed_width")
    if values["remat"] not in backbone.REMAT:
        raise UserError(f"model.remat={values['remat']!r} is none of {', '.join(backbone.REMAT)}.")
    if values["head_width"] % 8 or values["heads"] % values["kv_heads"]:
        raise UserError(
            f"model: head_width={values['head_width']} must be a multiple of 8, and heads="
            f"{values['heads']} one of kv_heads={values['kv_heads']}."
        )
    size = backbone.TransformerConfig(**values | {"dtype": jnp.dtype(values["dtype"])})
    make = two_tower.TwoTowerModel if config.paradigm.name in paradigms.TWO_TOWER else Model
    return make(
        size=size,
        vocab=vocab_size,
        embed_width=embed_width,
        heads=paradigm.heads,
        attend=paradigm.attend,
    )


def _check_attention(
    config: ml_collections.ConfigDict, paradigm: base.Paradigm, mesh: jax.sharding.Mesh
) -> None:
    way, platform = config.model.attention, mesh.devices.flat[0].platform
    if way not in attention_ops.IMPLEMENTATIONS:
        raise UserError(
            f"model.attention={way!r} is none of {', '.join(attention_ops.IMPLEMENTATIONS)}."
        )
    if way == "splash" and paradigm.attend not in splash_attention.SUPPORTED_MASKS:
        raise UserError(
            f"model.attention='splash' is a kernel for rules that all rows share; in "
            f"{config.paradigm.name} a slot sees {paradigm.attend.value}. Give 'blocks'."
        )
    if mesh.shape["sequence"] > 1:
        count = mesh.shape["sequence"]
        logging.info("mesh.sequence=%d: in training attention is a ring of 'blocks'.", count)
    elif way == "splash" and platform != "tpu":
        logging.warning("model.attention='splash' on %s is interpreted: very slow.", platform)
