"""Training that begins from another run: `config.start`."""

import jax
import jax.numpy as jnp
import ml_collections
from etils import epath

from oneflow_jax.build import paradigms
from oneflow_jax.errors import UserError
from oneflow_jax.nn import two_tower
from oneflow_jax.runtime import storage, workdir
from oneflow_jax.shapes import PyTree
from oneflow_jax.training import export, train_state
from oneflow_jax.training.train_state import TrainState


def validate(config: ml_collections.ConfigDict, folder: epath.Path) -> None:
    """Holds `config.start` against the paradigm, and looks whether there is such a run.

    Once the run in `folder` has a checkpoint of its own it needs the other no more.

    Raises:
        UserError: there is none; or the paradigm cannot do without one.
    """
    before, after = paradigms.TEXT_PRETRAINING
    if config.paradigm.name == after and not config.start:
        raise UserError(
            f"paradigm.name={after!r} begins from a text model: train one first, with "
            f"paradigm.name={before!r} and all else the same, and give its folder as start."
        )
    if config.start and not workdir.has_checkpoints(folder):
        workdir.load_config(storage.resolve_path(config.start, "start"), field="start")


def init_from_checkpoint(system: train_state.Initializable, state: TrainState) -> TrainState:
    """The first state, with the averaged parameters of the run in `config.start`, if one is named.

    Where that run has trained a text model and this one adds pictures, their tower begins as a copy
    of the words'.

    Raises:
        UserError: there is no such run, or its parameters are others than these.
    """
    config = system.config
    if not config.start:
        return state
    folder = storage.resolve_path(config.start, "start")
    kept = workdir.load_config(folder, field="start")
    params = _load_ema(folder, state.params)
    if (kept.paradigm.name, config.paradigm.name) == paradigms.TEXT_PRETRAINING:
        params = two_tower.init_image_tower_from_text(params)
    params = jax.tree.map(lambda new, old: jax.device_put(new, old.sharding), params, state.params)
    return state.replace(params=params, ema=jax.tree.map(jnp.copy, params))


def _load_ema(folder: epath.Path, params: PyTree) -> PyTree:
    like = jax.tree.map(
        lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=leaf.sharding), params
    )
    try:
        return export.load_ema_params(folder, like)
    except (ValueError, KeyError) as error:
        raise UserError(
            f"start={folder}: its parameters are others than those of this configuration; "
            f"model, paradigm and data must agree. {error}"
        ) from error
