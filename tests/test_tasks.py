"""Tests of generation tasks with several paradigms: one call does all, and given parts stay."""

import tempfile

import jax
import numpy as np
import pytest

from oneflow_jax.canvas import Modality
from oneflow_jax.data import prompt, toy
from oneflow_jax.data.document import Gap, Image, Text
from oneflow_jax.generation.generator import Generator
from oneflow_jax.samplers import ode
from oneflow_jax.samplers.base import SamplingPlan
from oneflow_jax.training import train_state
from tests import runs

RED, BLUE = (np.full((4, 4, 3), toy.COLORS[name], np.uint8) for name in ("red", "blue"))

TASKS = {
    "joint": ("<text> <image>",),
    "text to image": ("a picture of red: <image>",),
    "image to text": (RED, "<text>"),
    "infill in the middle": ("a {gap} of red:", RED),
    "replace one picture": ("red", RED, "and blue <image> and red", RED),
    "continue": ("a picture of red:", RED, "and <text> <image>"),
}
OWN = {"edit_flow": {"continue to any length": ("a picture of red:", RED, "<document>")}}
PARADIGMS = {"oneflow": 8, "mask_flow": 8, "edit_flow": 0}


def make_generator(name):
    """Return a generator with an untrained network."""
    config = runs.make_config(
        paradigm__name=name,
        data__text_slot_multiple=PARADIGMS[name],
        paradigm__image_prediction="velocity",
    )
    system = runs.prepare_system(tempfile.mkdtemp(prefix="oneflow_jax-tasks-"), config)
    return Generator(system, train_state.init_sharded(system).params)


@pytest.fixture(scope="module", params=PARADIGMS)
def generated_batch(request):
    """Return the paradigm, the prompts of all tasks, a batch that completes them, a generator."""
    name = request.param
    generator = make_generator(name)
    gap = "<text>" if name == "edit_flow" else "<text:2>"
    parts_by_task = {
        task: [piece.format(gap=gap) if isinstance(piece, str) else piece for piece in pieces]
        for task, pieces in (TASKS | OWN.get(name, {})).items()
    }
    documents = {task: prompt.parse(pieces, 4) for task, pieces in parts_by_task.items()}
    plan = SamplingPlan(
        ode.make_schedule("euler", 3),
        image_guidance_scale=2.0,
        text_guidance_scale=1.5,
    )
    (batch,) = generator(list(documents.values()), plan, seed=0, batch=8, record=True)
    return name, documents, batch, generator


def test_one_call_completes_every_task(generated_batch):
    name, documents, batch, _ = generated_batch
    for (task, document), finished in zip(documents.items(), batch.documents, strict=True):
        assert not any(isinstance(part, Gap) for part in finished.parts)
        num_images = sum(isinstance(p, Image) or p == Gap("image") for p in document.parts)
        if task in TASKS:
            assert len(finished.images()) == num_images
        given_texts = [p.text for p in document.parts if isinstance(p, Text)]
        # Given words are in order, possibly with generated words between them.
        text, at = finished.text(), 0
        for words in given_texts:
            for word in words.split():
                at = text.find(word, at)
                assert at >= 0, (name, task, text)
                at += len(word)
    assert len(batch.documents) == len(documents)


def test_given_slots_are_constant_in_all_frames(generated_batch):
    _, documents, batch, generator = generated_batch
    layout = generator.system.layout
    path = batch.trajectory.canvas
    for number, document in enumerate(documents.values()):
        row = layout.prompt_row(document)
        fixed = np.flatnonzero(row["is_given"])
        for field in ("ids", "latents", "modality"):
            at = np.asarray(getattr(path, field))[:, number, fixed]
            np.testing.assert_array_equal(at, np.broadcast_to(row[field][fixed], at.shape))
        # Given slots keep their order when other slots are inserted between them.
        order = np.asarray(path.position)[:, number, fixed, 0]
        assert np.all(np.diff(order, axis=1) >= 0)
        assert np.all(np.asarray(path.is_given)[:, number, fixed])
        assert np.all(np.asarray(batch.trajectory.time)[:, number, fixed] == 1)


def test_given_images_are_returned_exactly(generated_batch):
    _, documents, batch, _ = generated_batch
    for document, finished in zip(documents.values(), batch.documents, strict=True):
        given_images = [p.pixels.tobytes() for p in document.parts if isinstance(p, Image)]
        images = [pixels.tobytes() for pixels in finished.images()]
        assert [one for one in images if one in given_images] == given_images


@pytest.mark.parametrize(
    ("name", "solver"), [*((name, "euler") for name in PARADIGMS), ("oneflow", "renoise")]
)
def test_editing_uses_the_same_call(name, solver):
    generator = make_generator(name)
    document = prompt.parse(["a picture of red:", BLUE], 4)
    plan = SamplingPlan(ode.make_schedule(solver, 3, start=0.6))
    (batch,) = generator([document] * 8, plan, seed=0, batch=8, record=True)
    path = batch.trajectory.canvas
    # BOS stays; an untrained network changes the rest.
    assert np.all(np.asarray(path.ids)[:, :, 0] == path.ids[0, 0, 0])
    texts = {finished.text() for finished in batch.documents}
    assert texts != {"a picture of red:"}
    exists = np.asarray(path.modality)[-1] != Modality.PAD
    assert exists[:, 0].all()
    assert np.isfinite(np.asarray(batch.canvas.latents)).all()


def test_samples_depend_on_seed_and_index_only():
    """Check that rows of a batch, which grow at different speeds, do not affect each other."""
    generator = make_generator("edit_flow")
    prompts = [prompt.parse(["<document>"], 4)] * 16
    plan = SamplingPlan(ode.make_schedule("euler", 4))
    whole = [m.canvas for m in generator(prompts, plan, seed=3, batch=16)]
    halves = [m.canvas for m in generator(prompts, plan, seed=3, batch=8)]
    joined = jax.tree.map(lambda *parts: np.concatenate(parts), *halves)
    np.testing.assert_array_equal(joined.ids, whole[0].ids)
    np.testing.assert_allclose(joined.latents, whole[0].latents, atol=1e-4)
