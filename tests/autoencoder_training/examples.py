"""The smallest autoencoders, and what a test wants to do with them."""

import dataclasses
import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from etils import epath

from oneflow_jax.autoencoder_training import loss_terms, objectives, step
from oneflow_jax.autoencoder_training import system as autoencoder_system
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
        return objectives.KL(kl.AutoencoderKL(KL), (SQUARES,), **{"divergence": 0.1} | changes)
    given = {"codebook": 1.0, "commitment": 0.25, "entropy": 0.0, "revival": 0.0} | changes
    return objectives.VQ(vq.VQModel(VQ), (SQUARES,), **given)


def single_color_images(count):
    """Pictures of one color each, of all the toy colors in turn."""
    colors = np.asarray(list(toy.COLORS.values()), np.uint8)
    chosen = colors[np.arange(count) % len(colors)]
    return np.broadcast_to(chosen[:, None, None], (count, PIXELS, PIXELS, 3)).copy()


def noise_images(count, seed=0):
    """Pictures of random numbers."""
    shape = (count, PIXELS, PIXELS, 3)
    return np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)


@dataclasses.dataclass(frozen=True)
class System:
    """All that a training step needs."""

    objective: Any
    optimizer: optax.GradientTransformation
    parts: int = 1

    def state(self, seed=0):
        init = functools.partial(
            step.init_state, objective=self.objective, optimizer=self.optimizer, pixels=PIXELS
        )
        return jax.jit(init)(jax.random.key(seed))

    def step(self):
        update = functools.partial(
            step.train_step,
            objective=self.objective,
            optimizer=self.optimizer,
            ema_decay=0.9,
            total_steps=100,
            num_microbatches=self.parts,
        )
        return jax.jit(update)


@functools.cache
def sgd_system(kind, num_microbatches=1):
    """Descent at rate 1, by which parameters move by the gradient: the system and its step."""
    system = System(make_objective(kind), optax.sgd(1.0), num_microbatches)
    return system, system.step()


def step_on_mesh(system, state, batch):
    """What a step gives on a mesh of 8 devices."""
    mesh = sharding.make_mesh({"data": 8, "fsdp": 1, "tensor": 1})
    with sharding.mesh_context(mesh):
        state = jax.device_put(state, sharding.replicated_sharding(mesh))
        return system.step()(state, jax.device_put(batch, sharding.row_sharding(mesh)))


def make_config(kind, **changes):
    """The tiny configuration of a codec; a change of `a.b` is given as `a__b`."""
    given = tiny_codec_config.get_config(kind)
    given.update_from_flattened_dict({k.replace("__", "."): v for k, v in changes.items()})
    return given.lock()


def prepare_run(folder, config):
    """The system of a run, its folder made ready as `main` does."""
    folder = epath.Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    workdir.check_config(folder, config)
    system = autoencoder_system.system(config)
    workdir.save_config(folder, config)
    return system


losses = tiny.compute_metrics
assert_close = tiny.assert_trees_close
as_array = jnp.asarray
