"""`language` and `lmfusion`: words first; then pictures, and what is said of words stays."""

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
    """The paradigm of test_transfusion, as another of its kind."""
    given = test_transfusion.paradigm(task)
    fields = {field.name: getattr(given, field.name) for field in dataclasses.fields(given)}
    return kind(**fields)


def corrupt_rows(paradigm, canvas):
    return test_transfusion.corrupt_rows(paradigm, canvas, SEED)


def loss_sums(paradigm, params, canvas):
    each = step.per_row_losses(
        params,
        row_keys(SEED, canvas.ids.shape[0]),
        jnp.full(canvas.ids.shape, 0.4),
        canvas,
        model=make_model(),
        paradigm=paradigm,
    )
    return update.sum_leading(each)


def test_language_is_shown_no_picture(data):  # noqa: F811
    view, targets = corrupt_rows(make_paradigm(lmfusion.Language), data)
    image = np.asarray(data.is_image)
    assert (np.asarray(view.kind)[image] == Modality.PAD).all()
    assert not np.asarray(view.segment)[image].any()
    plain, _ = corrupt_rows(make_paradigm(transfusion.Transfusion), data)
    for name in ("kind", "segment", "position", "embeds"):
        shown, whole = (np.asarray(getattr(v, name))[~image] for v in (view, plain))
        np.testing.assert_array_equal(shown, whole)
    assert not targets.image.any()


def test_language_is_asked_for_every_word_but_those_after_pictures(data):  # noqa: F811
    _, targets = corrupt_rows(make_paradigm(lmfusion.Language), data)
    text, image = np.asarray(data.is_text), np.asarray(data.is_image)
    # Every token but BOS, by the slot before it, if that is a word.
    expected = np.zeros_like(text)
    expected[:, :-1] = text[:, 1:] & text[:, :-1]
    np.testing.assert_array_equal(targets.text, expected)
    after_pictures = np.sum(text[:, 1:] & image[:, :-1])
    _, whole = corrupt_rows(make_paradigm(transfusion.Transfusion), data)
    assert np.sum(np.asarray(whole.text)) == expected.sum() + after_pictures
    assert after_pictures > 0


def test_language_depends_on_nothing_of_pictures(data):  # noqa: F811
    """Neither on pixels nor, to the last bit, on parameters; and no gradient flows into those."""
    params = tiny.parameters(make_model())
    paradigm = make_paradigm(lmfusion.Language)
    total = jax.jit(lambda params, canvas: loss_sums(paradigm, params, canvas))
    expected = total(params, data)
    assert expected["text"].count > 100
    other = data.replace(latents=jnp.where(data.is_image[..., None], 7.0, data.latents))
    for found in (
        total(params, other),
        total(perturb_params(params, two_tower.IMAGE_PARAMS), data),
    ):
        assert found["text"].total == expected["text"].total
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
    """The same is shown, asked and scored, and the same sampler writes."""
    for task in ("joint", "image_to_text"):
        one, other = (
            make_paradigm(lmfusion.LMFusion, task),
            make_paradigm(transfusion.Transfusion, task),
        )
        for found, expected in zip(corrupt_rows(one, data), corrupt_rows(other, data), strict=True):
            tiny.assert_trees_close(found, expected, atol=0)
    for name in ("corrupt", "loss", "sample", "check", "counts", "evaluations"):
        method = getattr(transfusion.Transfusion, name)
        assert getattr(lmfusion.LMFusion, name) is method
        assert (getattr(lmfusion.Language, name) is method) == (name != "corrupt")
    assert (one.heads, one.attend, one.revises) == (other.heads, AttentionPattern.MIXED, False)


def make_config(kind, folder, **overrides):
    """A tiny run of a paradigm, on toy data."""
    config = runs.make_config().copy_and_resolve_references().unlock()
    common.set_paradigm(config, kind)
    config.data.dir = str(folder / "data")
    config.sampling.update({"solver": "euler", "grid": "uniform", "steps": 2})
    config.evaluation.every = 20
    config.optimizer.ema = 0.9
    config.update_from_flattened_dict(overrides)
    return config.lock()


@dataclasses.dataclass(frozen=True)
class FinishedRun:
    """A finished run."""

    system: object
    first: object
    last: object


def run_training(folder, config):
    system = runs.prepare_system(folder, config)
    with sharding.mesh_context(system.mesh):
        first = system.begun(train_state.init_sharded(system))
    loop.run(system, folder)
    batches = iter(system.batches())
    with sharding.mesh_context(system.mesh), loop.checkpoint.Checkpoints(folder, 3) as checkpoints:
        last = checkpoints.restore(train_state.abstract_state(system), batches)
    batches.close()
    return FinishedRun(system, first, last)


@pytest.fixture(scope="module")
def both(tmp_path_factory):
    """The text model, and what was made of it."""
    folder = epath.Path(tmp_path_factory.mktemp("lmfusion"))
    text = run_training(folder / "language", make_config("language", folder, steps=20))
    start = {"steps": 40, "start": str(folder / "language")}
    return text, run_training(folder / "lmfusion", make_config("lmfusion", folder, **start))


def test_the_text_model_learns_and_leaves_pictures_alone(both):
    text, _ = both
    losses = text.system.losses()
    assert losses(text.last.ema)["heldout/text"] < 0.9 * losses(text.first.ema)["heldout/text"]
    assert "heldout/image" not in losses(text.last.ema)
    before, after = flatten_params(text.first.params), flatten_params(text.last.params)
    for name in before:
        same = before[name].tobytes() == after[name].tobytes()
        assert same == (name == "mask" or bool(re.search(two_tower.IMAGE_PARAMS, name))), name


def test_what_the_text_model_says_stays_to_the_last_bit(both):
    """By its own objective, on what is held out, at every time; of parameters and averages."""
    text, pictures = both
    losses = text.system.losses()
    expected = losses(text.last.ema)
    assert expected["heldout/text"] > 0
    for state in (pictures.first, pictures.last):
        assert losses(state.params) == expected
        assert losses(state.ema) == expected
    assert losses(text.first.ema) != expected
    trained = flatten_params(text.last.ema)
    for tree in (pictures.last.params, pictures.last.ema):
        for name, leaf in flatten_params(tree).items():
            same = leaf.tobytes() == trained[name].tobytes()
            assert same == bool(re.search(two_tower.TEXT_PARAMS, name)), name


def test_pictures_begin_as_a_copy_of_words_and_are_learned(both):
    text, pictures = both
    blocks = pictures.first.params["backbone"]["blocks"]
    tiny.assert_trees_close(blocks["image"], blocks["text"], atol=0)
    assert isinstance(pictures.system.model, two_tower.TwoTowerModel)
    losses = pictures.system.losses()
    before, after = losses(pictures.first.ema), losses(pictures.last.ema)
    assert after["heldout/image"] < 0.8 * before["heldout/image"]
    assert after["heldout/text"] != before["heldout/text"]  # Words after pictures.
    assert text.system.layout.vocab.text == pictures.system.layout.vocab.text
