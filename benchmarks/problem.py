"""The workload of the speed benchmarks: random documents of one text span and one image."""

import argparse
import dataclasses
import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax

from oneflow_jax import canvas as canvases
from oneflow_jax.canvas import Canvas, InsertPolicy, Modality
from oneflow_jax.data import vocab as vocabs
from oneflow_jax.flows import predictions, tasks, time_couplings, time_samplers
from oneflow_jax.nn import backbone
from oneflow_jax.nn import model as models
from oneflow_jax.paradigms import base, edit_flow, mask_flow, objectives, oneflow
from oneflow_jax.runtime import sharding
from oneflow_jax.samplers import token_sampling
from oneflow_jax.training import optimizer as optimizer_lib
from oneflow_jax.training import step as step_lib
from oneflow_jax.training.train_state import TrainState

OPTIMIZER_CONFIG = optimizer_lib.OptimizerConfig(
    learning_rate=1e-3,
    warmup_steps=100,
    total_steps=10_000,
    end_lr_fraction=0.1,
    b1=0.9,
    b2=0.95,
    weight_decay=0.01,
    max_grad_norm=1.0,
    ema_decay=0.999,
)
TASK_MIXTURE = tasks.TaskMixture(probs=(0.4, 0.2, 0.2, 0.1, 0.1), cond_drop_prob=0.1)


@dataclasses.dataclass(frozen=True)
class WorkloadSizes:
    """Sizes of the network and the batch; each field is also a command-line flag.

    Attributes:
        layers, width, heads, head_width, hidden: sizes of `backbone.TransformerConfig`.
        unroll: number of layers in each iteration of the scan over layers, `scan_unroll`.
        vocab: vocabulary size.
        embed: width of token embeddings.
        channels: number of values in a patch.
        text, image: number of text and image slots in a document; `image` is a square number.
        batch: number of documents.
    """

    layers: int = 6
    width: int = 256
    heads: int = 4
    head_width: int = 64
    hidden: int = 688
    unroll: int = 6
    vocab: int = 512
    embed: int = 128
    channels: int = 48
    text: int = 64
    image: int = 64
    batch: int = 8

    @property
    def num_slots(self) -> int:
        """Number of slots of a document."""
        return self.text + self.image


TINY = WorkloadSizes(
    layers=2, width=32, heads=2, head_width=16, hidden=64, unroll=2, vocab=32, embed=16,
    channels=12, text=8, image=4, batch=2,
)  # fmt: skip
"""Sizes for a quick check that the benchmarks run; the measured times are meaningless."""


def add_flags(parser: argparse.ArgumentParser) -> None:
    """Add a flag for each field of `WorkloadSizes`."""
    for field in dataclasses.fields(WorkloadSizes):
        help_text = f"default: {field.default}"
        parser.add_argument(f"--{field.name}", type=int, metavar="N", help=help_text)


def parse_sizes(flags: argparse.Namespace) -> WorkloadSizes:
    """Return the sizes given by flags; others are defaults, or those of `TINY` with --smoke."""
    values = {field.name: getattr(flags, field.name) for field in dataclasses.fields(WorkloadSizes)}
    changes = {name: value for name, value in values.items() if value is not None}
    return dataclasses.replace(TINY if flags.smoke else WorkloadSizes(), **changes)


@dataclasses.dataclass(frozen=True)
class Workload:
    """A network, its paradigm and optimizer at given sizes."""

    sizes: WorkloadSizes
    name: str = "oneflow"

    @functools.cached_property
    def paradigm(self) -> base.Paradigm:
        """The paradigm with its default settings: x1 prediction, all tasks, cross-entropy loss."""
        s = self.sizes
        shared = {
            "image_prediction": predictions.X1Prediction(),
            "channels": s.channels,
            "task_mixture": TASK_MIXTURE,
            "time_sampler": time_samplers.PowerTimeSampler(),
        }
        words, flat = (6, s.vocab), (("text", 1.0), ("image", 1.0))
        if self.name == "oneflow":
            return oneflow.OneFlow(
                objectives.CrossEntropyObjective(s.vocab), weights=flat, **shared
            )
        if self.name == "mask_flow":
            return mask_flow.MaskFlow(
                s.vocab, (words,), max_mask_weight=10.0, weights=flat, **shared
            )
        side = round(s.image**0.5)
        return edit_flow.EditFlow(
            token_sampling.TokenSpace(s.vocab, words, vocabs.IMAGE, vocabs.END, (side, side)),
            time_coupling=time_couplings.TimeCoupling(
                (0.3, 0.1, 0.4, 0.2), shared.pop("time_sampler")
            ),
            condition_on_text_time=False,
            weights=tuple((term, 1.0) for term in edit_flow.LOSS_TERMS),
            **shared,
        )

    @functools.cached_property
    def model(self) -> models.Model:
        """The network, in float32 and without rematerialization."""
        s = self.sizes
        size = backbone.TransformerConfig(
            s.layers, s.width, s.heads, s.heads, s.head_width, s.hidden, "none", s.unroll,
            jnp.float32,
        )  # fmt: skip
        return models.Model(size, s.vocab, s.embed, self.paradigm.heads)

    @functools.cached_property
    def optimizer(self) -> optax.GradientTransformation:
        """The project's optimizer, with `OPTIMIZER_CONFIG`."""
        return optimizer_lib.optimizer(OPTIMIZER_CONFIG)

    def canvas(self, batch: int) -> Canvas:
        """Return `batch` documents of random content: BOS and text, then one image."""
        s, rng = self.sizes, np.random.default_rng(0)
        slot = np.arange(s.num_slots)
        is_text = slot < s.text
        patch, side = slot - s.text, round(s.image**0.5)
        position = np.stack(
            [
                np.minimum(slot, s.text),
                np.where(is_text, 0, patch // side),
                np.where(is_text, 0, patch % side),
            ],
            axis=-1,
        )
        span = np.where(slot == 0, 1, np.where(is_text, 2, 3))
        row = {
            "modality": np.where(is_text, Modality.TEXT, Modality.IMAGE).astype(np.int32),
            "segment": np.ones(s.num_slots, np.int32),
            "span": span.astype(np.int32),
            "position": position.astype(np.int32),
            "is_given": slot == 0,
            "insertable": np.zeros(s.num_slots, np.int32),
        }
        latents = rng.standard_normal((batch, s.num_slots, s.channels), np.float32)
        ids = rng.integers(0, s.vocab, (batch, s.num_slots), np.int32)
        rows = {name: np.stack([value] * batch) for name, value in row.items()}
        canvas = Canvas(
            ids=np.where(is_text, ids, 0).astype(np.int32),
            latents=np.where(is_text[:, None], np.float32(0), latents),
            **rows,
        )
        return jax.tree.map(jnp.asarray, canvas)

    def prompt(self, batch: int) -> Canvas:
        """Return canvases to sample, in which only BOS is given; `edit_flow` inserts all text."""
        canvas = self.canvas(batch)
        if self.name != "edit_flow":
            return canvas
        exists = canvas.is_given | canvas.is_image
        return canvas.replace(
            modality=jnp.where(exists, canvas.modality, int(Modality.PAD)),
            segment=jnp.where(exists, canvas.segment, 0),
            span=jnp.where(exists, canvas.span, 0),
            position=jnp.where(exists[..., None], canvas.position, 0)
            .at[..., 0]
            .set(jnp.where(canvas.is_image, 1, 0)),
            insertable=jnp.where(canvas.is_given, int(InsertPolicy.TEXT), 0),
        )

    def init_state(self) -> TrainState:
        """Return the initial training state."""
        canvas = self.canvas(1)
        embeds = jnp.zeros((*canvas.ids.shape, self.sizes.embed))
        view = canvases.noisy_canvas(canvas, embeds, canvas.latents, jnp.ones(canvas.ids.shape))
        init = functools.partial(
            step_lib.init_state, model=self.model, optimizer=self.optimizer, view=view
        )
        return jax.jit(lambda key: nn.unbox(init(key)))(jax.random.key(0))

    def train_step(self) -> jax.stages.Wrapped:
        """Return the jitted step (state, canvas) -> (state, metrics); it donates the state."""
        step = functools.partial(
            step_lib.train_step,
            model=self.model,
            paradigm=self.paradigm,
            optimizer=self.optimizer,
            ema_decay=OPTIMIZER_CONFIG.ema_decay,
            num_microbatches=1,
        )
        return jax.jit(step, donate_argnums=0)


def single_device_mesh() -> jax.sharding.Mesh:
    """Return a mesh of one device; a CPU is one device with all its cores."""
    return sharding.make_mesh({"data": 1, "fsdp": 1, "tensor": 1}, jax.devices()[:1])
