"""Tests of OneFlow's sampler, with oracle networks and with an untrained one."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from oneflow_jax import canvas as canvases
from oneflow_jax.data.document import Document, Gap, Text
from oneflow_jax.errors import UserError
from oneflow_jax.samplers import ode, steps
from oneflow_jax.samplers.base import SamplingPlan
from tests import sampling, tiny
from tests.paradigms.oracle import SEED, TABLE, oracle, row_keys


def make_sampler(paradigm, apply, canvas, plan):
    return paradigm.sampler(apply, TABLE, row_keys(SEED, canvas.ids.shape[0]), canvas, plan)


def sample(paradigm, apply, canvas, plan):
    return steps.sample(make_sampler(paradigm, apply, canvas, plan))


def blank_targets(canvas):
    """Return a copy of the canvas in which all slots to generate are 0."""
    return canvas.replace(
        ids=jnp.where(canvas.to_generate, 0, canvas.ids),
        latents=jnp.where(canvas.to_generate[..., None], 0, canvas.latents),
    )


@pytest.mark.parametrize(
    ("objective", "image", "solver", "num_steps", "grid", "guidance"),
    [
        ("cross_entropy", "x1", "euler", 1, "uniform", 1.0),
        ("cross_entropy", "x1", "euler", 3, "cosine", 2.0),
        ("cross_entropy", "velocity", "heun", 3, "sine", 1.0),
        ("velocity", "x1", "midpoint", 4, "cosine", 1.0),
        ("velocity", "velocity", "tsit5", 2, "uniform", 3.0),
        ("naive", "velocity", "dopri5", 3, (0.0, 0.3, 0.8), 1.0),
        ("cross_entropy", "x1", "renoise", 3, "cosine", 1.0),
        ("velocity", "velocity", "renoise", 3, "uniform", 2.0),
    ],
)
def test_oracle_sampler_returns_the_data(objective, image, solver, num_steps, grid, guidance):
    paradigm = tiny.paradigm(objective, image)
    data = tiny.training_rows(tiny.captions(3))
    plan = SamplingPlan(ode.make_schedule(solver, num_steps, grid), guidance)
    network, blank = oracle(paradigm, data), blank_targets(data)
    out, moments = sampling.record(make_sampler(paradigm, network, blank, plan))
    np.testing.assert_array_equal(out.canvas.ids, data.ids)
    np.testing.assert_allclose(out.canvas.latents, data.latents, atol=1e-5)
    # At each step the x1 prediction is the data, and the state lies between noise and data.
    line = jnp.array([*plan.schedule.times, 1.0])[:, None, None, None]
    straight = (1 - line) * moments.canvas.latents[:1] + line * data.latents[None]
    at = np.asarray(data.is_image)
    if solver == ode.RENOISE:
        # At each step the state is the data, corrupted to time t with new noise.
        noise = np.asarray(moments.canvas.latents - line * data.latents[None])[:-1, at]
        noise /= 1 - np.asarray(line)[:-1, 0]
        assert np.abs(noise.std(axis=(1, 2)) - 1).max() < 0.3
        assert np.abs(np.corrcoef(noise.reshape(len(line) - 1, -1)) - np.eye(3)).max() < 0.3
    else:
        np.testing.assert_allclose(moments.canvas.latents[:, at], straight[:, at], atol=1e-5)
    np.testing.assert_allclose(moments.x1_hat[:, at], jnp.stack([data.latents[at]] * len(line)),
                               atol=1e-5)  # fmt: skip
    np.testing.assert_array_equal(moments.run_times, line[:, 0, 0, 0])
    np.testing.assert_array_equal(moments.canvas.ids, jnp.stack([data.ids] * len(line)))
    assert np.asarray(moments.confidence)[:, np.asarray(data.is_text)].min() > 0.5
    start = moments.canvas.latents[0][at].reshape(3, -1)
    assert abs(start.std() - 1) < 0.3


def prompt():
    picture = tiny.captions(1)[0].images()[0]
    return tiny.prompts(
        [
            Document((Text("a picture of red"), Gap("image"), Gap("text"))),
            Document((Gap("text", 3), Text("blue"), tiny.document.Image(picture), Gap("image"))),
            Document((Gap("text"), Gap("image"))),
        ]
    )


@functools.cache
def real_sampler(objective="cross_entropy", guidance=1.0, steps_=3, solver="euler"):
    """Return a jitted sampler with an untrained network."""
    paradigm = tiny.paradigm(objective)
    net = tiny.network(paradigm.heads)
    params = tiny.parameters(net)
    plan = SamplingPlan(ode.make_schedule(solver, steps_), guidance)

    def run(keys, canvas):
        apply = functools.partial(net.apply, {"params": params})
        return sampling.sample(paradigm, apply, TABLE, keys, canvas, plan).canvas

    return jax.jit(run)


@pytest.mark.parametrize(("solver", "guidance"), [("euler", 1.0), ("euler", 3.0), ("renoise", 1.0)])
def test_given_slots_never_change_nor_does_padding(solver, guidance):
    canvas = prompt()
    # The sampler does not change PAD slots either, even those with a nonzero id.
    canvas = canvas.replace(ids=jnp.where(canvas.modality == 0, 5, canvas.ids))
    out = real_sampler(guidance=guidance, solver=solver)(row_keys(SEED, 3), canvas)
    is_given = ~np.asarray(canvas.to_generate)
    assert is_given.sum() > 20
    np.testing.assert_array_equal(out.ids[is_given], canvas.ids[is_given])
    np.testing.assert_array_equal(
        np.asarray(out.latents)[is_given].view(np.int32),
        np.asarray(canvas.latents)[is_given].view(np.int32),
    )
    for name in ("modality", "segment", "span", "position", "is_given"):
        np.testing.assert_array_equal(getattr(out, name), getattr(canvas, name))
    assert np.all(np.isfinite(out.latents))
    assert np.any(out.ids[~is_given] != canvas.ids[~is_given])
    # Text slots have no latents, image slots no ids.
    np.testing.assert_array_equal(out.latents[np.asarray(canvas.is_text)], 0)
    np.testing.assert_array_equal(out.ids[np.asarray(canvas.is_image)], 0)


def test_samples_depend_on_the_seed_alone():
    run, canvas = real_sampler(), prompt()
    once, again = (run(row_keys(SEED, 3), canvas) for _ in range(2))
    other_seed = run(row_keys(99, 3), canvas)
    tiny.assert_trees_close(once, again, atol=0)
    image = np.asarray(canvas.to_generate & canvas.is_image)
    text = np.asarray(canvas.to_generate & canvas.is_text)
    assert np.abs(np.asarray(other_seed.latents - once.latents))[image].max() > 0.01
    assert np.any(np.asarray(other_seed.ids != once.ids)[text])


@pytest.mark.parametrize("solver", ["euler", "renoise"])
def test_a_sample_does_not_depend_on_its_neighbors(solver):
    run, canvas = real_sampler(solver=solver), prompt()
    whole = run(row_keys(SEED, 3), canvas)
    swapped = jax.tree.map(lambda x: x.at[1:].set(x[jnp.array([2, 1])]), canvas)
    first = run(row_keys(SEED, 3), swapped)
    alone = run(row_keys(SEED, 1), jax.tree.map(lambda x: x[:1], canvas))
    for batch in (first, alone):
        np.testing.assert_array_equal(batch.ids[0], whole.ids[0])
        np.testing.assert_allclose(batch.latents[0], whole.latents[0], atol=1e-5)


@pytest.mark.parametrize("guidance", [1.0, 2.0])
@pytest.mark.parametrize(("solver", "steps_"), [("euler", 1), ("heun", 3), ("renoise", 3)])
def test_nfe_counts_the_evaluations_of_the_network(solver, steps_, guidance):
    paradigm = tiny.paradigm()
    data = tiny.training_rows(tiny.captions(2))
    calls = []

    def count_calls(view):
        copies = view.time.shape[0] // 2
        jax.debug.callback(lambda: calls.append(copies))
        return oracle(paradigm, data)(view)

    plan = SamplingPlan(ode.make_schedule(solver, steps_), guidance)
    jax.block_until_ready(sample(paradigm, count_calls, data, plan))
    jax.effects_barrier()
    assert sum(calls) == paradigm.nfe(plan)


def test_unconditional_view_has_text_at_time_zero():
    """Check that the unconditional view has all text but BOS at t = 0, and the same images."""
    canvas, views = prompt(), []

    def spy(view):
        views.append(view)
        return oracle(tiny.paradigm(), jax.tree.map(lambda x: x, canvas))(view)

    # With one step, the solver makes a single evaluation.
    sample(tiny.paradigm(), spy, canvas, SamplingPlan(ode.make_schedule("euler", 1), 2.0))
    (both,) = views
    conditional, without = (jax.tree.map(lambda x, i=i: x[i::2], both) for i in (0, 1))
    words = np.asarray(canvas.is_text & (canvas.position[..., 0] > 0))
    np.testing.assert_array_equal(without.time[words], 0)
    np.testing.assert_array_equal(without.time[~words], conditional.time[~words])
    np.testing.assert_array_equal(without.latents[~words], conditional.latents[~words])
    np.testing.assert_array_equal(without.embeds[~words], conditional.embeds[~words])
    given_text = words & np.asarray(canvas.is_given)
    rows = tiny.paradigm().objective.prepare_table(TABLE).embedding[canvas.ids]
    np.testing.assert_array_equal(conditional.embeds[given_text], rows[given_text])
    np.testing.assert_array_equal(conditional.time[given_text], 1)
    assert np.abs(np.asarray(without.embeds - rows))[given_text].min(-1).max() > 0
    noise = np.asarray(without.embeds)[words] - np.asarray(TABLE.mask_embedding)
    assert abs(noise.std() - 1) < 0.1


def test_every_row_starts_from_its_own_noise():
    paradigm, views = tiny.paradigm(), []
    data = tiny.training_rows(tiny.captions(1) * 2)

    def spy(view):
        views.append(view)
        return oracle(paradigm, data)(view)

    sample(paradigm, spy, data, SamplingPlan(ode.make_schedule("euler", 1)))
    (view,) = views
    for kind, content in ((data.is_text, view.embeds), (data.is_image, view.latents)):
        first, second = (content[b][np.asarray((data.to_generate & kind)[b])] for b in (0, 1))
        assert jnp.abs(first - second).min(axis=-1).max() > 0.1


def test_late_start_keeps_part_of_the_document():
    paradigm = tiny.paradigm()
    data, views = tiny.training_rows(tiny.captions(2)), []

    def spy(view):
        views.append(view)
        return oracle(paradigm, data)(view)

    sample(paradigm, spy, data, SamplingPlan(ode.make_schedule("euler", 1, start=0.9)))
    (view,) = views
    image = np.asarray(data.is_image)
    np.testing.assert_allclose(view.time[np.asarray(data.to_generate)], 0.9)
    noise = np.asarray(view.latents - 0.9 * data.latents)[image]
    assert abs(noise.std() - 0.1) < 0.03
    assert isinstance(view, canvases.NoisyCanvas)


@pytest.mark.parametrize("solver", ["euler", "heun", "renoise", "jump"])
def test_text_is_ahead_of_images_in_every_solver(solver):
    paradigm = tiny.paradigm(text_lead=8.0)
    data = tiny.training_rows(tiny.captions(2))
    plan = SamplingPlan(ode.make_schedule(solver, 3))
    network, blank = oracle(paradigm, data), blank_targets(data)
    out, trajectory = sampling.record(make_sampler(paradigm, network, blank, plan))
    np.testing.assert_array_equal(out.canvas.ids, data.ids)
    np.testing.assert_allclose(out.canvas.latents, data.latents, atol=1e-5)
    times = np.array([*plan.schedule.times, 1.0])
    text, image = (
        np.asarray(trajectory.time)[:, np.asarray(data.to_generate & slots)]
        for slots in (data.is_text, data.is_image)
    )
    np.testing.assert_allclose(image, np.tile(times[:, None], image.shape[1]), atol=1e-6)
    ahead = 8 * times / (1 + 7 * times)
    np.testing.assert_allclose(text, np.tile(ahead[:, None], text.shape[1]), atol=1e-6)


@pytest.mark.parametrize("solver", ode.RENOISING_SOLVERS)
@pytest.mark.parametrize("lead", [1.0, 8.0])
def test_a_token_above_the_confidence_threshold_is_final(solver, lead):
    """The network first predicts token 5, and is sure of it in even slots only; then token 6."""
    paradigm, views = tiny.paradigm(text_lead=lead), []
    data = tiny.training_rows(tiny.captions(2))
    free = np.asarray(data.to_generate & data.is_text)
    is_even = np.arange(free.shape[1])[None] % 2 == 0

    def predict(view):
        jax.debug.callback(lambda *x: views.append(x), view.time, view.embeds, ordered=True)
        outputs = oracle(paradigm, data)(view)
        at_start = jnp.all(jnp.where(data.is_image & data.to_generate, view.time, 0) == 0)
        token_5, token_6 = (
            jax.nn.one_hot(jnp.full(free.shape, token), tiny.VOCAB) for token in (5, 6)
        )
        first = jnp.where(is_even, 1e4, 1e-3)[..., None] * token_5
        return outputs | {"text_logits": jnp.where(at_start, first, 1e4 * token_6)}

    def make_plan(threshold):
        schedule = ode.make_schedule(solver, 4)
        return SamplingPlan(schedule, confidence_threshold=threshold)

    out, trajectory = sampling.record(make_sampler(paradigm, predict, data, make_plan(0.9)))
    jax.effects_barrier()
    np.testing.assert_array_equal(out.canvas.ids[free], np.where(is_even, 5, 6 + 0 * free)[free])
    table = paradigm.objective.prepare_table(TABLE).embedding
    final = free & is_even
    later = [view for view in views if view[0][final].max() > 0]
    assert later
    for time, embeds in later:
        assert (np.asarray(time)[final] == 1).all()
        np.testing.assert_allclose(embeds[final], np.tile(table[5], (final.sum(), 1)), atol=1e-6)
    assert (np.asarray(trajectory.time)[1:, final] == 1).all()
    assert (np.asarray(trajectory.time)[1, free & ~is_even] < 1).all()
    changed = sample(paradigm, predict, data, make_plan(1.0))
    assert (np.asarray(changed.canvas.ids)[free] == 6).all()


def test_a_confidence_threshold_needs_a_solver_that_renoises():
    with pytest.raises(UserError, match=r"sampling.confidence_threshold=0.9: .*'heun'.* renoise"):
        SamplingPlan(ode.make_schedule("heun", 3), confidence_threshold=0.9)


@pytest.mark.parametrize("solver", ["euler", "renoise", "jump"])
def test_the_noise_of_leading_text_fits_its_time(solver):
    """The network sees text with the amount of noise that its time states."""
    paradigm = tiny.paradigm(text_lead=8.0)
    data, views = tiny.training_rows(tiny.captions(40)), []

    def spy(view):
        # diffrax traces its steps, so the values are only known at run time.
        jax.debug.callback(lambda x: views.append(np.asarray(x)), view.embeds, ordered=True)
        return oracle(paradigm, data)(view)

    sample(paradigm, spy, blank_targets(data), SamplingPlan(ode.make_schedule(solver, 3)))
    jax.effects_barrier()
    text = np.asarray(data.to_generate & data.is_text)
    table = paradigm.objective.prepare_table(TABLE)
    clean, mean = np.asarray(table.embedding)[data.ids], np.asarray(table.mask_embedding)
    for embeds, t in zip(views, (0, 1 / 3, 2 / 3), strict=True):
        time = 8 * t / (1 + 7 * t)
        noise = (embeds - time * clean - (1 - time) * mean)[text] / (1 - time)
        assert abs(noise.std() - 1) < 0.1
