"""Tests that `edit_flow` edits documents, with networks that know which items are wrong."""

import jax
import jax.numpy as jnp
import numpy as np

from oneflow_jax.canvas import Modality
from oneflow_jax.data import vocab as vocabs
from oneflow_jax.data.document import Document, Image, Text
from oneflow_jax.flows import predictions
from oneflow_jax.flows.edit_corruption import EditOp
from oneflow_jax.samplers import edit, ode, steps, token_sampling
from oneflow_jax.samplers.base import SamplingPlan
from tests import sampling, tiny
from tests.paradigms import insertion_oracle
from tests.paradigms.oracle import SEED, row_keys

IMAGE = 3
VOCAB = 40
FIRST, LAST = 4, 23


def make_sampler(num_steps, start, **plan):
    alphabet = token_sampling.TokenSpace(
        vocab_size=VOCAB,
        text_id_range=(4, VOCAB),
        image_token_id=IMAGE,
        end_token_id=vocabs.END,
        grid=(2, 2),
    )
    how = SamplingPlan(ode.make_schedule("euler", num_steps, start=start), **plan)
    return edit.EditSampler(alphabet, predictions.X1Prediction(), False, plan=how)


def text_ids(canvas, b):
    text = np.asarray(canvas.is_text[b])
    order = np.asarray(canvas.position[b, :, 0])[text]
    return np.asarray(canvas.ids[b])[text][np.argsort(order)].tolist()


def make_documents(rows, length, ids):
    """Return documents to edit with these ids, in which only BOS is given."""
    count = len(ids)
    canvas = insertion_oracle.empty_prompts(rows, length)
    there = jnp.arange(length) < count
    order = jnp.where(there, jnp.arange(length), 0)
    return canvas.replace(
        ids=jnp.tile(jnp.pad(jnp.array(ids), (0, length - count)), (rows, 1)),
        modality=jnp.tile(jnp.where(there, int(Modality.TEXT), int(Modality.PAD)), (rows, 1)),
        segment=jnp.tile(there.astype(int), (rows, 1)),
        position=jnp.tile(jnp.stack([order, order * 0, order * 0], -1), (rows, 1, 1)),
    )


def corrector(view):
    """Return outputs that correct a text to BOS, 4, 5, ... 23; ids from 30 on are errors.

    The network deletes id 30, and substitutes each id from 31 on by the id minus 20.
    """
    ids = jnp.where(view.modality == Modality.TEXT, insertion_oracle.decode_ids(view), VOCAB)
    ids = jnp.where(ids == 1, FIRST - 1, ids)
    meant = jnp.where((ids > 30) & (ids < VOCAB), ids - 20, ids)
    number = jnp.arange(VOCAB)[None, None]
    # The gap after an item to be deleted is empty.
    usable = meant <= LAST
    following = jnp.where(usable, meant, VOCAB)[:, None, :]
    upcoming = jnp.min(jnp.where(following > meant[:, :, None], following, LAST + 1), axis=-1)
    missing = jnp.where(usable, jnp.minimum(upcoming, LAST + 1) - meant - 1, 0)
    inside = (number > meant[..., None]) & (number < upcoming[..., None])
    fate = jnp.where(ids == 30, int(EditOp.DELETE), jnp.where(ids > 30, int(EditOp.SUBSTITUTE), 0))
    return insertion_oracle.head_outputs(
        view, missing <= 0, missing.astype(float), jnp.where(inside, 0.0, -1e9)
    ) | {
        "fate": 60.0 * jax.nn.one_hot(fate, 3),
        "word_logits": jnp.where(number == meant[..., None], 0.0, -1e9),
    }


def test_optimal_network_corrects_all_errors():
    right = list(range(FIRST, LAST + 1))
    handed_in = [1, 4, 5, 30, 6, 7, 8, 9, 10, 30, 30, 14, 15, 36, 17, 38, 19, 21, 22, 23]
    canvas = make_documents(8, 48, handed_in)
    table = insertion_oracle.one_hot_table(VOCAB)
    out = steps.sample(make_sampler(16, 0.5).bind(corrector, table, row_keys(SEED, 8), canvas))
    for b in range(8):
        assert text_ids(out.canvas, b) == [1, *right]
    assert not out.truncated.any()
    assert int(out.nfe) == 16


def test_correct_document_is_unchanged():
    canvas = make_documents(4, 48, [1, *range(FIRST, LAST + 1)])
    table = insertion_oracle.one_hot_table(VOCAB)
    out = steps.sample(make_sampler(8, 0.5).bind(corrector, table, row_keys(SEED, 4), canvas))
    np.testing.assert_array_equal(out.canvas.ids, canvas.ids)
    np.testing.assert_array_equal(out.canvas.modality, canvas.modality)
    assert int(out.nfe) == 8


def image_rows():
    lay = tiny.make_layout(length=24, text_slots=0)
    pixels = [np.full((4, 4, 3), shade, np.uint8) for shade in (50, 200)]
    document = Document((Text("a red"), Image(pixels[0]), Text("blue"), Image(pixels[1])))
    return jax.tree.map(jnp.asarray, lay.canvas([lay.row(document)] * 4))


def image_critic(canvas, wrong_span, target):
    """Return a network that substitutes a wrong image, and then predicts `target` for it."""

    def apply(view):
        anew = jnp.all(jnp.abs(view.latents - canvas.latents) < 1e-6, axis=-1)
        wrong = (canvas.span == wrong_span) & canvas.is_image & anew
        fate = jnp.where(wrong, int(EditOp.SUBSTITUTE), int(EditOp.KEEP))
        none = jnp.zeros(view.modality.shape)
        return insertion_oracle.head_outputs(
            view, none == 0, none, jnp.zeros((*view.modality.shape, tiny.VOCAB))
        ) | {
            "fate": 60.0 * jax.nn.one_hot(fate, 3),
            "word_logits": jnp.zeros((*view.modality.shape, tiny.VOCAB)),
            "image": jnp.full_like(view.latents, target),
        }

    return apply


def test_wrong_image_is_generated_again_and_the_other_stays():
    canvas = image_rows()
    spans = np.unique(np.asarray(canvas.span)[np.asarray(canvas.is_image)])
    alphabet = token_sampling.TokenSpace(
        vocab_size=tiny.VOCAB,
        text_id_range=(6, tiny.VOCAB),
        image_token_id=IMAGE,
        end_token_id=vocabs.END,
        grid=tiny.CODEC.grid,
    )
    how = SamplingPlan(ode.make_schedule("euler", 8, start=0.5))
    run = edit.EditSampler(alphabet, predictions.X1Prediction(), False, plan=how)
    table = insertion_oracle.one_hot_table(tiny.VOCAB)
    critic = image_critic(canvas, int(spans[0]), 0.3)
    out, trajectory = sampling.record(run.bind(critic, table, row_keys(SEED, 4), canvas))
    first = np.asarray(canvas.span == spans[0])
    np.testing.assert_allclose(np.asarray(out.canvas.latents)[first], 0.3, atol=1e-5)
    np.testing.assert_array_equal(
        np.asarray(out.canvas.latents)[~first], np.asarray(canvas.latents)[~first]
    )
    np.testing.assert_array_equal(out.canvas.ids, canvas.ids)
    assert 8 < int(out.nfe) <= 16  # The new image's time runs from its insertion to 1.
    clock = np.asarray(trajectory.time)
    assert (clock[0] == 1).all()
    assert (clock.min(axis=0)[first] < 0.5).all()
    assert (clock[-1] == 1).all()


def test_text_slots_have_the_document_time_as_in_training():
    canvas = make_documents(2, 32, [1, *range(FIRST, 12)])
    seen_times = []

    def spy(view):
        # Record the text times in the network's inputs.
        jax.debug.callback(lambda clock: seen_times.append(np.asarray(clock)), view.time)
        return corrector(view)

    table = insertion_oracle.one_hot_table(VOCAB)
    steps.sample(make_sampler(4, 0.6).bind(spy, table, row_keys(SEED, 2), canvas))
    jax.effects_barrier()
    text = np.asarray(canvas.is_text)
    times = [0.6, 0.7, 0.8, 0.9]
    assert len(seen_times) == len(times)
    for clock, t in zip(seen_times, times, strict=True):
        np.testing.assert_allclose(clock[text], t, atol=1e-6)
