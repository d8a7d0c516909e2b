"""Tests of generation: given parts stay, and samples depend on seed and index only."""

import dataclasses

import jax
import numpy as np
import pytest

from oneflow_jax import evaluate
from oneflow_jax.build import sampling
from oneflow_jax.canvas import Modality
from oneflow_jax.data import prompt, toy
from oneflow_jax.errors import UserError
from oneflow_jax.generation.generator import Generator
from oneflow_jax.runtime import padding, sharding
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


def plan(steps=2, start=0.0):
    return SamplingPlan(ode.make_schedule("euler", steps, start=start))


def documents():
    red = np.full((4, 4, 3), toy.COLORS["red"], np.uint8)
    parsed = [prompt.parse(text, 4) for text in PROMPTS]
    return [*parsed, prompt.parse([red, "<text>"], 4)]


@pytest.fixture(scope="module")
def generator():
    system, folder = runs.trained_run()
    return Generator(system, evaluate.load_ema_params(system, folder))


def generate_batches(generator, prompts, chosen, seed=0, batch=8, **options):
    return list(generator(prompts, chosen, seed=seed, batch=batch, **options))


def concat_canvases(batches):
    trees = [batch.canvas for batch in batches]
    return jax.tree.map(lambda *parts: np.concatenate(parts), *trees)


@pytest.fixture(scope="module")
def eight_documents(generator):
    return generate_batches(generator, documents(), plan(), record=True)


def test_documents_do_not_depend_on_the_batch(generator, eight_documents):
    """Compare batches of 8 and 16 rows on 8 devices, and of 2 and 4 rows on one device."""
    expected = concat_canvases(eight_documents)
    for batch in (2, 4):
        canvas = concat_canvases(
            generate_batches(on_one_device(generator), documents(), plan(), batch=batch)
        )
        np.testing.assert_array_equal(canvas.ids, expected.ids)
        np.testing.assert_allclose(canvas.latents, expected.latents, atol=1e-5)
    canvas = concat_canvases(generate_batches(generator, documents(), plan(), batch=16))
    np.testing.assert_array_equal(canvas.ids, expected.ids)
    np.testing.assert_allclose(canvas.latents, expected.latents, atol=1e-5)


def test_documents_do_not_depend_on_the_length_of_rows(generator):
    short, long = documents()[0], prompt.parse("<text> <image> " * 4, 4)
    (alone,) = generate_batches(generator, [short], plan())
    (beside,) = generate_batches(generator, [short, long], plan())
    length = alone.canvas.ids.shape[1]
    assert length < beside.canvas.ids.shape[1]
    np.testing.assert_array_equal(alone.canvas.ids[0], beside.canvas.ids[0, :length])
    np.testing.assert_allclose(
        alone.canvas.latents[0], beside.canvas.latents[0, :length], atol=1e-5
    )


def test_sizes_are_rounded_up_to_few_values():
    lengths = sorted({padding.padded_length(n, 1000) for n in range(1, 1001)})
    assert lengths == [32, 48, 64, 96, 128, 192, 256, 384, 512, 768, 1000]
    assert all(padding.padded_length(n, 1000) >= n for n in range(1, 1001))
    mesh = sharding.make_mesh({"data": 2, "fsdp": 1, "tensor": 1}, jax.devices()[:2])
    sizes = [padding.padded_batch_size(mesh, n, 40) for n in range(1, 41)]
    assert sorted(set(sizes)) == [4, 8, 12, 16, 24, 32, 40]
    assert all(size >= n for n, size in enumerate(sizes, 1))


def test_renoising_does_not_depend_on_devices(generator):
    renoised = SamplingPlan(ode.make_schedule("renoise", 4))
    expected = concat_canvases(generate_batches(generator, documents(), renoised))
    canvas = concat_canvases(
        generate_batches(on_one_device(generator), documents(), renoised, batch=2)
    )
    np.testing.assert_array_equal(canvas.ids, expected.ids)
    np.testing.assert_allclose(canvas.latents, expected.latents, atol=1e-5)


def on_one_device(generator):
    """Return the same generator on one device."""
    mesh = sharding.make_mesh({"data": 1, "fsdp": 1, "tensor": 1}, jax.devices()[:1])
    system = dataclasses.replace(generator.system, mesh=mesh)
    params = jax.device_put(generator.params, sharding.replicated_sharding(mesh))
    return Generator(system, params)


def test_documents_depend_on_seed_and_index(generator, eight_documents):
    free = concat_canvases(eight_documents).to_generate
    latents = concat_canvases(eight_documents).latents
    again = concat_canvases(generate_batches(generator, documents(), plan(), record=True))
    np.testing.assert_array_equal(again.latents, latents)
    # A plan without a trajectory compiles to another program, which may round differently.
    unrecorded = concat_canvases(generate_batches(generator, documents(), plan()))
    np.testing.assert_array_equal(unrecorded.ids, again.ids)
    np.testing.assert_allclose(unrecorded.latents, latents, atol=1e-6)
    other_seed = concat_canvases(generate_batches(generator, documents(), plan(), seed=1))
    assert not np.allclose(other_seed.latents[free], latents[free])
    same = concat_canvases(generate_batches(generator, [documents()[0]] * 2, plan())).latents
    assert not np.allclose(same[0], same[1])
    shared = generate_batches(generator, [documents()[0]] * 3, plan(), noise_ids=(1, 0, 1))
    first, second, third = concat_canvases(shared).latents
    np.testing.assert_array_equal(first, third)
    np.testing.assert_allclose(np.stack([second, first]), same, atol=1e-5)


def test_given_parts_are_unchanged(eight_documents, generator):
    layout = generator.system.layout
    canvas = concat_canvases(eight_documents)
    for number, document in enumerate(documents()):
        row = layout.prompt_row(document)
        fixed = np.flatnonzero(row["is_given"])
        np.testing.assert_array_equal(canvas.ids[number][fixed], row["ids"][fixed])
        np.testing.assert_array_equal(canvas.latents[number][fixed], row["latents"][fixed])
    finished = [document for batch in eight_documents for document in batch.documents]
    assert finished[1].text() == "a picture of red:"
    np.testing.assert_array_equal(finished[5].images()[0], documents()[5].images()[0])


def test_all_gaps_are_filled(eight_documents):
    finished = [document for batch in eight_documents for document in batch.documents]
    assert len(finished) == len(documents())
    assert [len(document.images()) for document in finished] == [1, 1, 2, 1, 1, 1]


def test_the_last_batch_is_not_padded_with_documents(generator):
    batches = generate_batches(generator, [documents()[0]] * 11, plan(), record=True)
    assert [len(batch.documents) for batch in batches] == [8, 3]
    assert [batch.canvas.ids.shape[0] for batch in batches] == [8, 3]
    assert [batch.trajectory.canvas.ids.shape[1] for batch in batches] == [8, 3]


def test_trajectory_shapes_and_last_frame(eight_documents, generator):
    (batch,) = eight_documents
    rows, length = batch.canvas.ids.shape
    longest = max(len(generator.system.layout.prompt_row(d)["modality"]) for d in documents())
    assert length == padding.padded_length(longest, generator.system.layout.length)
    assert batch.trajectory.canvas.ids.shape == (3, rows, length)
    assert batch.trajectory.confidence.shape == (3, rows, length)
    assert batch.trajectory.canvas.latents.shape == (3, rows, length, 12)
    assert batch.trajectory.x1_hat.shape == (3, rows, length, 12)
    np.testing.assert_array_equal(batch.trajectory.canvas.ids[-1], batch.canvas.ids)
    image = (batch.canvas.modality == Modality.IMAGE) & ~batch.canvas.is_given
    np.testing.assert_allclose(
        batch.trajectory.canvas.latents[-1][image], batch.canvas.latents[image], atol=1e-6
    )
    assert generate_batches(generator, documents()[:1], plan())[0].trajectory is None


def test_editing_keeps_bos_and_changes_the_rest(generator):
    document = toy.Toy(interleaved=0.0)[0]
    layout = generator.system.layout
    row = layout.row(document)
    batch = generate_batches(generator, [document], plan(steps=4, start=0.5))[0]
    count = len(row["ids"])
    assert batch.canvas.ids[0, 0] == row["ids"][0]
    assert batch.canvas.is_given[0, :count].tolist() == [True] + [False] * (count - 1)
    image = row["modality"] == Modality.IMAGE
    assert not np.any(np.isclose(batch.canvas.latents[0, :count][image], row["latents"][image]))
    # A start at t = 0.999 leaves little time to change the document.
    late = generate_batches(generator, [document], plan(steps=1, start=0.999))[0].canvas
    early = generate_batches(generator, [document], plan(steps=1, start=0.001))[0].canvas
    assert not np.allclose(late.latents, early.latents)


def test_nfe_is_counted():
    system, _ = runs.trained_run()
    paradigm = system.paradigm
    assert paradigm.nfe(plan(steps=5)) == 5
    assert paradigm.nfe(dataclasses.replace(plan(steps=5), image_guidance_scale=2.0)) == 10
    for passes in (1, 4):
        planned = sampling.eval_plan(system.config, system.paradigm, passes, "uniform")
        assert paradigm.nfe(planned) == passes


def test_indivisible_batch_is_refused(generator):
    with pytest.raises(UserError, match="batch_size=12"):
        generate_batches(generator, documents(), plan(), batch=12)


def test_prompt_without_a_gap_is_refused(generator):
    with pytest.raises(UserError, match="no gap"):
        generate_batches(generator, [toy.Toy()[0]], plan())
