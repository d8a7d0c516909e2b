"""Every task is one call, in every paradigm; and what is given never changes on the way."""

import tempfile

import jax
import numpy as np
import pytest

from oneflow_jax import generate
from oneflow_jax.canvas import Modality
from oneflow_jax.data import prompt, toy
from oneflow_jax.data.document import Gap, Image, Text
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


def generator_of(name):
    """Of a network that knows nothing: what it makes is as wild as can be."""
    given = runs.make_config(
        paradigm__name=name, data__text_slots=PARADIGMS[name], paradigm__image="velocity"
    )
    system = runs.prepare_system(tempfile.mkdtemp(prefix="oneflow_jax-tasks-"), given)
    return generate.Generator(system, train_state.init_sharded(system).params)


@pytest.fixture(scope="module", params=PARADIGMS)
def made(request):
    """By task: its document with gaps, and the batch that it was finished in."""
    name = request.param
    generator = generator_of(name)
    gap = "<text>" if name == "edit_flow" else "<text:2>"
    asked = {
        task: [piece.format(gap=gap) if isinstance(piece, str) else piece for piece in pieces]
        for task, pieces in (TASKS | OWN.get(name, {})).items()
    }
    documents = {task: prompt.parse(pieces, 4) for task, pieces in asked.items()}
    plan = SamplingPlan(ode.make_schedule("euler", 3), guidance=2.0, text_guidance=1.5, record=True)
    (batch,) = generator(list(documents.values()), plan, seed=0, batch=8)
    return name, documents, batch, generator


def test_every_task_is_done_by_the_same_call(made):
    name, documents, batch, _ = made
    for (task, document), finished in zip(documents.items(), batch.documents, strict=True):
        assert not any(isinstance(part, Gap) for part in finished.parts)
        asked = sum(isinstance(p, Image) or p == Gap("image") for p in document.parts)
        if task in TASKS:
            assert len(finished.pictures()) == asked
        given = [p.text for p in document.parts if isinstance(p, Text)]
        # Words in their order, with whatever was made between them.
        text, at = finished.words(), 0
        for words in given:
            for word in words.split():
                at = text.find(word, at)
                assert at >= 0, (name, task, text)
                at += len(word)
    assert len(batch.documents) == len(documents)


def test_given_slots_are_the_same_at_every_moment(made):
    _, documents, batch, generator = made
    layout = generator.system.layout
    path = batch.moments.canvas
    for number, document in enumerate(documents.values()):
        row = layout.prompt(document)
        fixed = np.flatnonzero(row["fixed"])
        for field in ("ids", "latents", "kind"):
            at = np.asarray(getattr(path, field))[:, number, fixed]
            np.testing.assert_array_equal(at, np.broadcast_to(row[field][fixed], at.shape))
        # Their order among themselves stays too, whatever comes between.
        order = np.asarray(path.position)[:, number, fixed, 0]
        assert np.all(np.diff(order, axis=1) >= 0)
        assert np.all(np.asarray(path.fixed)[:, number, fixed])
        assert np.all(np.asarray(batch.moments.clock)[:, number, fixed] == 1)


def test_given_pictures_come_back_to_the_pixel(made):
    _, documents, batch, _ = made
    for document, finished in zip(documents.values(), batch.documents, strict=True):
        given = [p.pixels.tobytes() for p in document.parts if isinstance(p, Image)]
        found = [pixels.tobytes() for pixels in finished.pictures()]
        assert [one for one in found if one in given] == given


@pytest.mark.parametrize(
    ("name", "solver"), [*((name, "euler") for name in PARADIGMS), ("oneflow", "renoise")]
)
def test_revision_is_the_same_call_too(name, solver):
    generator = generator_of(name)
    document = prompt.parse(["a picture of red:", BLUE], 4)
    plan = SamplingPlan(ode.make_schedule(solver, 3, start=0.6), record=True)
    (batch,) = generator([document] * 8, plan, seed=0, batch=8)
    path = batch.moments.canvas
    # BOS stays; all else may change, and what the network knows nothing of does.
    assert np.all(np.asarray(path.ids)[:, :, 0] == path.ids[0, 0, 0])
    texts = {finished.words() for finished in batch.documents}
    assert texts != {"a picture of red:"}
    exists = np.asarray(path.kind)[-1] != Modality.PAD
    assert exists[:, 0].all()
    assert np.isfinite(np.asarray(batch.canvas.latents)).all()


def test_randomness_is_of_seed_and_place_alone():
    """Also where rows grow at different speeds."""
    generator = generator_of("edit_flow")
    prompts = [prompt.parse(["<document>"], 4)] * 16
    plan = SamplingPlan(ode.make_schedule("euler", 4))
    whole = [m.canvas for m in generator(prompts, plan, seed=3, batch=16)]
    halves = [m.canvas for m in generator(prompts, plan, seed=3, batch=8)]
    joined = jax.tree.map(lambda *parts: np.concatenate(parts), *halves)
    np.testing.assert_array_equal(joined.ids, whole[0].ids)
    np.testing.assert_allclose(joined.latents, whole[0].latents, atol=1e-4)
