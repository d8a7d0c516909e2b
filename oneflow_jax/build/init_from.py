"""Initialization from another run or from a pretrained language model: `config.init_from`."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import ml_collections
from etils import epath

from oneflow_jax.build import finetune, language_model, paradigms
from oneflow_jax.errors import UserError
from oneflow_jax.nn import lora, two_tower
from oneflow_jax.pretrained import language_config
from oneflow_jax.runtime import storage, workdir
from oneflow_jax.shapes import PyTree
from oneflow_jax.training import export, train_state, vocab_rows
from oneflow_jax.training.train_state import TrainState


def validate(config: ml_collections.ConfigDict, folder: epath.Path) -> None:
    """Check that `config.init_from` fits the paradigm, and is a run or a language model.

    Once the run in `folder` has a checkpoint, the run in `config.init_from` is no longer needed.

    Raises:
        UserError: the run does not exist, the language model is not supported, or the paradigm
            requires a start model and `init_from` is empty.
    """
    before, after = paradigms.TEXT_PRETRAINING
    if config.paradigm.name == after and not config.init_from:
        raise UserError(
            f"paradigm.name={after!r}: it initializes from a text model, but init_from is empty. "
            f"Train a text model with paradigm.name={before!r} and otherwise the same "
            "configuration, and set init_from to the folder of that run, or to a language model."
        )
    if config.init_from and not workdir.has_checkpoints(folder):
        start = storage.resolve_path(config.init_from, "init_from")
        if language_config.is_language_model(start):
            language_model.validate(config, start)
        else:
            finetune.check_merged(workdir.load_config(start, field="init_from"), start)


def init_from_checkpoint(system: train_state.Initializable, state: TrainState) -> TrainState:
    """Return the initial state with the parameters of the model in `config.init_from`.

    These are the EMA parameters of a run, or those of a pretrained language model. If that model
    has only text and this run adds images, the image tower is a copy of the text tower.

    Raises:
        UserError: the run does not exist, or its parameters do not match.
    """
    config = system.config
    if not config.init_from:
        return state
    folder = storage.resolve_path(config.init_from, "init_from")
    before, after = paradigms.TEXT_PRETRAINING
    is_pretrained = language_config.is_language_model(folder)
    start = None if is_pretrained else workdir.load_config(folder, field="init_from")
    adds_images = config.paradigm.name == after and (is_pretrained or start.paradigm.name == before)
    # Only the text tower is loaded, if the start model has no other one.
    select = two_tower.select_text_tower if adds_images else _same
    if is_pretrained:
        params = language_model.load_params(select(state.params), folder, system.layout.vocab)
    else:
        params = _load_run_params(system, state, folder, start, select)
    params = two_tower.add_image_tower(params) if adds_images else params
    params = jax.tree.map(lambda new, old: jax.device_put(new, old.sharding), params, state.params)
    return state.replace(params=params, ema=jax.tree.map(jnp.copy, params))


def _same(params: PyTree) -> PyTree:
    return params


def _load_run_params(
    system: train_state.Initializable,
    state: TrainState,
    folder: epath.Path,
    parent_config: ml_collections.ConfigDict,
    select: Callable[[PyTree], PyTree],
) -> PyTree:
    """Load the EMA parameters of the run in `folder`, and add the parameters that it lacks.

    `select` returns those of this run's parameters that the other run has, too.
    """
    added = {
        name: state.params[name]
        for name in (*_added_params(parent_config, system.config), lora.NAME)
        if name in state.params
    }

    def select_loaded(params: PyTree) -> PyTree:
        return select({name: tree for name, tree in params.items() if name not in added})

    return _load_ema(system, folder, select_loaded) | added


def _added_params(
    parent: ml_collections.ConfigDict, config: ml_collections.ConfigDict
) -> tuple[str, ...]:
    """Return the top-level parameters that this model has and the parent's has not."""
    return ("interval_clock",) if config.paradigm.flow_map and not parent.paradigm.flow_map else ()


def _load_ema(
    system: train_state.Initializable, folder: epath.Path, select: Callable[[PyTree], PyTree]
) -> PyTree:
    """Load the EMA parameters of a run, which has those of this run that `select` returns.

    If the run fine-tunes, the rows of the vocabulary become those of the extended vocabulary.
    """
    like = select(system.abstract_state.params)
    if not finetune.is_finetuning(system.config):
        return _load(folder, like)
    vocab = system.layout.vocab
    start_vocab = finetune.load_start_vocab(system.config, vocab.code_count)
    plan = finetune.plan_rows(system.config, start_vocab, vocab)
    axes = vocab_rows.find_vocab_axes(select(train_state.boxed_shapes(system).params))
    start = _load(folder, vocab_rows.shrink_shapes(like, axes, plan.old_size))
    return vocab_rows.extend_rows(start, axes, plan)


def _load(folder: epath.Path, like: PyTree) -> PyTree:
    try:
        return export.load_ema_params(folder, like)
    except (ValueError, KeyError) as error:
        raise UserError(
            f"init_from={folder}: the parameters of that run do not match this configuration. Use "
            f"the same model, paradigm and data. {error}"
        ) from error
