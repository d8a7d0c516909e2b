"""Tests of `edit_flow`'s sampler, with oracle networks and with an untrained one."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from oneflow_jax.canvas import InsertPolicy, Modality
from oneflow_jax.data import vocab as vocabs
from oneflow_jax.data.document import Document, Gap, Text
from oneflow_jax.errors import UserError
from oneflow_jax.flows import predictions
from oneflow_jax.samplers import edit, ode, steps, token_sampling
from oneflow_jax.samplers.base import SamplingPlan
from tests import sampling, tiny
from tests.paradigms import insertion_oracle
from tests.paradigms.oracle import SEED, row_keys
from tests.paradigms.test_edit_flow import paradigm

IMAGE = 3


def make_sampler(steps, vocab_size, condition_on_text_time=False, grid="uniform", **plan):
    alphabet = token_sampling.TokenSpace(
        vocab_size=vocab_size,
        text_id_range=(4, vocab_size),
        image_token_id=IMAGE,
        end_token_id=vocabs.END,
        grid=(2, 2),
    )
    how = SamplingPlan(ode.make_schedule("euler", steps, grid), **plan)
    return edit.EditSampler(alphabet, predictions.X1Prediction(), condition_on_text_time, plan=how)


def generate(sampler, apply, table, canvas):
    """Call a sampler as one compiled program: compiling each of its operations takes longer."""
    call = jax.jit(lambda keys, canvas: steps.sample(sampler.bind(apply, table, keys, canvas)))
    return call(row_keys(SEED, len(canvas.ids)), canvas)


def written_fraction(grid):
    """Return the fraction of 256 tokens that an optimal network inserts in 16 steps (8 rows)."""
    first, last, rows = 4, 259, 8
    vocab = last + 1

    def shifted_model(view):
        # The text is BOS=1, then 4, 5, ... 259.
        ids = insertion_oracle.decode_ids(view)
        moved = jax.nn.one_hot(jnp.where(ids == 1, first - 1, ids), vocab)
        return insertion_oracle.counting_model(last, vocab)(view.replace(embeds=moved))

    run, canvas = make_sampler(16, vocab, grid=grid), insertion_oracle.empty_prompts(rows, 300)
    out = generate(run, shifted_model, insertion_oracle.one_hot_table(vocab), canvas)
    assert int(out.nfe) == 16
    count = 0
    for b in range(rows):
        text = np.asarray(out.canvas.is_text[b])
        order = np.asarray(out.canvas.position[b, :, 0])[text]
        ids = np.asarray(out.canvas.ids[b])[text][np.argsort(order)][1:]
        assert np.all(np.diff(ids) > 0)  # Tokens are in order, and none occurs twice.
        count += len(ids)
    return count / (256 * rows)


def test_optimal_network_writes_256_tokens_in_16_steps():
    # A step inserts at most one token per gap, so small last steps help to insert all tokens.
    assert written_fraction("uniform") < 0.97
    assert written_fraction("sine") >= 0.99


FIXED_LENGTH = insertion_oracle.Language(
    ((4, 4, 4), (4, 5, 5), (5, 4, 5), (5, 5, 4)), (0.4, 0.3, 0.2, 0.1), vocab=6
)
VARIABLE_LENGTH = insertion_oracle.Language(
    ((4,), (5, 4), (4, 5, 5), (5,)), (0.4, 0.3, 0.2, 0.1), vocab=6
)


def frequencies(language, steps, rows, condition_on_text_time):
    canvas = insertion_oracle.empty_prompts(rows, 12)
    run = make_sampler(steps, language.vocab, condition_on_text_time)
    apply, table = (
        language.optimal_model(condition_on_text_time),
        insertion_oracle.one_hot_table(language.vocab),
    )
    return language.frequencies(generate(run, apply, table, canvas).canvas)


@pytest.mark.parametrize(
    ("language", "text_clock"), [(FIXED_LENGTH, False), (VARIABLE_LENGTH, True)]
)
def test_an_exact_network_samples_its_language(language, text_clock):
    rows = 3000
    expected = np.array([*language.probs, 0.0])
    four_steps, many_steps = (frequencies(language, steps, rows, text_clock) for steps in (4, 256))
    sigma = np.sqrt(expected * (1 - expected) / rows)
    assert np.all(np.abs(many_steps - expected)[:-1] <= 4 * sigma[:-1]), many_steps
    # Tokens that are inserted in the same step may conflict; this is rarer with more steps.
    assert many_steps[-1] < 0.04
    assert many_steps[-1] < four_steps[-1] / 2


def test_sampling_runs_until_all_times_are_one():
    """Use a network that always inserts more text and images."""
    vocab, rows, num_steps, length = 8, 6, 8, 64

    def eager(view):
        shape = view.time.shape
        outputs = insertion_oracle.head_outputs(
            view, jnp.zeros(shape, bool), jnp.full(shape, 1.2), jnp.zeros((*shape, vocab))
        )
        return outputs | {"image": jnp.ones_like(view.latents)}

    canvas = insertion_oracle.empty_prompts(rows, length, insertable=InsertPolicy.ANY)
    table = insertion_oracle.one_hot_table(vocab)
    run = make_sampler(num_steps, vocab).bind(eager, table, row_keys(SEED, rows), canvas)
    out, moments = sampling.record(run)
    image = np.asarray(out.canvas.is_image)
    assert image.any()
    # Every image reached the x1 prediction.
    np.testing.assert_allclose(np.asarray(out.canvas.latents)[image], 1, atol=1e-5)
    assert num_steps < int(out.nfe) <= 2 * num_steps
    assert len(moments.run_times) == int(out.nfe) + 1
    clock, kind = np.asarray(moments.time), np.asarray(moments.canvas.modality)
    for b, slot in zip(*np.nonzero(image), strict=True):
        there = kind[:, b, slot] == Modality.IMAGE
        born = int(np.argmax(there))
        assert there[born:].all()
        own = clock[born:, b, slot]
        # An image's time starts at 0 and takes as many steps as that of any other image.
        np.testing.assert_allclose(own, np.minimum(np.arange(len(own)) / num_steps, 1), atol=1e-5)
    # Text is only inserted while the text time runs.
    text = kind == Modality.TEXT
    np.testing.assert_array_equal(text[num_steps], text[-1])


def test_text_gap_gets_no_images():
    def eager(view):
        shape = view.time.shape
        want = jnp.zeros((*shape, 8)).at[..., IMAGE].set(50.0)
        return insertion_oracle.head_outputs(
            view, jnp.zeros(shape, bool), jnp.full(shape, 2.0), want
        )

    canvas = insertion_oracle.empty_prompts(2, 32, insertable=InsertPolicy.TEXT)
    out = generate(make_sampler(4, 8), eager, insertion_oracle.one_hot_table(8), canvas)
    assert not np.asarray(out.canvas.is_image).any()
    assert np.asarray(out.canvas.ids)[np.asarray(out.canvas.to_generate)].min() >= 4
    assert int(out.nfe) == 4


def test_full_canvas_sets_truncated_and_keeps_items_complete():
    def eager(view):
        shape = view.time.shape
        want = jnp.zeros((*shape, 8))
        return insertion_oracle.head_outputs(
            view, jnp.zeros(shape, bool), jnp.full(shape, 9.0), want
        )

    canvas = insertion_oracle.empty_prompts(8, 16, insertable=InsertPolicy.ANY)
    out = generate(make_sampler(8, 8), eager, insertion_oracle.one_hot_table(8), canvas)
    assert np.asarray(out.truncated).all()
    span, image = np.asarray(out.canvas.span), np.asarray(out.canvas.is_image)
    for b in range(8):
        _, patches = np.unique(span[b][image[b]], return_counts=True)
        assert set(patches.tolist()) <= {4}


def make_network(flow):
    net = tiny.network(flow.heads)
    params = tiny.parameters(net)
    return (lambda view: net.apply({"params": params}, view)), net.apply(
        {"params": params}, method="embedding_table"
    )


def prompt_rows(documents):
    lay = tiny.make_layout(length=48, text_slots=0)
    return jax.tree.map(jnp.asarray, lay.canvas([lay.prompt_row(item) for item in documents]))


@pytest.mark.parametrize("guidance", [1.0, 2.0])
def test_given_items_never_change_and_closed_gaps_stay_empty(guidance):
    flow = paradigm()
    red = Text("a picture of red:")
    documents = [
        Document((red, Gap("image"))),
        Document((Gap("text"), red, Gap("image"))),
        Document((red, Gap("document"))),
        Document((Gap("image"), red, Gap("text"))),
    ]
    canvas = prompt_rows(documents)
    plan = SamplingPlan(ode.make_schedule("euler", 3), guidance, guidance)
    out = sampling.sample(flow, *make_network(flow), row_keys(SEED, 4), canvas, plan)
    fixed = np.asarray(canvas.is_given)
    for name in ("ids", "latents", "modality", "segment", "span"):
        before, after = (np.asarray(getattr(c, name))[fixed] for c in (canvas, out.canvas))
        np.testing.assert_array_equal(before, after)
    num_given = len(np.flatnonzero(fixed[0])) - 1
    for b, row in enumerate(documents):
        order = np.asarray(out.canvas.position[b, :, 0])[fixed[b]]
        assert np.all(np.diff(order) >= 1)
        if row.parts[1] is red:
            # No item was inserted between given tokens.
            np.testing.assert_array_equal(np.diff(order[1:]), 1)
    # The first document has no insertable slot: only its image was generated.
    assert np.sum(np.asarray(out.canvas.is_text[0])) == num_given + 1
    least = 3 if guidance == 1.0 else 9
    assert least <= int(out.nfe) <= 2 * least


def test_a_sample_does_not_depend_on_its_neighbors():
    flow = paradigm()
    canvas = prompt_rows([Document((Gap("document"),))] * 4)
    plan = SamplingPlan(ode.make_schedule("euler", 4))
    apply, table = make_network(flow)
    row = jax.tree.map(lambda x: x[2:3], canvas)
    both = sampling.sample(flow, apply, table, row_keys(SEED, 4), canvas, plan).canvas
    alone = sampling.sample(flow, apply, table, row_keys(SEED, 4)[2:3], row, plan).canvas
    np.testing.assert_array_equal(both.ids[2], alone.ids[0])
    np.testing.assert_allclose(both.latents[2], alone.latents[0], atol=1e-4)
    assert not np.array_equal(np.asarray(both.ids[1]), np.asarray(both.ids[2]))


def test_other_solvers_and_late_starts_are_refused():
    with pytest.raises(UserError, match="Give 'euler'"):
        paradigm().validate(SamplingPlan(ode.make_schedule("heun", 2)))
    with pytest.raises(UserError, match=r"paradigm\.time_coupling\.edited=0"):
        paradigm().validate(SamplingPlan(ode.make_schedule("euler", 2, start=0.5)))
    revises = paradigm(coupling_probs=(0.0, 0.0, 0.5, 0.5))
    revises.validate(SamplingPlan(ode.make_schedule("euler", 2, start=0.5)))
    with pytest.raises(UserError, match=r"sampling\.edit_start=0\.4"):
        revises.validate(SamplingPlan(ode.make_schedule("euler", 2, start=0.4)))
    assert (
        paradigm().nfe(SamplingPlan(ode.make_schedule("euler", 5), image_guidance_scale=2.0)) == 10
    )
