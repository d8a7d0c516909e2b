"""Builder of the objects of an autoencoder's training run from its configuration."""

import dataclasses
import functools
from collections.abc import Callable

import jax
import ml_collections
import numpy as np
import optax
from jaxtyping import UInt8

from oneflow_jax.autoencoder_training import loss_terms, metrics, objectives, step
from oneflow_jax.build import values
from oneflow_jax.build.loop_config import make_loop_config
from oneflow_jax.codecs.autoencoder import kl, vq
from oneflow_jax.codecs.autoencoder.config import Architecture
from oneflow_jax.data import pipeline, sources, streams
from oneflow_jax.errors import UserError
from oneflow_jax.pretrained import lpips
from oneflow_jax.runtime import sharding
from oneflow_jax.shapes import Array, Key, PyTree
from oneflow_jax.training import optimizer as optimizer_lib
from oneflow_jax.training import train_state, update
from oneflow_jax.training.loop_config import LoopConfig
from oneflow_jax.training.train_state import TrainState

IMAGE_CHANNEL_KEYS = ("in_channels", "out_channels")

OBJECTIVE_KEYS = {
    "AutoencoderKL": ("perceptual_weight", "kl_weight"),
    "VQModel": (
        "perceptual_weight",
        "codebook_weight",
        "commitment_weight",
        "entropy_weight",
        "dead_code_restart_prob",
    ),
}
"""Keys of `config.objective` that each kind of autoencoder needs."""


@dataclasses.dataclass(frozen=True)
class System:
    """All objects of a training run except its state.

    Attributes:
        config: configuration that the system was built from.
        mesh: device mesh.
        objective: network and loss.
        optimizer_config: configuration of the optimizer.
        optimizer: optimizer of the parameters.
    """

    config: ml_collections.ConfigDict
    mesh: jax.sharding.Mesh
    objective: objectives.Objective
    optimizer_config: optimizer_lib.OptimizerConfig
    optimizer: optax.GradientTransformation
    throughput_keys = ("images",)
    flops = 0.0  # FLOPs of convolutions are not counted.

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
        return sharding.row_sharding(self.mesh)

    @property
    def architecture(self) -> Architecture:
        """The architecture of the autoencoder."""
        return self.objective.model.architecture

    def init_state(self, key: Key[Array, ""]) -> TrainState:
        """Initialize the training state."""
        pixels = self.config.data.pixels
        return step.init_state(
            key, objective=self.objective, optimizer=self.optimizer, pixels=pixels
        )

    def merge_params(self, params: PyTree) -> PyTree:
        """Return the parameters unchanged: all parameters of an autoencoder are trained."""
        return params

    def initialize_from(self, state: TrainState) -> TrainState:
        """Return the state unchanged: autoencoders always start from random parameters."""
        return state

    def train_batches(self) -> streams.BatchStreams:
        """Return the endless stream of training batches, as arrays on the devices."""
        config = self.config
        return pipeline.image_batches(
            self.source("train"),
            pixels=config.data.pixels,
            batch_size=config.batch_size,
            num_streams=config.data.num_streams,
            seed=config.seed,
            num_workers=config.data.num_workers,
            cache_size=config.data.cache_size,
            sharding=self.batch_sharding,
        )

    def train_step(
        self, state: TrainState, images: UInt8[Array, "B H W 3"]
    ) -> tuple[TrainState, update.Metrics]:
        """Take a training step; return the new state and metrics to log."""
        return step.train_step(
            state,
            images,
            objective=self.objective,
            optimizer=self.optimizer,
            ema_decay=self.optimizer_config.ema_decay,
            num_microbatches=self.config.grad_accum_steps,
            total_steps=self.optimizer_config.total_steps,
        )

    def eval_losses(self) -> Callable[[PyTree], dict[str, float]]:
        """Return a function that maps parameters to the PSNR of held-out images."""
        eval_config = self.config.evaluation
        heldout_images = self.images("heldout", eval_config.num_samples)
        return functools.partial(
            metrics.heldout_psnr, self.objective.model, heldout_images, eval_config.batch_size
        )

    def document_losses(self) -> None:
        """Return None: images of an autoencoder have no texts."""

    def source(self, split: str) -> sources.Source:
        """Open a split of the data set, and prepare the data set first if necessary."""
        config = self.config
        return sources.open_dataset(data_dir=config.data.dir, split=split, **config.source)

    def images(self, split: str, count: int) -> UInt8[np.ndarray, "n H W 3"]:
        """Return the first `count` distinct images of a split.

        Raises:
            UserError: the split has no images, or the size of an image is not `data.pixels`.
        """
        distinct: dict[bytes, np.ndarray] = {}
        documents = self.source(split)
        for index in range(len(documents)):
            for image in pipeline.check_image_size(self.config.data.pixels, documents[index]):
                distinct.setdefault(image.tobytes(), image)
            if len(distinct) >= count:
                break
        if not distinct:
            raise UserError(
                f"source.name={self.config.source.name}: the split {split!r} has no images. Choose "
                "a data set with images."
            )
        return np.stack(list(distinct.values())[:count])


def system(config: ml_collections.ConfigDict, for_training: bool = True) -> System:
    """Build all objects of a training run.

    Args:
        config: configuration of the run.
        for_training: whether the system is used for training. Otherwise it has no reconstruction
            losses, so that LPIPS need not be installed.

    Raises:
        UserError: a value of the configuration is invalid, or values contradict each other.
    """
    values.validate(config)
    mesh = sharding.make_mesh(config.mesh.to_dict())
    if mesh.shape["context"] > 1:
        raise UserError(
            f"mesh.context={config.mesh.context}: autoencoders do not shard an image over devices. "
            "Set mesh.context=1, and shard the batch over mesh.data."
        )
    sharding.check_batch_divides(mesh, config.batch_size, config.grad_accum_steps)
    streams.check_divisible(config.batch_size, config.data.num_streams)
    settings = optimizer_lib.OptimizerConfig(total_steps=config.steps, **config.optimizer)
    shape = architecture(config)
    return System(
        config=config,
        mesh=mesh,
        objective=_make_objective(config, shape, for_training),
        optimizer_config=settings,
        optimizer=optimizer_lib.optimizer(settings),
    )


def architecture(config: ml_collections.ConfigDict) -> Architecture:
    """Return the autoencoder's architecture after checking it against the image size.

    Raises:
        UserError: a value is invalid, or `data.pixels` cannot be halved at every level.
    """
    known = [field.name for field in dataclasses.fields(Architecture)]
    for name, value in config.autoencoder.items():
        if name not in known:
            raise UserError(f"autoencoder.{name}={value!r} is unknown. The keys are {known}.")
        if name in IMAGE_CHANNEL_KEYS and value != 3:
            raise UserError(f"autoencoder.{name}={value!r}: images have 3 channels. Set it to 3.")
    shape = Architecture(**config.autoencoder)
    if config.data.pixels % shape.downscale_factor:
        raise UserError(
            f"data.pixels={config.data.pixels} cannot be halved {len(shape.block_out_channels) - 1}"
            f" times, as autoencoder.block_out_channels={shape.block_out_channels} requires. Give "
            f"a multiple of {shape.downscale_factor}."
        )
    return shape


def _make_objective(
    config: ml_collections.ConfigDict, shape: Architecture, for_training: bool
) -> objectives.Objective:
    section = config.objective
    needed = OBJECTIVE_KEYS[shape.kind]
    missing = [name for name in needed if name not in section]
    if missing:
        raise UserError(
            f"autoencoder.kind={shape.kind!r} needs objective.{missing[0]}, which is missing. Use "
            "configs/codec.py:kl for AutoencoderKL, or configs/codec.py:vq for VQModel."
        )
    terms = _make_loss_terms(config) if for_training else ()
    if shape.kind == "AutoencoderKL":
        return objectives.KL(kl.AutoencoderKL(shape), terms, section.kl_weight)
    return objectives.VQ(
        vq.VQModel(shape),
        terms,
        codebook_weight=section.codebook_weight,
        commitment_weight=section.commitment_weight,
        entropy_weight=section.entropy_weight,
        dead_code_restart_prob=section.dead_code_restart_prob,
    )


def _make_loss_terms(config: ml_collections.ConfigDict) -> tuple[loss_terms.LossTerm, ...]:
    weight, pixels = config.objective.perceptual_weight, config.data.pixels
    squared_error = loss_terms.SquaredError(weight=1.0)
    if weight == 0:
        return (squared_error,)
    if pixels < lpips.MIN_IMAGE_SIZE:
        raise UserError(
            f"objective.perceptual_weight={weight}: LPIPS needs images of {lpips.MIN_IMAGE_SIZE} "
            f"pixels or more, not data.pixels={pixels}. Set the weight to 0 to train without LPIPS."
        )
    try:
        network = lpips.load()
    except UserError as error:
        raise UserError(
            f"objective.perceptual_weight={weight}: {error} (Or set the weight to 0.)"
        ) from error
    return (squared_error, loss_terms.Perceptual(weight, network))
