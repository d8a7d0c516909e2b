"""Generation: what is given stays, what is made depends on seed and place alone."""

import dataclasses

import jax
import numpy as np
import pytest

from oneflow_jax import evaluate, generate
from oneflow_jax.build import sampling
from oneflow_jax.canvas import Modality
from oneflow_jax.data import prompt, toy
from oneflow_jax.errors import UserError
from oneflow_jax.runtime import sharding
from oneflow_jax.samplers import ode
from oneflow_jax.samplers.base import SamplingPlan
from tests import runs

PROMPTS = (
    "<text> <image>",
    "a picture of red: <image>",
    "<text> <image> and <text> <image>",
    "red <text:3> <image>",
    "<image>",
)


def plan(steps=2, start=0.0, record=False):
    return SamplingPlan(ode.make_schedule("euler", steps, start=start), record=record)


def documents():
    red = np.full((4, 4, 3), toy.COLORS["red"], np.uint8)
    parsed = [prompt.parse(text, 4) for text in PROMPTS]
    return [*parsed, prompt.parse([red, "<text>"], 4)]


@pytest.fixture(scope="module")
def generator():
    system, folder = runs.trained_run()
    return generate.Generator(system, evaluate.load_ema_params(system, folder))


def made(generator, prompts, chosen, seed=0, batch=8):
    return list(generator(prompts, chosen, seed=seed, batch=batch))


def together(batches):
    trees = [batch.canvas for batch in batches]
    return jax.tree.map(lambda *parts: np.concatenate(parts), *trees)


@pytest.fixture(scope="module")
def eight(generator):
    return made(generator, documents(), plan(record=True))


def test_the_batch_does_not_matter(generator, eight):
    """16 and 24 rows at a time, and the same over one device 2 and 4 at a time."""
    expected = together(eight)
    for batch in (2, 4):
        canvas = together(made(alone(generator), documents(), plan(), batch=batch))
        np.testing.assert_array_equal(canvas.ids, expected.ids)
        np.testing.assert_allclose(canvas.latents, expected.latents, atol=1e-5)
    canvas = together(made(generator, documents(), plan(), batch=16))
    np.testing.assert_array_equal(canvas.ids, expected.ids)
    np.testing.assert_allclose(canvas.latents, expected.latents, atol=1e-5)


def test_renoising_is_the_same_on_one_device(generator):
    renoised = SamplingPlan(ode.make_schedule("renoise", 4))
    expected = together(made(generator, documents(), renoised))
    canvas = together(made(alone(generator), documents(), renoised, batch=2))
    np.testing.assert_array_equal(canvas.ids, expected.ids)
    np.testing.assert_allclose(canvas.latents, expected.latents, atol=1e-5)


def alone(generator):
    """The same generator on one device."""
    mesh = sharding.make_mesh({"data": 1, "fsdp": 1, "tensor": 1}, jax.devices()[:1])
    system = dataclasses.replace(generator.system, mesh=mesh)
    params = jax.device_put(generator.params, sharding.replicated_sharding(mesh))
    return generate.Generator(system, params)


def test_the_seed_and_the_place_matter(generator, eight):
    free = together(eight).free
    latents = together(eight).latents
    again = together(made(generator, documents(), plan()))
    np.testing.assert_array_equal(again.latents, latents)
    other = together(made(generator, documents(), plan(), seed=1))
    assert not np.allclose(other.latents[free], latents[free])
    same = together(made(generator, [documents()[0]] * 2, plan())).latents
    assert not np.allclose(same[0], same[1])


def test_what_is_given_comes_back_unchanged(eight, generator):
    layout = generator.system.layout
    canvas = together(eight)
    for number, document in enumerate(documents()):
        row = layout.prompt(document)
        fixed = np.flatnonzero(row["fixed"])
        np.testing.assert_array_equal(canvas.ids[number][fixed], row["ids"][fixed])
        np.testing.assert_array_equal(canvas.latents[number][fixed], row["latents"][fixed])
    finished = [document for batch in eight for document in batch.documents]
    assert finished[1].words() == "a picture of red:"
    np.testing.assert_array_equal(finished[5].pictures()[0], documents()[5].pictures()[0])


def test_all_gaps_are_filled(eight):
    finished = [document for batch in eight for document in batch.documents]
    assert len(finished) == len(documents())
    assert [len(document.pictures()) for document in finished] == [1, 1, 2, 1, 1, 1]


def test_the_last_batch_is_not_padded_with_documents(generator):
    batches = made(generator, [documents()[0]] * 11, plan(record=True))
    assert [len(batch.documents) for batch in batches] == [8, 3]
    assert [batch.canvas.ids.shape[0] for batch in batches] == [8, 3]
    assert [batch.moments.canvas.ids.shape[1] for batch in batches] == [8, 3]


def test_moments(eight, generator):
    (batch,) = eight
    rows, length = batch.canvas.ids.shape
    assert length % generate.LENGTH_MULTIPLE == 0
    assert batch.moments.canvas.ids.shape == (3, rows, length)
    assert batch.moments.certainty.shape == (3, rows, length)
    assert batch.moments.canvas.latents.shape == (3, rows, length, 12)
    assert batch.moments.guess.shape == (3, rows, length, 12)
    np.testing.assert_array_equal(batch.moments.canvas.ids[-1], batch.canvas.ids)
    image = (batch.canvas.kind == Modality.IMAGE) & ~batch.canvas.fixed
    np.testing.assert_allclose(
        batch.moments.canvas.latents[-1][image], batch.canvas.latents[image], atol=1e-6
    )
    assert made(generator, documents()[:1], plan())[0].moments is None


def test_revision_leaves_bos_and_changes_the_rest(generator):
    document = toy.Toy(interleaved=0.0)[0]
    layout = generator.system.layout
    row = layout.row(document)
    batch = made(generator, [document], plan(steps=4, start=0.5))[0]
    count = len(row["ids"])
    assert batch.canvas.ids[0, 0] == row["ids"][0]
    assert batch.canvas.fixed[0, :count].tolist() == [True] + [False] * (count - 1)
    image = row["kind"] == Modality.IMAGE
    assert not np.any(np.isclose(batch.canvas.latents[0, :count][image], row["latents"][image]))
    # Near the end there is little time left to move away.
    late = made(generator, [document], plan(steps=1, start=0.999))[0].canvas
    early = made(generator, [document], plan(steps=1, start=0.001))[0].canvas
    assert not np.allclose(late.latents, early.latents)


def test_passes_are_counted():
    system, _ = runs.trained_run()
    paradigm = system.paradigm
    assert paradigm.evaluations(plan(steps=5)) == 5
    assert paradigm.evaluations(dataclasses.replace(plan(steps=5), guidance=2.0)) == 10
    for passes in (1, 4):
        planned = sampling.eval_plan(system.config, system.paradigm, passes, "uniform")
        assert paradigm.evaluations(planned) == passes


def test_batch_that_does_not_divide(generator):
    with pytest.raises(UserError, match="batch=12"):
        made(generator, documents(), plan(), batch=12)


def test_nothing_to_be_made(generator):
    with pytest.raises(UserError, match="no gap"):
        made(generator, [toy.Toy()[0]], plan())
