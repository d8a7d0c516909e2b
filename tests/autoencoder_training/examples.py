"""Small autoencoders, images and runs for the tests of autoencoder training."""

import dataclasses
import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from etils import epath

from oneflow_jax.autoencoder_training import loss_terms, objectives, step
from oneflow_jax.build import autoencoder_system
from oneflow_jax.codecs.autoencoder import kl, vq
from oneflow_jax.codecs.autoencoder.config import Architecture
from oneflow_jax.data import toy
from oneflow_jax.runtime import sharding, workdir
from tests import tiny, tiny_codec_config

PIXELS = 4
SHAPE = {"block_out_channels": (8,), "norm_num_groups": 8, "mid_block_add_attention": False}
KL = Architecture(kind="AutoencoderKL", **SHAPE)
VQ = Architecture(kind="VQModel", num_vq_embeddings=16, **SHAPE)
SQUARES = loss_terms.SquaredError(1.0)


def make_objective(kind, **changes):
    if kind == "kl":
        return objectives.KL(kl.AutoencoderKL(KL), (SQUARES,), **{"kl_weight": 0.1} | changes)
    settings = {
        "codebook_weight": 1.0,
        "commitment_weight": 0.25,
        "entropy_weight": 0.0,
        "dead_code_restart_prob": 0.0,
    } | changes
    return objectives.VQ(vq.VQModel(VQ), (SQUARES,), **settings)


def single_color_images(count):
    """Return images of one color each, cycling through the toy colors."""
    colors = np.asarray(list(toy.COLORS.values()), np.uint8)
    chosen = colors[np.arange(count) % len(colors)]
    return np.broadcast_to(chosen[:, None, None], (count, PIXELS, PIXELS, 3)).copy()


def noise_images(count, seed=0):
    """Return images of uniform noise."""
    shape = (count, PIXELS, PIXELS, 3)
    return np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)


@dataclasses.dataclass(frozen=True)
class System:
    """An objective, an optimizer and the number of microbatches: what a training step needs."""

    objective: Any
    optimizer: optax.GradientTransformation
    num_microbatches: int = 1

    def init_state(self, seed=0):
        init = functools.partial(
            step.init_state, objective=self.objective, optimizer=self.optimizer, pixels=PIXELS
        )
        return jax.jit(init)(jax.random.key(seed))

    def jit_step(self):
        update = functools.partial(
            step.train_step,
            objective=self.objective,
            optimizer=self.optimizer,
            ema_decay=0.9,
            total_steps=100,
            num_microbatches=self.num_microbatches,
        )
        return jax.jit(update)


@functools.cache
def sgd_system(kind, num_microbatches=1):
    """Return a system and its jitted step; the step subtracts the gradient from the parameters."""
    system = System(make_objective(kind), optax.sgd(1.0), num_microbatches)
    return system, system.jit_step()


def step_on_mesh(system, state, batch):
    """Run one training step on a mesh of 8 devices."""
    mesh = sharding.make_mesh({"data": 8, "fsdp": 1, "tensor": 1})
    with sharding.mesh_context(mesh):
        state = jax.device_put(state, sharding.replicated_sharding(mesh))
        return system.jit_step()(state, jax.device_put(batch, sharding.row_sharding(mesh)))


def make_config(kind, **changes):
    """Return the tiny configuration of a codec; `a__b=value` sets the key `a.b`."""
    config = tiny_codec_config.get_config(kind)
    config.update_from_flattened_dict({k.replace("__", "."): v for k, v in changes.items()})
    return config.lock()


def prepare_run(folder, config):
    """Create the run's folder as `main` does, and return the run's system."""
    folder = epath.Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    workdir.check_config(folder, config)
    system = autoencoder_system.system(config)
    workdir.save_config(folder, config)
    return system


losses = tiny.compute_metrics
assert_close = tiny.assert_trees_close
as_array = jnp.asarray
