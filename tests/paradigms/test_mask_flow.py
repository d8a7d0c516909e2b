"""Tests of `mask_flow`: corruption, loss and sampler."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from oneflow_jax.data.document import Document, Gap, Text
from oneflow_jax.errors import UserError
from oneflow_jax.flows import predictions, tasks, time_samplers
from oneflow_jax.paradigms.mask_flow import MaskFlow
from oneflow_jax.samplers import ode
from oneflow_jax.samplers.base import SamplingPlan
from oneflow_jax.samplers.token_sampling import TokenSampling
from tests import sampling, tiny
from tests.paradigms import small_language
from tests.paradigms.oracle import SEED, TABLE, row_keys

JOINT_ONLY = (1.0, *(0.0,) * 6)


def paradigm(task_probs=JOINT_ONLY, cond_drop_prob=0.0, **overrides):
    settings = {
        "vocab_size": tiny.VOCAB,
        "allowed_ranges": ((0, tiny.VOCAB),),
        "image_prediction": predictions.X1Prediction(),
        "channels": tiny.CODEC.channels,
        "task_mixture": tasks.TaskMixture(task_probs, cond_drop_prob),
        "time_sampler": time_samplers.PowerTimeSampler(),
        "max_mask_weight": 20.0,
        "weights": (("text", 1.0), ("image", 1.0)),
    }
    return MaskFlow(**settings | overrides)


def plan(steps, **token_sampling):
    return SamplingPlan(
        ode.make_schedule("euler", steps), token_sampling=TokenSampling(**token_sampling)
    )


def oracle(canvas):
    """Return the network that predicts `canvas`."""

    def apply(view):
        copies = view.time.shape[0] // canvas.ids.shape[0]
        ids, latents = (jnp.repeat(x, copies, axis=0) for x in (canvas.ids, canvas.latents))
        return {"text_logits": 1e4 * jax.nn.one_hot(ids, tiny.VOCAB), "image": latents}

    return apply


def corrupt_rows(flow, canvas, u, seed=SEED):
    rows = canvas.ids.shape[0]
    at = jnp.full(canvas.ids.shape, u)
    return jax.vmap(lambda k, u, row: flow.corrupt(k, u, row, TABLE))(
        row_keys(seed, rows), at, canvas
    )


@pytest.fixture(scope="module")
def data():
    return tiny.training_rows(tiny.captions(3))


def test_tokens_are_masked_by_the_schedule_with_time_0_or_1(data):
    many = jax.tree.map(lambda x: jnp.repeat(x, 100, axis=0), data)
    view, targets = corrupt_rows(paradigm(), many, 0.3)
    text = np.asarray(many.to_generate & many.is_text)
    hidden = np.asarray(view.time == 0) & text
    n = text.sum()
    assert abs(hidden.sum() / n - 0.7) < 4 * np.sqrt(0.21 / n)
    np.testing.assert_array_equal(view.time[text & ~hidden], 1)
    np.testing.assert_allclose(view.time[np.asarray(many.is_image)], 0.3)
    np.testing.assert_array_equal(
        view.embeds[hidden], np.tile(TABLE.mask_embedding, (hidden.sum(), 1))
    )
    read = np.asarray(many.is_text) & ~hidden
    np.testing.assert_array_equal(view.embeds[read], TABLE.embedding[many.ids[read]])
    np.testing.assert_array_equal(targets.text_scored, hidden)
    # BOS is given and is never masked.
    assert not hidden[:, 0].any()


def test_exact_prediction_has_zero_loss_and_uniform_logits_the_bound(data):
    flow = paradigm()
    _, targets = corrupt_rows(flow, data, 0.5)
    losses = jax.vmap(flow.loss)(oracle(data)(tiny.noisy_canvas(data)), targets)
    for term in losses.values():
        np.testing.assert_allclose(np.asarray(term.total), 0, atol=1e-4)
    flat = {
        "text_logits": jnp.zeros((*data.ids.shape, tiny.VOCAB)),
        "image": jnp.zeros_like(data.latents),
    }
    # Each masked token has weight 1 / (1 - t) = 2; about half of the tokens are masked.
    text = jax.vmap(flow.loss)(flat, targets)["text"]
    hidden = np.asarray(targets.text_scored).sum(1)
    np.testing.assert_allclose(text.total, hidden * 2 * np.log(tiny.VOCAB), rtol=1e-5)
    # The count has the same weights, so the mean is in nats per token.
    np.testing.assert_allclose(text.count, hidden * 2)


def test_loss_weight_is_capped_near_t_1(data):
    flow = paradigm(max_mask_weight=4.0)
    _, targets = corrupt_rows(flow, data, 0.999)
    assert float(targets.weight.max()) == 4.0


@pytest.mark.parametrize("choice", [{}, {"unmask_order": "confidence"}, {"temperature": 0.0}])
@pytest.mark.parametrize(("steps", "guidance"), [(1, 1.0), (5, 2.0)])
def test_oracle_prediction_is_sampled(data, choice, steps, guidance):
    flow, schedule = paradigm(), ode.make_schedule("euler", steps)
    how = SamplingPlan(schedule, guidance, guidance, token_sampling=TokenSampling(**choice))
    blank = data.replace(
        ids=jnp.where(data.to_generate, 0, data.ids),
        latents=jnp.where(data.to_generate[..., None], 0, data.latents),
    )
    sampler = flow.sampler(oracle(data), TABLE, row_keys(SEED, 3), blank, how)
    out, moments = sampling.record(sampler)
    np.testing.assert_array_equal(out.canvas.ids, data.ids)
    np.testing.assert_allclose(out.canvas.latents, data.latents, atol=1e-5)
    assert moments.run_times.tolist() == pytest.approx([*schedule.times, 1.0])
    text = np.asarray(data.to_generate & data.is_text)
    assert not np.asarray(moments.confidence)[0][text].any()
    assert np.all(np.asarray(moments.confidence)[-1] == 1)
    image = np.asarray(data.is_image)
    start, end = (np.asarray(moments.canvas.latents[n])[image] for n in (0, -1))
    assert abs(start.std() - 1) < 0.3
    np.testing.assert_allclose(end, np.asarray(data.latents)[image], atol=1e-5)


def test_unmasked_tokens_change_only_with_remasking(data):
    """Use a network that predicts a different token at each step."""
    flow = paradigm()

    def changing_network(view):
        wish = jnp.sum(1000 * jnp.abs(view.latents), axis=(1, 2)).astype(int)[:, None]
        slots = jnp.arange(view.time.shape[1])[None]
        return {
            "text_logits": 50 * jax.nn.one_hot((wish + slots) % tiny.VOCAB, tiny.VOCAB),
            "image": view.latents + 0.3,
        }

    for remask, changes in ((0.0, False), (0.5, True)):
        how = plan(12, remask_prob=remask)
        keys = row_keys(SEED, 3)
        _, path = sampling.record(flow.sampler(changing_network, TABLE, keys, data, how))
        ids, read = np.asarray(path.canvas.ids), np.asarray(path.confidence) == 1
        text = np.asarray(data.to_generate & data.is_text)
        changed = read[:-1] & read[1:] & (ids[:-1] != ids[1:]) & text
        assert not changed.any()  # A step keeps an unmasked token, or masks it again.
        hidden_again = (read[:-1] & ~read[1:] & text).any()
        assert hidden_again == changes
        assert read[-1].all()


def test_given_slots_never_change():
    flow = paradigm()
    canvas = tiny.prompts([Document((Text("a picture of red:"), Gap("image")))])
    net = tiny.network(flow.heads)
    params = tiny.parameters(net)

    def apply(view):
        return net.apply({"params": params}, view)

    table = net.apply({"params": params}, method="embedding_table")
    how = plan(3, remask_prob=0.3)
    out = sampling.sample(flow, apply, table, row_keys(SEED, 1), canvas, how).canvas
    fixed = np.asarray(canvas.is_given)
    np.testing.assert_array_equal(out.ids[fixed], canvas.ids[fixed])
    np.testing.assert_array_equal(out.latents[fixed], canvas.latents[fixed])
    image = np.asarray(canvas.is_image)
    assert np.asarray(out.latents)[image].std() > 0


def language_flow():
    return paradigm(
        vocab_size=small_language.VOCAB,
        allowed_ranges=small_language.ALLOWED_RANGES,
        channels=small_language.CHANNELS,
    )


def frequencies(steps, rows=4000, **token_sampling):
    lang = small_language.PARITY
    out = sampling.sample(
        language_flow(),
        lang.predict_masked,
        small_language.TABLE,
        row_keys(SEED, rows),
        lang.canvas(rows),
        plan(steps, **token_sampling),
    )
    return lang.frequencies(out.canvas.ids)


@pytest.mark.parametrize("choice", [{}, {"remask_prob": 0.05}])
def test_an_exact_network_samples_its_language(choice):
    rows = 4000
    expected = np.array([*small_language.PARITY.probs, 0.0])
    sigma = np.sqrt(expected * (1 - expected) / rows)
    many_steps = frequencies(400, rows, **choice)
    assert np.all(np.abs(many_steps - expected)[:-1] <= 4 * sigma[:-1]), many_steps
    # Tokens that are unmasked in the same step may conflict; this is rarer with more steps.
    assert many_steps[-1] < 0.02
    if not choice:
        one_step, eight_steps = frequencies(1, rows), frequencies(8, rows)
        assert one_step[-1] > eight_steps[-1] > many_steps[-1]


def test_temperature_and_top_p_sharpen():
    spread = frequencies(32)
    cold = frequencies(32, temperature=0.3)
    assert cold[0] > spread[0] + 0.2
    assert frequencies(32, temperature=0.0, unmask_order="confidence")[0] == 1.0
    # The first token has probabilities 0.7 and 0.3: top_p=0.5 keeps only the likelier one.
    assert frequencies(32, top_p=0.5)[0] > spread[0] + 0.2


def test_late_start_masks_only_part_of_the_document(data):
    times = []
    how = SamplingPlan(ode.make_schedule("euler", 1, start=0.75))
    many = jax.tree.map(lambda x: jnp.repeat(x, 50, axis=0), data)

    def spy(view):
        jax.debug.callback(lambda clock: times.append(clock), view.time)
        return oracle(many)(view)

    sampling.sample(paradigm(), spy, TABLE, row_keys(3, 150), many, how)
    jax.effects_barrier()
    (clock,) = times
    text = np.asarray(many.to_generate & many.is_text)
    share = np.mean(np.asarray(clock)[text] == 0)
    assert abs(share - 0.25) < 4 * np.sqrt(0.25 * 0.75 / text.sum())


def test_other_solvers_than_eulers_are_refused():
    flow = paradigm()
    flow.validate(plan(2))
    with pytest.raises(UserError, match=r"sampling\.solver='heun'"):
        flow.validate(SamplingPlan(ode.make_schedule("heun", 2)))
    assert flow.nfe(plan(7)) == 7
    assert (
        flow.nfe(dataclasses.replace(plan(7), image_guidance_scale=2.0, text_guidance_scale=2.0))
        == 21
    )
