"""Tests of autoregressive sampling: samples, and independence of the rows of a batch."""

import dataclasses
import functools
import itertools

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from oneflow_jax import canvas as canvases
from oneflow_jax.canvas import AttentionPattern, EmbeddingTable, Modality
from oneflow_jax.data import vocab as vocabs
from oneflow_jax.data.document import Document, Gap, Image, Text
from oneflow_jax.flows import predictions
from oneflow_jax.nn import bound_model
from oneflow_jax.paradigms import base
from oneflow_jax.samplers import (
    ar_guidance,
    ar_images,
    autoregressive,
    ode,
    steps,
    token_sampling,
)
from oneflow_jax.samplers.base import SamplingPlan
from tests import sampling, tiny

LENGTH = 24
PATCHES = 4
TEXT_ID_RANGE = (10, 20)
VOCAB = 24
TOKEN_SPACE = token_sampling.TokenSpace(VOCAB, TEXT_ID_RANGE, vocabs.IMAGE, vocabs.END, (2, 2))
NO_GUIDANCE = ar_guidance.ARGuidance(1.0, vocabs.IMAGE)
TOY_IMAGE = Image(np.arange(48, dtype=np.uint8).reshape(4, 4, 3))


def make_plan(temperature=1.0, steps=2, **overrides):
    words = token_sampling.TokenSampling(temperature=temperature)
    return SamplingPlan(ode.make_schedule("euler", steps), token_sampling=words, **overrides)


@flax.struct.dataclass
class IdCache:
    """A cache of the ids that were written."""

    ids: jax.Array
    length: jax.Array

    def advance(self, num_slots):
        return self.replace(length=self.length + num_slots)


@flax.struct.dataclass
class ScriptedModel:
    """A stub that predicts `logits[last]` after the token `last`, and `patch_value` for patches.

    The logits are an argument of the compiled sampler, so that one program runs all scripts.
    """

    logits: jax.Array
    patch_value: float = 0.5

    def init_cache(self, batch_size, num_slots):
        return IdCache(jnp.zeros((batch_size, num_slots), int), jnp.zeros(batch_size, int))

    def prefill(self, view, cache):
        return self.decode(view, cache)

    def decode(self, view, cache):
        ids = jnp.argmax(view.embeds, axis=-1)
        last = jnp.where(
            view.modality == Modality.IMAGE, VOCAB - 1, ids
        )  # For image slots, the stub uses the last token id.
        put = jax.vmap(lambda row, new, at: jax.lax.dynamic_update_slice(row, new, (at,)))
        outputs = {
            "token_logits": jnp.asarray(self.logits)[last],
            "image": jnp.full(view.latents.shape, self.patch_value),
        }
        return outputs, cache.replace(ids=put(cache.ids, ids, cache.length))


def one_hot_table():
    return EmbeddingTable(embedding=jnp.eye(VOCAB), mask_embedding=jnp.zeros(VOCAB))


def make_prompts(*rows, length=LENGTH):
    """Return prompts with BOS and these slots, as `text_slot` and `image_slots` return them."""
    all_rows = []
    for row in rows:
        slots = [("w", vocabs.BOS, 0, True), *row]
        fields = {
            name: [] for name in ("ids", "latents", "modality", "span", "is_given", "insertable")
        }
        fields["position"] = []
        order = -1
        for n, (kind, value, opening, fixed) in enumerate(slots):
            picture = kind == "p"
            order += not (picture and slots[n - 1][0] == "p" and fields["position"])
            fields["ids"].append(0 if picture else value)
            fields["latents"].append([value if picture else 0.0])
            fields["modality"].append(int(Modality.IMAGE if picture else Modality.TEXT))
            fields["span"].append(n + 1)
            fields["is_given"].append(fixed)
            fields["insertable"].append(opening)
            fields["position"].append([order, 0, 0])
        all_rows.append({name: np.array(values) for name, values in fields.items()})
    lay = tiny.make_layout(length, 0)
    return jax.tree.map(jnp.asarray, lay.canvas(all_rows))


def text_slot(token, insertable=0, is_given=True):
    return ("w", token, insertable, is_given)


def image_slots(value=0.0, is_given=False, insertable=0):
    slots = [("p", value, 0, is_given)] * (PATCHES - 1)
    return [text_slot(vocabs.IMAGE), *slots, ("p", value, insertable, is_given)]


def open_bos(row, insertable):
    """Return the prompt with a gap after BOS, whose `InsertPolicy` is `insertable`."""
    return row.replace(insertable=row.insertable.at[:, 0].set(insertable))


def chain_logits(*ids):
    """Return logits with which each id follows the id before it, and <end> follows the last id."""
    logits = np.full((VOCAB, VOCAB), -30.0)
    for last, following in itertools.pairwise((vocabs.BOS, *ids, vocabs.END)):
        logits[last, following] = 30.0
    return logits


@functools.partial(jax.jit, static_argnames="plan")
def run_sampler(network, prompt, plan, keys):
    flow = ar_images.FlowImageSampler(predictions.X1Prediction(), plan.schedule, NO_GUIDANCE)
    sampler = make_sampler(flow, plan, network, keys, prompt)
    return steps.sample(sampler)


def make_sampler(flow, plan, network, keys, prompt):
    return autoregressive.make_sampler(
        TOKEN_SPACE, flow, plan.token_sampling, network, one_hot_table(), keys, prompt
    )


def generate(network, prompt, sampling_plan=None, seed=0):
    keys = jax.random.split(jax.random.key(seed), prompt.ids.shape[0])
    return run_sampler(network, prompt, sampling_plan or make_plan(), keys)


def token_ids(sample, row=0):
    """Return the ids of a row's tokens, and 0 for patches."""
    kind = np.asarray(sample.canvas.modality[row])
    return np.asarray(sample.canvas.ids[row])[kind != Modality.PAD].tolist()


def test_text_is_generated_until_end():
    sample = generate(ScriptedModel(chain_logits(10, 11, 12)), open_bos(make_prompts([]), 1))
    assert token_ids(sample) == [vocabs.BOS, 10, 11, 12, vocabs.END]
    position = np.asarray(sample.canvas.position[0, :5, 0])
    np.testing.assert_array_equal(position, range(5))
    assert int(sample.nfe) == 1 + 4
    assert not sample.truncated[0]


def test_text_gap_then_prompt_image():
    """Check the prompt <text> <image>: <image> ends the text, and the image is generated."""
    row = open_bos(make_prompts([*image_slots(), text_slot(vocabs.END)]), 1)
    sample = generate(ScriptedModel(chain_logits(10, 11, vocabs.IMAGE)), row)
    assert token_ids(sample) == [vocabs.BOS, 10, 11, vocabs.IMAGE, 0, 0, 0, 0, vocabs.END]
    canvas = jax.tree.map(lambda x: np.asarray(x[0, :9]), sample.canvas)
    np.testing.assert_array_equal(canvas.latents[4:8], 0.5)
    np.testing.assert_array_equal(canvas.position[:, 0], [0, 1, 2, 3, 4, 4, 4, 4, 5])
    np.testing.assert_array_equal(canvas.position[4:8, 1:], [[0, 0], [0, 1], [1, 0], [1, 1]])
    np.testing.assert_array_equal(canvas.is_given, [1, 0, 0, 1, 0, 0, 0, 0, 1])
    # Count prefill, 3 tokens, an image flow of 2 steps, its cache update, and <end>.
    assert int(sample.nfe) == 1 + 3 + (2 + 1) + 1


def test_given_image_stays_and_conditions_later_text():
    row = make_prompts(image_slots(0.25, is_given=True, insertable=1))
    logits = chain_logits(10)
    logits[VOCAB - 1, 13] = 30.0
    logits[13, vocabs.END] = 30.0
    sample = generate(ScriptedModel(logits), row)
    assert token_ids(sample) == [vocabs.BOS, vocabs.IMAGE, 0, 0, 0, 0, 13, vocabs.END]
    np.testing.assert_array_equal(sample.canvas.latents[0, 2:6, 0], 0.25)


def test_given_image_after_a_gap_stays():
    row = open_bos(make_prompts([*image_slots(0.25, is_given=True), text_slot(vocabs.END)]), 1)
    sample = generate(ScriptedModel(chain_logits(10, vocabs.IMAGE)), row)
    assert token_ids(sample) == [vocabs.BOS, 10, vocabs.IMAGE, 0, 0, 0, 0, vocabs.END]
    np.testing.assert_array_equal(sample.canvas.latents[0, 3:7, 0], 0.25)


def test_images_are_generated_in_a_document_gap():
    logits = chain_logits(10, vocabs.IMAGE)
    logits[VOCAB - 1, 11] = 30.0
    logits[11, vocabs.END] = 30.0
    sample = generate(ScriptedModel(logits), open_bos(make_prompts([]), 2))
    assert token_ids(sample) == [vocabs.BOS, 10, vocabs.IMAGE, 0, 0, 0, 0, 11, vocabs.END]
    np.testing.assert_array_equal(sample.canvas.latents[0, 3:7], 0.5)
    assert not sample.canvas.is_given[0, 1:9].any()


def test_no_image_is_generated_in_a_text_gap():
    logits = chain_logits(10, vocabs.IMAGE)
    logits[10, 12], logits[12, vocabs.END] = 20.0, 30.0
    sample = generate(ScriptedModel(logits), open_bos(make_prompts([]), 1))
    assert token_ids(sample) == [vocabs.BOS, 10, 12, vocabs.END]


@pytest.mark.parametrize("opening", [1, 2])
def test_full_canvas_reserves_slots_for_the_prompt(opening):
    """Check that text of a network that never stops leaves room for the rest of the prompt."""
    logits = np.full((VOCAB, VOCAB), -30.0)
    logits[:, 10] = 30.0
    logits[:, vocabs.IMAGE] = 30.0 if opening == 2 else -30.0
    row = open_bos(make_prompts([*image_slots(), text_slot(15), text_slot(vocabs.END)]), opening)
    sample = generate(ScriptedModel(logits), row)
    ids = token_ids(sample)
    assert len(ids) <= LENGTH
    assert ids[-2:] == [15, vocabs.END]
    kinds = np.asarray(sample.canvas.modality[0])
    assert np.sum(kinds == Modality.IMAGE) % PATCHES == 0
    assert np.sum(kinds == Modality.IMAGE) >= PATCHES
    assert sample.truncated[0] or opening == 2


def test_rows_do_not_depend_on_each_other():
    """Check that a row's document does not depend on longer rows with other image positions."""
    logits = np.full((VOCAB, VOCAB), -30.0)
    logits[:, 10:16] = 0.0
    logits[:, vocabs.END] = -1.0
    logits[:, vocabs.IMAGE] = -0.5
    script = ScriptedModel(logits)
    rows = open_bos(make_prompts([], [], [], [text_slot(12)]), 2)
    keys = jax.random.split(jax.random.key(3), 4)
    together = run_sampler(script, rows, make_plan(), keys)
    assert len({tuple(token_ids(together, row)) for row in range(4)}) > 1
    for row in range(4):
        one = jax.tree.map(lambda x, row=row: x[row : row + 1], rows)
        alone = run_sampler(script, one, make_plan(), keys[row : row + 1])
        for name in ("ids", "modality", "latents", "position"):
            expected = getattr(together.canvas, name)[row]
            np.testing.assert_array_equal(getattr(alone.canvas, name)[0], expected)


def test_sampled_frequencies_equal_the_network_probabilities():
    """Compare text frequencies with those of a Markov chain."""
    share = {vocabs.BOS: {10: 0.7, 11: 0.3}, 10: {11: 0.4, vocabs.END: 0.6}, 11: {vocabs.END: 1.0}}
    logits = np.full((VOCAB, VOCAB), -60.0)
    for last, following in share.items():
        for token, p in following.items():
            logits[last, token] = np.log(p)
    rows = 4000
    row = open_bos(make_prompts([], length=8), 1)
    batch = jax.tree.map(lambda x: jnp.repeat(x, rows, axis=0), row)
    sample = generate(ScriptedModel(logits), batch)
    counts = {}
    for b in range(rows):
        text = tuple(token_ids(sample, b)[1:-1])
        counts[text] = counts.get(text, 0) + 1
    expected = {(10,): 0.42, (10, 11): 0.28, (11,): 0.3}
    assert set(counts) == set(expected)
    for text, p in expected.items():
        sigma = np.sqrt(rows * p * (1 - p))
        assert abs(counts[text] - rows * p) < 4 * sigma


def test_trajectory_ends_with_the_finished_document():
    row = open_bos(make_prompts([*image_slots(), text_slot(vocabs.END)]), 1)
    network, keys = ScriptedModel(chain_logits(10, 11, vocabs.IMAGE)), jax.random.key(0)[None]
    flow = ar_images.FlowImageSampler(predictions.X1Prediction(), make_plan().schedule, NO_GUIDANCE)
    sample, moments = sampling.record(make_sampler(flow, make_plan(), network, keys, row))
    np.testing.assert_array_equal(moments.canvas.ids[-1], sample.canvas.ids)
    written_slots = np.sum(np.asarray(moments.canvas.modality)[:, 0] != Modality.PAD, axis=1)
    # The frames: the prefill, then 3 tokens, an image of 4 patches, and <end>.
    np.testing.assert_array_equal(written_slots, [1, 2, 3, 4, 8, 9])
    np.testing.assert_array_equal(moments.run_times, np.arange(6))


def test_greedy_tokens_equal_a_network_without_a_cache():
    """Check that each token of a real network has the largest logit in a full forward pass."""
    lay = dataclasses.replace(tiny.make_layout(32, 0), has_markers=True)
    vocab = lay.vocab
    alphabet = token_sampling.TokenSpace(
        tiny.VOCAB, (vocab.text.start, vocab.text.stop), vocabs.IMAGE, vocabs.END, lay.codec.grid
    )
    heads = (
        base.Head("token_logits", tiny.VOCAB, "vocab"),
        base.Head("image", lay.codec.channels, "channels"),
    )
    model = dataclasses.replace(tiny.network(heads), attention_pattern=AttentionPattern.MIXED)
    net = bound_model.BoundModel(model, tiny.parameters(tiny.network(heads)))
    prompts = [
        Document((Text("a red"), Gap("text"), Image(TOY_IMAGE.pixels), Gap("document"))),
        Document((Image(TOY_IMAGE.pixels), Gap("document"))),
        Document((Gap("text"), Gap("image"))),
    ]
    prompt = jax.tree.map(jnp.asarray, lay.canvas([lay.prompt_row(item) for item in prompts]))
    rows = model.apply({"params": net.params}, method="embedding_table")
    given_plan = make_plan(temperature=0.0)
    flow = ar_images.FlowImageSampler(predictions.X1Prediction(), given_plan.schedule, NO_GUIDANCE)
    keys = jax.random.split(jax.random.key(0), len(prompts))
    parts = (alphabet, flow, given_plan.token_sampling, net, rows, keys)
    run = jax.jit(lambda prompt: steps.sample(autoregressive.make_sampler(*parts, prompt)))
    sample = run(prompt)
    canvas = sample.canvas
    view = canvases.noisy_canvas(
        canvas, rows.embedding[canvas.ids], canvas.latents, jnp.ones(canvas.ids.shape)
    )
    logits = np.asarray(jax.jit(net)(view)["token_logits"])
    words = np.arange(tiny.VOCAB)
    words = (words >= vocab.text.start) & (words < vocab.text.stop)
    checked = 0
    for b, slot in zip(*np.nonzero(np.asarray(canvas.is_text & ~canvas.is_given)), strict=True):
        token = int(canvas.ids[b, slot])
        if words[token]:
            best = np.flatnonzero(words)[np.argmax(logits[b, slot - 1][words])]
            assert token == best, (b, slot)
            checked += 1
    assert checked > 5
    decoded = lay.decode(jax.tree.map(np.asarray, canvas))
    np.testing.assert_array_equal(decoded[1].images()[0], TOY_IMAGE.pixels)
    assert decoded[0].text().startswith("a red")
