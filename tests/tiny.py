"""A tiny system on toy data: small, but with all parts of a real one."""

import contextlib
import dataclasses
import functools
import pathlib
from collections.abc import Iterator, Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax

from oneflow_jax import canvas as canvases
from oneflow_jax.canvas import Canvas, Head, NoisyCanvas
from oneflow_jax.codecs import patches
from oneflow_jax.codecs.base import Codec
from oneflow_jax.data import document, layout, pipeline, toy, vocab
from oneflow_jax.flows import predictions, tasks, time_samplers
from oneflow_jax.nn import backbone, model
from oneflow_jax.paradigms import objectives, oneflow
from oneflow_jax.runtime import sharding
from oneflow_jax.training import optimizer as optimizer_lib
from oneflow_jax.training import step as step_lib
from oneflow_jax.training.train_state import TrainState

EMOJI_TOKENIZER = pathlib.Path(__file__).parent / "golden" / "tokenizers" / "emoji_nfkc.model"
"""Tokenizer of captions of emoji, trained by an early version with the normalization NFKC."""

EMBED = 16
VOCAB = 128
"""Vocabulary size, above the number of token ids, so that the mesh divides the embedding table."""

TRANSFORMER_CONFIG = backbone.TransformerConfig(
    layers=2,
    width=32,
    heads=2,
    kv_heads=2,
    head_width=16,
    hidden=64,
    remat="none",
    scan_unroll=1,
    dtype=jnp.float32,
)
CODEC = patches.PatchCodec(pixels=4, patch_size=2, image_channels=3, mean=0.0, std=1.0)
TASK_MIXTURE = tasks.TaskMixture(probs=(0.3, 0.25, 0.2, 0.15, 0.1, 0.0, 0.0), cond_drop_prob=0.2)
OPTIMIZER_CONFIG = optimizer_lib.OptimizerConfig(
    learning_rate=5e-3,
    warmup_steps=5,
    total_steps=200,
    end_lr_fraction=0.1,
    b1=0.9,
    b2=0.95,
    weight_decay=0.01,
    max_grad_norm=1.0,
    ema_decay=0.99,
)
OBJECTIVES = {
    "cross_entropy": objectives.CrossEntropyObjective(VOCAB),
    "likelihood": objectives.LikelihoodObjective(VOCAB),
    "velocity": objectives.VelocityObjective(EMBED),
    "naive": objectives.NaiveObjective(EMBED),
}
IMAGE_PREDICTIONS = {
    "x1": predictions.X1Prediction(),
    "velocity": predictions.VelocityPrediction(),
}


@functools.cache
def vocabulary() -> vocab.Vocab:
    texts = (item.text() for item in toy.Toy(documents=300))
    return vocab.train_sentencepiece(texts, 100)


def make_layout(length: int = 96, text_slots: int = 8) -> layout.Layout:
    return layout.Layout(vocabulary(), CODEC, length, text_slots)


@functools.cache
def packed_batch(rows: int = 8, length: int = 96) -> Canvas:
    """Return a batch of training rows, most of them with several documents."""
    batches = pipeline.canvas_batches(
        toy.Toy(),
        make_layout(length),
        batch_size=rows,
        seed=0,
        num_workers=0,
        sharding=jax.sharding.SingleDeviceSharding(jax.devices()[0]),
    )
    return next(iter(batches))


def training_rows(documents: Sequence[document.Document], length: int = 32) -> Canvas:
    """Return training rows of one document each."""
    lay = make_layout(length)
    return jax.tree.map(jnp.asarray, lay.canvas([lay.row(item) for item in documents]))


def prompts(documents: Sequence[document.Document], length: int = 64) -> Canvas:
    """Return prompts for the sampler, one document per row."""
    lay = make_layout(length)
    return jax.tree.map(jnp.asarray, lay.canvas([lay.prompt_row(item) for item in documents]))


def captions(count: int = 4) -> list[document.Document]:
    """Return documents of one text and one image."""
    return list(toy.Toy(documents=count, interleaved=0.0))


def paradigm(
    objective: str = "cross_entropy", image: str = "x1", **changes: Any
) -> oneflow.OneFlow:
    settings = {
        "objective": OBJECTIVES[objective],
        "image_prediction": IMAGE_PREDICTIONS[image],
        "channels": CODEC.channels,
        "task_mixture": TASK_MIXTURE,
        "time_sampler": time_samplers.PowerTimeSampler(),
        "weights": (("text", 1.0), ("image", 2.0)),
    }
    return oneflow.OneFlow(**settings | changes)


def network(
    heads: tuple[Head, ...] | None = None, vocab_size: int = VOCAB, **changes: Any
) -> model.Model:
    heads = paradigm().heads if heads is None else heads
    return model.Model(dataclasses.replace(TRANSFORMER_CONFIG, **changes), vocab_size, EMBED, heads)


def noisy_canvas(canvas: Canvas, seed: int = 1) -> NoisyCanvas:
    """Return a network input with the slots of the canvas, random content and random times."""
    keys = jax.random.split(jax.random.key(seed), 3)
    return canvases.noisy_canvas(
        canvas,
        jax.random.normal(keys[0], (*canvas.ids.shape, EMBED)),
        jax.random.normal(keys[1], canvas.latents.shape),
        jax.random.uniform(keys[2], canvas.ids.shape),
    )


@functools.cache
def parameters(net: model.Model) -> Any:
    """Return parameters with added noise, since some are initialized to zero."""
    view = noisy_canvas(training_rows(captions(1)))
    params = nn.unbox(jax.jit(net.init)(jax.random.key(2), view)["params"])
    leaves, structure = jax.tree.flatten(params)
    keys = jax.random.split(jax.random.key(3), len(leaves))
    noise = [0.1 * jax.random.normal(k, x.shape) for k, x in zip(keys, leaves, strict=True)]
    return jax.tree.map(jnp.add, params, jax.tree.unflatten(structure, noise))


@dataclasses.dataclass(frozen=True)
class System:
    """A paradigm, a network and an optimizer: what a training step needs."""

    paradigm: oneflow.OneFlow = dataclasses.field(default_factory=paradigm)
    network: model.Model = dataclasses.field(default_factory=network)
    optimizer: optax.GradientTransformation = dataclasses.field(
        default_factory=lambda: optimizer_lib.optimizer(OPTIMIZER_CONFIG)
    )
    ema_decay: float = OPTIMIZER_CONFIG.ema_decay
    num_microbatches: int = 1

    def initializer(self, batch: Canvas) -> Any:
        """Return the function from a key to a state with linen's partitioning metadata."""
        view = noisy_canvas(batch)
        return functools.partial(
            step_lib.init_state, model=self.network, optimizer=self.optimizer, view=view
        )

    def init_state(self, batch: Canvas, seed: int = 0) -> TrainState:
        return jax.jit(lambda k: nn.unbox(self.initializer(batch)(k)))(jax.random.key(seed))

    def train_step(self) -> Any:
        """Return the function `(state, canvas) -> (state, metrics)`."""
        return functools.partial(
            step_lib.train_step,
            model=self.network,
            paradigm=self.paradigm,
            optimizer=self.optimizer,
            ema_decay=self.ema_decay,
            num_microbatches=self.num_microbatches,
        )

    def jit_train_step(self) -> Any:
        """Return the jitted `train_step`."""
        return jax.jit(self.train_step())


@dataclasses.dataclass(frozen=True)
class ShardedSystem:
    """A system's state, batch and jitted training step on a mesh."""

    state: TrainState
    batch: Canvas
    shardings: Any
    step: Any


@contextlib.contextmanager
def shard_system(
    system: System, batch: Canvas, sizes: dict[str, int], num_devices: int = 8
) -> Iterator[ShardedSystem]:
    """Yield the system on a mesh of the first `num_devices` devices, inside the mesh context."""
    mesh = sharding.make_mesh(sizes, jax.devices()[:num_devices])
    slots = sharding.batch_sharding(mesh)
    with sharding.mesh_context(mesh):
        key = jax.device_put(jax.random.key(0), sharding.replicated_sharding(mesh))
        initializer = system.initializer(jax.device_put(batch, slots))
        shardings = sharding.state_sharding(mesh, jax.eval_shape(initializer, key))
        state = jax.jit(lambda k: nn.unbox(initializer(k)), out_shardings=shardings)(key)
        step = jax.jit(
            system.train_step(),
            in_shardings=(shardings, slots),
            out_shardings=(shardings, sharding.replicated_sharding(mesh)),
            donate_argnums=0,
        )
        yield ShardedSystem(state, jax.device_put(batch, slots), shardings, step)


class CountingCodec:
    """A codec that records how many images each call decodes."""

    def __init__(self, codec: Codec) -> None:
        self.codec, self.decode_counts = codec, []

    def __getattr__(self, name: str) -> Any:
        return getattr(self.codec, name)

    def decode(self, latents: np.ndarray, grid: tuple[int, int] | None = None) -> np.ndarray:
        self.decode_counts.append(len(latents))
        return self.codec.decode(latents, grid)


def compute_metrics(metrics: dict[str, Any]) -> dict[str, float]:
    return {name: float(value.compute()) for name, value in metrics.items()}


def assert_trees_close(actual: Any, expected: Any, **tolerance: float) -> None:
    jax.tree.map(
        lambda x, y: np.testing.assert_allclose(np.asarray(x), np.asarray(y), **tolerance),
        actual,
        expected,
    )
