"""Tests of `language` and `lmfusion`: adding images must not change the text model."""

import dataclasses
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from etils import epath

from configs import common
from oneflow_jax.canvas import AttentionPattern, Modality
from oneflow_jax.nn import two_tower
from oneflow_jax.paradigms import lmfusion, transfusion
from oneflow_jax.runtime import sharding
from oneflow_jax.training import loop, step, train_state, update
from tests import runs, tiny
from tests.nn.test_two_tower import flatten_params, make_model, perturb_params
from tests.paradigms import test_transfusion
from tests.paradigms.oracle import SEED, row_keys
from tests.paradigms.test_transfusion import data  # noqa: F401 - a fixture


def make_paradigm(kind, task="joint"):
    """Return an instance of the class `kind` with the settings of test_transfusion."""
    base = test_transfusion.paradigm(task)
    fields = {field.name: getattr(base, field.name) for field in dataclasses.fields(base)}
    return kind(**fields)


def corrupt_rows(paradigm, canvas):
    return test_transfusion.corrupt_rows(paradigm, canvas, SEED)


TEXT_MODEL = make_model(two_tower.TextModel)


def loss_sums(paradigm, params, canvas):
    each = step.per_row_losses(
        params,
        row_keys(SEED, canvas.ids.shape[0]),
        jnp.full(canvas.ids.shape, 0.4),
        canvas,
        model=TEXT_MODEL,
        paradigm=paradigm,
    )
    return update.sum_leading(each)


def test_language_input_has_no_images(data):  # noqa: F811
    view, targets = corrupt_rows(make_paradigm(lmfusion.Language), data)
    image = np.asarray(data.is_image)
    assert (np.asarray(view.modality)[image] == Modality.PAD).all()
    assert not np.asarray(view.segment)[image].any()
    plain, _ = corrupt_rows(make_paradigm(transfusion.Transfusion), data)
    for name in ("modality", "segment", "position", "embeds"):
        embeds, whole = (np.asarray(getattr(v, name))[~image] for v in (view, plain))
        np.testing.assert_array_equal(embeds, whole)
    assert not targets.image_scored.any()


def test_language_targets_exclude_tokens_after_images(data):  # noqa: F811
    _, targets = corrupt_rows(make_paradigm(lmfusion.Language), data)
    text, image = np.asarray(data.is_text), np.asarray(data.is_image)
    # Every token except BOS is a target of the slot before it, if this slot is text.
    expected = np.zeros_like(text)
    expected[:, :-1] = text[:, 1:] & text[:, :-1]
    np.testing.assert_array_equal(targets.text_scored, expected)
    after_pictures = np.sum(text[:, 1:] & image[:, :-1])
    _, whole = corrupt_rows(make_paradigm(transfusion.Transfusion), data)
    assert np.sum(np.asarray(whole.text_scored)) == expected.sum() + after_pictures
    assert after_pictures > 0


def test_language_does_not_depend_on_images(data):  # noqa: F811
    """Check, bit by bit, that the text loss depends neither on pixels nor on image parameters.

    The gradient of these parameters must be 0, too.
    """
    params = tiny.parameters(TEXT_MODEL)
    paradigm = make_paradigm(lmfusion.Language)
    total = jax.jit(lambda params, canvas: loss_sums(paradigm, params, canvas))
    expected = total(params, data)
    assert expected["text"].count > 100
    recolored = data.replace(latents=jnp.where(data.is_image[..., None], 7.0, data.latents))
    for losses in (
        total(params, recolored),
        total(perturb_params(params, two_tower.IMAGE_PARAMS), data),
    ):
        assert losses["text"].total == expected["text"].total
    assert (expected["image"].total, expected["image"].count) == (0, 0)
    grad = jax.jit(jax.grad(lambda p: total(p, data)["text"].total + total(p, data)["image"].total))
    moved = {name for name, by in flatten_params(grad(params)).items() if by.any()}
    assert not any(re.search(two_tower.IMAGE_PARAMS, name) for name in moved)
    assert moved == {
        name
        for name in flatten_params(params)
        if re.search(two_tower.TEXT_PARAMS, name) and name != "mask"
    }


def test_lmfusion_is_transfusion_on_another_network(data):  # noqa: F811
    """Check that corruption, loss and sampler equal those of transfusion."""
    for task in ("joint", "image_to_text"):
        paradigm, reference = (
            make_paradigm(lmfusion.LMFusion, task),
            make_paradigm(transfusion.Transfusion, task),
        )
        for actual, expected in zip(
            corrupt_rows(paradigm, data), corrupt_rows(reference, data), strict=True
        ):
            tiny.assert_trees_close(actual, expected, atol=0)
    for name in ("corrupt", "loss", "sampler", "validate", "counts", "nfe"):
        method = getattr(transfusion.Transfusion, name)
        assert getattr(lmfusion.LMFusion, name) is method
        assert (getattr(lmfusion.Language, name) is method) == (name != "corrupt")
    assert (paradigm.heads, paradigm.attention_pattern, paradigm.supports_editing) == (
        reference.heads,
        AttentionPattern.MIXED,
        False,
    )


def make_config(kind, folder, **overrides):
    """Return a tiny configuration of a paradigm on toy data."""
    config = runs.make_config().copy_and_resolve_references().unlock()
    common.set_paradigm(config, kind)
    config.data.dir = str(folder / "data")
    config.sampling.update({"solver": "euler", "time_grid": "uniform", "steps": 2})
    config.evaluation.every = config.checkpoint.every = 20
    config.optimizer.ema_decay = 0.9
    config.update_from_flattened_dict(overrides)
    return config.lock()


@dataclasses.dataclass(frozen=True)
class FinishedRun:
    """A finished run: its system, first and last state."""

    system: object
    initial_state: object
    final_state: object


def run_training(folder, config):
    system = runs.prepare_system(folder, config)
    with sharding.mesh_context(system.mesh):
        first = system.initialize_from(train_state.init_sharded(system))
    loop.run(system, folder)
    batches = iter(system.train_batches())
    with sharding.mesh_context(system.mesh), loop.checkpoint.Checkpoints(folder, 3) as checkpoints:
        last = checkpoints.restore(system.abstract_state, batches)
    batches.close()
    return FinishedRun(system, first, last)


@pytest.fixture(scope="module")
def text_and_lmfusion(tmp_path_factory):
    """Return the finished runs of the text model and of LMFusion initialized from it."""
    folder = epath.Path(tmp_path_factory.mktemp("lmfusion"))
    text = run_training(folder / "language", make_config("language", folder, steps=20))
    start = {"steps": 40, "init_from": str(folder / "language")}
    return text, run_training(folder / "lmfusion", make_config("lmfusion", folder, **start))


def test_text_training_does_not_change_image_parameters(text_and_lmfusion):
    text, _ = text_and_lmfusion
    losses = text.system.eval_losses()
    assert (
        losses(text.final_state.ema)["eval/loss_text"]
        < 0.9 * losses(text.initial_state.ema)["eval/loss_text"]
    )
    assert "eval/loss_image" not in losses(text.final_state.ema)
    before, after = (
        flatten_params(text.initial_state.params),
        flatten_params(text.final_state.params),
    )
    for name in before:
        same = before[name].tobytes() == after[name].tobytes()
        assert same == (name == "mask" or bool(re.search(two_tower.IMAGE_PARAMS, name))), name


def test_image_training_keeps_the_text_loss_bit_identical(text_and_lmfusion):
    """Check, bit by bit, that image training keeps the text loss of the parameters and the EMA."""
    text, pictures = text_and_lmfusion
    losses = text.system.eval_losses()
    expected = losses(text.final_state.ema)
    assert expected["eval/loss_text"] > 0
    for state in (pictures.initial_state, pictures.final_state):
        assert losses(two_tower.select_text_tower(state.params)) == expected
        assert losses(two_tower.select_text_tower(state.ema)) == expected
    assert losses(text.initial_state.ema) != expected
    trained = flatten_params(two_tower.add_image_tower(text.final_state.ema))
    for tree in (pictures.final_state.params, pictures.final_state.ema):
        for name, leaf in flatten_params(tree).items():
            same = leaf.tobytes() == trained[name].tobytes()
            assert same == bool(re.search(two_tower.TEXT_PARAMS, name)), name


def test_image_tower_starts_as_a_copy_of_the_text_tower_and_is_trained(text_and_lmfusion):
    text, pictures = text_and_lmfusion
    blocks = pictures.initial_state.params["backbone"]["blocks"]
    tiny.assert_trees_close(blocks["image"], blocks["text"], atol=0)
    assert type(text.system.model) is two_tower.TextModel
    assert type(pictures.system.model) is two_tower.TwoTowerModel
    losses = pictures.system.eval_losses()
    before, after = losses(pictures.initial_state.ema), losses(pictures.final_state.ema)
    assert after["eval/loss_image"] < 0.8 * before["eval/loss_image"]
    # This loss includes text after images, which depends on the image tower.
    assert after["eval/loss_text"] != before["eval/loss_text"]
    assert text.system.layout.vocab.text == pictures.system.layout.vocab.text
