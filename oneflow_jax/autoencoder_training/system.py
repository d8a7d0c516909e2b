"""From the configuration of an autoencoder to objects."""

import dataclasses
import functools
import math
import operator
from collections.abc import Callable

import jax
import ml_collections
import numpy as np
import optax
from jaxtyping import UInt8

from oneflow_jax.autoencoder_training import loss_terms, metrics, objectives, step
from oneflow_jax.codecs.autoencoder import kl, vq
from oneflow_jax.codecs.autoencoder.config import Architecture
from oneflow_jax.data import pipeline, sources, streams
from oneflow_jax.errors import UserError
from oneflow_jax.pretrained import lpips
from oneflow_jax.runtime import sharding
from oneflow_jax.shapes import Array, Key, PyTree
from oneflow_jax.training import optimizer as optimizer_lib
from oneflow_jax.training import update
from oneflow_jax.training.train_state import TrainState

POSITIVE_KEYS = (
    "steps",
    "batch",
    "parts",
    "data.pixels",
    "data.streams",
    "logging.every",
    "checkpoint.keep",
    "evaluation.every",
    "evaluation.samples",
    "evaluation.fitted",
    "evaluation.batch",
    "autoencoder.layers_per_block",
    "autoencoder.latent_channels",
    "autoencoder.norm_num_groups",
    "autoencoder.num_vq_embeddings",
    "autoencoder.vq_embed_dim",
)
"""What there must be one of at least, where it is given."""

IMAGE_CHANNEL_KEYS = ("in_channels", "out_channels")

OBJECTIVE_KEYS = {
    "AutoencoderKL": ("perceptual_weight", "divergence_weight"),
    "VQModel": (
        "perceptual_weight",
        "codebook_weight",
        "commitment_weight",
        "entropy_weight",
        "revival",
    ),
}
"""What the objective of each kind of autoencoder is told."""


@dataclasses.dataclass(frozen=True)
class System:
    """Everything that a run is made of, but its state.

    Attributes:
        config: the configuration it was built from, for the record.
        mesh: the devices.
        objective: what is trained, and how.
        settings, optimizer: of training.
    """

    config: ml_collections.ConfigDict
    mesh: jax.sharding.Mesh
    objective: objectives.Objective
    settings: optimizer_lib.OptimizerConfig
    optimizer: optax.GradientTransformation
    amounts = ("pictures",)
    flops = 0.0  # Nobody has counted those of convolutions.

    @property
    def placement(self) -> jax.sharding.NamedSharding:
        """Where training batches lie."""
        return sharding.row_sharding(self.mesh)

    @property
    def shape(self) -> Architecture:
        """Of the autoencoder."""
        return self.objective.model.shape

    def first_state(self, key: Key[Array, ""]) -> TrainState:
        """The state before the first step."""
        pixels = self.config.data.pixels
        return step.init_state(
            key, objective=self.objective, optimizer=self.optimizer, pixels=pixels
        )

    def begun(self, state: TrainState) -> TrainState:
        """The first state as it is."""
        return state

    def batches(self) -> streams.BatchStreams:
        """The endless training batches, on the devices."""
        config = self.config
        return pipeline.image_batches(
            self.source("train"),
            pixels=config.data.pixels,
            batch_size=config.batch,
            num_streams=config.data.streams,
            seed=config.seed,
            num_workers=config.data.workers,
            cache_size=config.data.cache,
            sharding=self.placement,
        )

    def update(
        self, state: TrainState, pictures: UInt8[Array, "B H W 3"]
    ) -> tuple[TrainState, update.Metrics]:
        """The state after one step on a batch, and what to log of it."""
        return step.train_step(
            state,
            pictures,
            objective=self.objective,
            optimizer=self.optimizer,
            ema_decay=self.settings.ema,
            num_microbatches=self.config.parts,
            total_steps=self.settings.steps,
        )

    def losses(self) -> Callable[[PyTree], dict[str, float]]:
        """What tells how well held-out pictures are brought back."""
        given = self.config.evaluation
        shown = self.pictures("heldout", given.samples)
        return functools.partial(metrics.heldout_psnr, self.objective.model, shown, given.batch)

    def source(self, split: str) -> sources.Source:
        """The documents of one split, prepared if need be."""
        config = self.config
        return sources.open_dataset(data_dir=config.data.dir, split=split, **config.source)

    def pictures(self, split: str, count: int) -> UInt8[np.ndarray, "n H W 3"]:
        """The first `count` pictures of a split that differ from one another.

        Raises:
            UserError: there are none, or one has another size than `data.pixels`.
        """
        found: dict[bytes, np.ndarray] = {}
        documents = self.source(split)
        for index in range(len(documents)):
            for picture in pipeline.check_image_size(self.config.data.pixels, documents[index]):
                found.setdefault(picture.tobytes(), picture)
            if len(found) >= count:
                break
        if not found:
            raise UserError(f"source.name={self.config.source.name}: no pictures in {split!r}.")
        return np.stack(list(found.values())[:count])


def system(config: ml_collections.ConfigDict, for_training: bool = True) -> System:
    """Everything that a run is made of.

    Args:
        config: the configuration.
        for_training: whether to train; else what only training needs, networks that judge
            pictures, is left out.

    Raises:
        UserError: a value in the configuration is wrong, alone or beside another.
    """
    _check_positive(config)
    mesh = sharding.make_mesh(config.mesh.to_dict())
    if mesh.shape["sequence"] > 1:
        raise UserError(
            f"mesh.sequence={config.mesh.sequence}: a picture lies on one device; give 1, and "
            "share out rows over mesh.data."
        )
    sharding.check_batch_divides(mesh, config.batch, config.parts)
    streams.check_divisible(config.batch, config.data.streams)
    settings = optimizer_lib.OptimizerConfig(steps=config.steps, **config.optimizer)
    shape = architecture(config)
    return System(
        config=config,
        mesh=mesh,
        objective=_make_objective(config, shape, for_training),
        settings=settings,
        optimizer=optimizer_lib.optimizer(settings),
    )


def architecture(config: ml_collections.ConfigDict) -> Architecture:
    """The autoencoder's shape, held against the pictures' size.

    Raises:
        UserError: they do not go together, or a value is wrong.
    """
    known = [field.name for field in dataclasses.fields(Architecture)]
    for name, value in config.autoencoder.items():
        if name not in known:
            raise UserError(f"autoencoder.{name}={value!r} is unknown; there are {known}.")
        if name in IMAGE_CHANNEL_KEYS and value != 3:
            raise UserError(f"autoencoder.{name}={value!r}: pictures have 3 colors.")
    shape = Architecture(**config.autoencoder)
    if config.data.pixels % shape.factor:
        raise UserError(
            f"data.pixels={config.data.pixels} cannot be halved {len(shape.block_out_channels) - 1}"
            f" times, as autoencoder.block_out_channels={shape.block_out_channels} asks: give a "
            f"multiple of {shape.factor}."
        )
    return shape


def _check_positive(config: ml_collections.ConfigDict) -> None:
    values = config.to_dict()
    for field in POSITIVE_KEYS:
        *sections, name = field.split(".")
        value = functools.reduce(operator.getitem, sections, values).get(name)
        if value is not None and value < 1:
            raise UserError(f"{field}={value} must be at least 1.")
    for width in config.autoencoder.block_out_channels:
        if width < 1:
            raise UserError(
                f"autoencoder.block_out_channels={config.autoencoder.block_out_channels}: "
                "each must be at least 1."
            )


def _make_objective(
    config: ml_collections.ConfigDict, shape: Architecture, for_training: bool
) -> objectives.Objective:
    given = config.objective
    needed = OBJECTIVE_KEYS[shape.kind]
    missing = [name for name in needed if name not in given]
    if missing:
        raise UserError(
            f"autoencoder.kind={shape.kind!r} is trained with objective.{missing[0]}, which is not "
            "there: take configs/codec.py:kl for AutoencoderKL, configs/codec.py:vq for VQModel."
        )
    for name in needed:
        if not 0 <= given[name] < math.inf:
            raise UserError(f"objective.{name}={given[name]} must be 0 or more.")
    if given.get("revival", 0) > 1:
        raise UserError(f"objective.revival={given.revival} is a probability, 0 to 1.")
    compared = _make_loss_terms(config) if for_training else ()
    if shape.kind == "AutoencoderKL":
        return objectives.KL(kl.AutoencoderKL(shape), compared, given.divergence_weight)
    return objectives.VQ(
        vq.VQModel(shape),
        compared,
        codebook=given.codebook_weight,
        commitment=given.commitment_weight,
        entropy=given.entropy_weight,
        revival=given.revival,
    )


def _make_loss_terms(config: ml_collections.ConfigDict) -> tuple[loss_terms.LossTerm, ...]:
    weight, pixels = config.objective.perceptual_weight, config.data.pixels
    squares = loss_terms.SquaredError(weight=1.0)
    if weight == 0:
        return (squares,)
    if pixels < lpips.MIN_IMAGE_SIZE:
        raise UserError(
            f"objective.perceptual_weight={weight} wants pictures of {lpips.MIN_IMAGE_SIZE} pixels "
            "or more, "
            f"not data.pixels={pixels}; 0 does without."
        )
    try:
        network = lpips.load()
    except UserError as error:
        raise UserError(
            f"objective.perceptual_weight={weight}: {error} (Or do without, by 0.)"
        ) from error
    return (squares, loss_terms.Perceptual(weight, network))
