"""Tests of the choice of a layout for the gap <document>."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from oneflow_jax import evaluate
from oneflow_jax.build import data
from oneflow_jax.canvas import EmbeddingTable
from oneflow_jax.data import known_layouts, prompt, vocab
from oneflow_jax.data.document import Document, Gap
from oneflow_jax.errors import UserError
from oneflow_jax.generation import layout_choice
from oneflow_jax.generation.generator import Generator
from oneflow_jax.runtime import workdir
from oneflow_jax.samplers import ode
from oneflow_jax.samplers.base import SamplingPlan
from tests import runs

PLAN = SamplingPlan(ode.make_schedule("euler", 2))
VOCAB = 512
OPEN = Document((Gap("document"),))


@pytest.fixture(scope="module")
def generator():
    system, folder = runs.trained_run()
    return Generator(system, evaluate.load_ema_params(system, folder))


def num_parts(documents):
    return [len(document.parts) for document in documents]


def test_a_run_counts_the_layouts_of_its_documents(generator):
    _, folder = runs.trained_run()
    known = generator.system.known_layouts
    assert known_layouts.KnownLayouts.from_json((folder / workdir.LAYOUTS).read_text()) == known
    assert sum(known.counts) == known.documents
    assert len(known.layouts) > 1


def test_draws_depend_on_seed_and_number(generator):
    choose = generator.layouts.choose
    drawn = choose([OPEN] * 64, [0] * 64, range(64))
    assert drawn == choose([OPEN] * 64, [0] * 64, range(64))
    assert drawn[::-1] == choose([OPEN] * 64, [0] * 64, range(63, -1, -1))
    assert drawn != choose([OPEN] * 64, [1] * 64, range(64))
    assert len(set(drawn)) > 1


def test_other_prompts_are_unchanged(generator):
    prompts = [prompt.parse("<text> <image>", 4)]
    assert generator.layouts.choose(prompts, [0], [0]) == prompts
    growing = dataclasses.replace(
        generator.system, layout=dataclasses.replace(generator.system.layout, text_slots=0)
    )
    assert Generator(growing, generator.params).layouts.choose([OPEN], [0], [0]) == [OPEN]


def test_generated_documents_have_the_chosen_layouts(generator):
    chosen = generator.layouts.choose([OPEN] * 8, [5] * 8, range(8))
    (batch,) = generator([OPEN] * 8, PLAN, seed=5, batch=8)
    (expected,) = generator(chosen, PLAN, seed=5, batch=8)
    np.testing.assert_array_equal(batch.canvas.ids, expected.canvas.ids)
    images = [len(document.images()) for document in batch.documents]
    assert images == [str(document).count("'image'") for document in chosen]


class StubModel:
    """A network that predicts <end> in rows of several images, and otherwise token 8."""

    def apply(self, variables, view=None, method=None):
        if method == "embedding_table":
            return EmbeddingTable(jnp.ones((VOCAB, 4)), jnp.zeros(4))
        is_long = jnp.max(view.position[..., 0], axis=-1) > 12
        token = jnp.where(is_long, vocab.END, 8)
        logits = 2.0 * jax.nn.one_hot(token, VOCAB)[:, None] * jnp.ones((*view.time.shape, 1))
        # Only BOS and padding may be clean.
        hidden = (view.position[..., 0] > 0) & (view.modality > 0)
        logits = jnp.where(jnp.any(hidden & (view.time > 0)), jnp.nan, logits)
        return {"text_logits": logits, "image": jnp.zeros_like(view.latents)}


def test_the_loss_of_given_text_is_its_cross_entropy_at_t_0(generator):
    layout = dataclasses.replace(generator.system.layout, length=48)
    image = known_layouts.IMAGE
    known = known_layouts.KnownLayouts(((8, image), (8, image, 8, image)), (1, 1), 2)
    given = prompt.parse(["a picture of", Gap("document")], 4)
    prompts = known_layouts.fit(given, layout, known).prompts
    canvas = layout.canvas([layout.prompt_row(each) for each in prompts])
    losses = layout_choice.compute_given_text_losses(
        {},
        canvas,
        jax.random.split(jax.random.key(0), 2),
        model=StubModel(),
        paradigm=generator.system.paradigm.at_shared_time,
    )
    expected = []
    for row, token in ((0, 8), (1, vocab.END)):
        logits = 2.0 * np.eye(VOCAB)[token]
        log_probs = logits - np.log(np.exp(logits).sum())
        given = canvas.is_given[row] & (canvas.position[row, :, 0] > 0)
        assert given.sum() == 4  # three words, and <end> in the last slot
        expected.append(-sum(log_probs[int(each)] for each in canvas.ids[row][given]))
    np.testing.assert_allclose(losses, expected, rtol=1e-5)
    assert losses[1] < losses[0]


def test_text_changes_the_probabilities(generator, monkeypatch):
    monkeypatch.setattr(
        layout_choice,
        "compute_given_text_losses",
        lambda params, canvas, keys, **_: jnp.arange(canvas.ids.shape[0], dtype=jnp.float32),
    )
    given = prompt.parse(["a", Gap("document")], 4)
    system = generator.system
    prior = known_layouts.fit(given, system.layout, system.known_layouts)
    found = generator.layouts.predict(given)
    expected = prior.probs * np.exp(-np.arange(len(prior.probs)))
    np.testing.assert_allclose(found.probs, expected / expected.sum(), rtol=1e-5)
    assert generator.layouts.predict(OPEN).probs.tolist() != found.probs.tolist()


def test_models_of_earlier_versions_refuse_open_layouts(generator):
    system = dataclasses.replace(generator.system, known_layouts=None)
    with pytest.raises(UserError, match="an earlier version trained it"):
        next(iter(Generator(system, generator.params)([OPEN], PLAN, seed=0, batch=8)))


def test_modes_that_read_documents_count_missing_layouts(tmp_path):
    system, folder = runs.trained_run()
    copy = runs.copy_run(folder, tmp_path)
    (copy / workdir.LAYOUTS).unlink()

    def load(mode):
        return data.load_known_layouts(system.config, copy, system.layout, mode)

    assert load("sample") is None
    assert load("evaluate") == system.known_layouts
    assert load("sample") is None  # Evaluation does not write to the folder of a run.
    assert load("train") == load("sample") == system.known_layouts
    known = known_layouts.KnownLayouts(((8, known_layouts.IMAGE),), (1,), 1)
    (copy / workdir.LAYOUTS).write_text(known.to_json())
    assert load("train") == load("sample") == known
