"""Initialization from the EMA parameters of another run: `config.init_from`."""

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
    """Check that `config.init_from` fits the paradigm and is the folder of a run.

    Once the run in `folder` has a checkpoint, the run in `config.init_from` is no longer needed.

    Raises:
        UserError: the run does not exist, or the paradigm requires a run and `init_from` is empty.
    """
    before, after = paradigms.TEXT_PRETRAINING
    if config.paradigm.name == after and not config.init_from:
        raise UserError(
            f"paradigm.name={after!r}: it initializes from a text model, but init_from is empty. "
            f"Train a text model with paradigm.name={before!r} and otherwise the same "
            "configuration, and set init_from to the folder of that run."
        )
    if config.init_from and not workdir.has_checkpoints(folder):
        workdir.load_config(storage.resolve_path(config.init_from, "init_from"), field="init_from")


def init_from_checkpoint(system: train_state.Initializable, state: TrainState) -> TrainState:
    """Return the initial state with the EMA parameters of the run in `config.init_from`.

    If that run trained a text model and this run adds images, the image tower is initialized as a
    copy of the text tower.

    Raises:
        UserError: the run does not exist, or its parameters do not match.
    """
    config = system.config
    if not config.init_from:
        return state
    folder = storage.resolve_path(config.init_from, "init_from")
    parent_config = workdir.load_config(folder, field="init_from")
    params = _load_ema(folder, state.params, added=_added_params(parent_config, config))
    if (parent_config.paradigm.name, config.paradigm.name) == paradigms.TEXT_PRETRAINING:
        params = two_tower.init_image_tower_from_text(params)
    params = jax.tree.map(lambda new, old: jax.device_put(new, old.sharding), params, state.params)
    return state.replace(params=params, ema=jax.tree.map(jnp.copy, params))


def _added_params(
    parent: ml_collections.ConfigDict, config: ml_collections.ConfigDict
) -> tuple[str, ...]:
    """Return the top-level parameters that this model has and the parent's has not."""
    return ("interval_clock",) if config.paradigm.flow_map and not parent.paradigm.flow_map else ()


def _load_ema(folder: epath.Path, params: PyTree, added: tuple[str, ...]) -> PyTree:
    """Load the EMA parameters of a run; parameters named in `added` stay as they are."""
    like = jax.tree.map(
        lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=leaf.sharding), params
    )
    kept = {name: params[name] for name in added}
    try:
        saved = {name: leaves for name, leaves in like.items() if name not in kept}
        return export.load_ema_params(folder, saved) | kept
    except (ValueError, KeyError) as error:
        raise UserError(
            f"init_from={folder}: the parameters of that run do not match this configuration. Use "
            f"the same model, paradigm and data. {error}"
        ) from error
