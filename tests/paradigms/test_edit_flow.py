"""`edit_flow`: corruption and loss."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from oneflow_jax.canvas import EmbeddingTable, Modality
from oneflow_jax.data import toy
from oneflow_jax.flows import deletion, predictions, tasks, time_couplings, time_samplers
from oneflow_jax.flows.edit_corruption import EditOp
from oneflow_jax.paradigms import edit_flow
from oneflow_jax.paradigms.edit_flow import EditFlow
from oneflow_jax.samplers import edit
from tests import tiny
from tests.paradigms.oracle import SEED, row_keys

IMAGE = 3
JOINT_ONLY = (1.0, 0.0, 0.0, 0.0, 0.0)


def paradigm(
    task_probs=JOINT_ONLY, coupling_probs=(1.0, 0.0, 0.0, 0.0), cond_drop_prob=0.0, **overrides
):
    settings = {
        "alphabet": edit.TokenSpace(
            vocab=tiny.VOCAB, words=(6, tiny.VOCAB), image_token=IMAGE, grid=tiny.CODEC.grid
        ),
        "schedules": time_couplings.TimeCoupling(coupling_probs, time_samplers.PowerTimeSampler()),
        "text_clock": False,
        "image": predictions.X1Prediction(),
        "channels": tiny.CODEC.channels,
        "mix": tasks.TaskMixture(task_probs, cond_drop_prob),
        "weights": tuple((term, 1.0) for term in edit_flow.LOSS_TERMS),
    }
    return EditFlow(**settings | overrides)


TABLE = EmbeddingTable(
    rows=jax.random.normal(jax.random.key(8), (tiny.VOCAB, tiny.EMBED)), mask=jnp.zeros(tiny.EMBED)
)


@pytest.fixture(scope="module")
def data():
    """200 copies of documents of three items or more."""
    lay = tiny.make_layout(length=48, text_slots=0)
    documents = list(toy.Toy(documents=4, interleaved=0.5))
    rows = lay.canvas([lay.row(item) for item in documents] * 50)
    return jax.tree.map(jnp.asarray, rows)


def corrupt_rows(flow, canvas, u=None, seed=SEED):
    rows = canvas.ids.shape[0]
    spread = (np.arange(rows) + 0.5) / rows if u is None else np.full(rows, u)
    at = jnp.broadcast_to(jnp.asarray(spread, jnp.float32)[:, None], canvas.ids.shape)
    return jax.vmap(lambda k, u, row: flow.corrupt(k, u, row, TABLE))(
        row_keys(seed, rows), at, canvas
    )


def test_at_the_end_of_the_run_nothing_is_missing_and_nothing_is_noisy(data):
    view, targets = corrupt_rows(paradigm(), data, u=0.9999999)
    np.testing.assert_array_equal(view.kind, data.kind)
    assert not targets.missing.any()
    assert np.asarray(targets.open)[np.asarray(data.is_text)].all()
    image = np.asarray(data.is_image)
    done = image & (np.asarray(view.clock) == 1)
    np.testing.assert_array_equal(np.asarray(view.latents)[done], np.asarray(data.latents)[done])
    assert not np.asarray(targets.image)[done].any()


def test_at_its_beginning_only_bos_is_there_and_all_is_missing(data):
    view, targets = corrupt_rows(paradigm(), data, u=0.0)
    np.testing.assert_array_equal(np.asarray(view.kind) != Modality.PAD, data.fixed)
    items = np.asarray(jax.vmap(deletion.item_starts)(data) & data.free)
    np.testing.assert_array_equal(targets.missing, items)
    np.testing.assert_array_equal(targets.gaps.size[:, 0], items.sum(1))
    wanted = np.asarray(targets.ids)[items & np.asarray(data.is_image)]
    assert set(wanted.tolist()) == {IMAGE}
    assert not targets.image.any()


def test_pictures_are_absent_flowing_and_done_by_quarters(data):
    many = jax.tree.map(lambda x: jnp.concatenate([x] * 10), data)
    view, targets = corrupt_rows(paradigm(), many)
    first = np.asarray(jax.vmap(deletion.item_starts)(many) & many.is_image)
    there = np.asarray(view.kind)[first] != Modality.PAD
    clock = np.asarray(view.clock)[first]
    n = first.sum()
    for share, expected in (
        (np.mean(~there), 1 / 4),
        (np.mean(there & (clock < 1)), 1 / 2),
        (np.mean(there & (clock == 1)), 1 / 4),
    ):
        assert abs(share - expected) < 4 * np.sqrt(expected * (1 - expected) / n)
    np.testing.assert_array_equal(np.asarray(targets.image)[first], there & (clock < 1))


def test_together_all_times_are_one_and_independent_ones_are_not(data):
    image = np.asarray(data.is_image)
    view, _ = corrupt_rows(paradigm(coupling_probs=(0.0, 0.0, 1.0, 0.0)), data, u=0.3)
    np.testing.assert_allclose(np.asarray(view.clock)[image], 0.3, atol=1e-6)
    text = np.asarray(data.free & data.is_text)
    share = np.mean((np.asarray(view.kind) == Modality.TEXT)[text])
    assert abs(share - 0.3) < 4 * np.sqrt(0.21 / text.sum())
    view, _ = corrupt_rows(paradigm(coupling_probs=(0.0, 1.0, 0.0, 0.0)), data, u=0.3)
    times = np.unique(np.asarray(view.clock)[image])
    assert len(times) > 50
    assert abs(times.mean() - 0.5) < 4 * np.sqrt(1 / 12 / len(times))


def test_what_is_given_is_there_and_its_gaps_are_not_scored(data):
    only_pictures = paradigm((0.0, 1.0, 0.0, 0.0, 0.0))
    view, targets = corrupt_rows(only_pictures, data)
    np.testing.assert_array_equal(view.kind, data.kind)
    assert not targets.open.any()
    assert not targets.missing.any()
    only_words = paradigm((0.0, 0.0, 1.0, 0.0, 0.0))
    view, targets = corrupt_rows(only_words, data)
    image = np.asarray(data.is_image)
    np.testing.assert_array_equal(np.asarray(view.kind)[image], Modality.IMAGE)
    np.testing.assert_array_equal(np.asarray(view.clock)[image], 1)
    assert not targets.image.any()
    missing = np.asarray(targets.missing)
    assert missing.any()
    assert not missing[image].any()


def test_for_guidance_what_is_given_is_sometimes_deleted(data):
    view, targets = corrupt_rows(paradigm((0.0, 1.0, 0.0, 0.0, 0.0), cond_drop_prob=0.5), data)
    words = np.asarray(data.free & data.is_text)
    gone = (np.asarray(view.kind) == Modality.PAD) & words
    rows = gone.any(1)
    np.testing.assert_array_equal(gone.sum(1)[rows], words.sum(1)[rows])  # All of them, or none.
    assert abs(rows.mean() - 0.5) < 4 * np.sqrt(0.25 / len(rows))
    assert not targets.missing.any()
    assert not targets.open.any()


def test_bos_is_told_the_time_only_if_asked(data):
    for told in (False, True):
        view, _ = corrupt_rows(
            paradigm(coupling_probs=(0.0, 0.0, 1.0, 0.0), text_clock=told), data, u=0.3
        )
        np.testing.assert_allclose(view.clock[:, 0], 0.3 if told else 1.0, atol=1e-6)
        text = np.asarray(data.free & data.is_text)
        assert np.all(np.asarray(view.clock)[text] == 1)


def test_the_loss_is_least_where_the_heads_tell_the_truth(data):
    flow = paradigm()
    _, targets = corrupt_rows(flow, data)
    size = targets.gaps.size.astype(float)
    raw = jnp.log(jnp.expm1(jnp.maximum(size - 1, 1e-4)))[..., None]
    bag = jax.vmap(lambda gap, ids, missing: jnp.zeros((48, tiny.VOCAB)).at[gap, ids].add(missing))(
        targets.gaps.gap, targets.ids, targets.gaps.missing.astype(float)
    )
    truth = {
        "gap_empty": jnp.where(size == 0, 30.0, -30.0)[..., None],
        "gap_count": raw,
        "gap_logits": jnp.log(bag + 1e-9),
        "fate": jnp.zeros((*size.shape, 3)),
        "word_logits": jnp.zeros(bag.shape),
        "image": data.latents,
    }

    def totals(outputs):
        return {
            name: float(term.total.sum())
            for name, term in jax.vmap(flow.loss)(outputs, targets).items()
        }

    least = totals(truth)
    np.testing.assert_allclose([least["empty"], least["image"]], 0, atol=1e-4)
    for name, change in (
        ("gap_empty", 0.5),
        ("gap_count", 0.3),
        ("gap_count", -0.3),
        ("image", 0.1),
    ):
        term = {"gap_empty": "empty", "gap_count": "count", "image": "image"}[name]
        away = truth[name] * 0.5 if name == "gap_empty" else truth[name] + change
        assert totals(truth | {name: away})[term] > least[term]
    noise = 0.3 * jax.random.normal(jax.random.key(0), bag.shape)
    assert totals(truth | {"gap_logits": truth["gap_logits"] + noise})["tokens"] > least["tokens"]


def test_mistakes_are_told_right(data):
    """Each shown item of a revised document has its fate, and what replaces it."""
    flow = paradigm(coupling_probs=(0.0, 0.0, 0.0, 1.0))
    view, targets = corrupt_rows(flow, data, u=0.2)
    fate, judged = np.asarray(targets.fate), np.asarray(targets.judged)
    text = np.asarray(data.is_text & data.free)
    ids = np.asarray(data.ids)
    there = judged & (np.asarray(view.kind) == Modality.TEXT)
    extra = fate == EditOp.DELETE
    assert {int(one) for one in np.unique(fate[there])} == {0, 1, 2}
    right = np.all(np.asarray(view.embeds) == np.asarray(TABLE.rows)[ids], axis=-1)
    wrong = fate == EditOp.REPLACE
    np.testing.assert_array_equal(~right[there & ~extra], wrong[there & ~extra])
    np.testing.assert_array_equal(np.asarray(targets.ids)[text], ids[text])
    np.testing.assert_array_equal(np.asarray(view.clock)[there], np.float32(0.6))
    # Nothing is asked of what is absent, given, or on its way.
    assert not judged[np.asarray(data.fixed)].any()
    assert not (judged & (np.asarray(view.kind) == Modality.PAD)).any()
    noisy = np.asarray(targets.image)
    assert noisy.any()
    assert not (judged & noisy).any()
    assert np.asarray(targets.missing).any()
    assert np.asarray(targets.open)[extra].all()
    assert not np.asarray(targets.gaps.size)[extra].any()
    wrong = np.asarray(data.is_image) & judged & (fate == EditOp.REPLACE)
    right = np.asarray(data.is_image) & judged & (fate == EditOp.KEEP)
    assert wrong.any()
    same = np.all(np.asarray(view.latents) == np.asarray(data.latents), axis=-1)
    assert same[right].all()
    assert not same[wrong].any()


def test_documents_without_mistakes_are_not_judged(data):
    _, targets = corrupt_rows(paradigm(coupling_probs=(0.4, 0.3, 0.3, 0.0)), data)
    assert not targets.judged.any()


def test_counts_are_items_of_the_clean_canvas(data):
    counts = jax.vmap(paradigm().counts)(data)
    first = np.asarray(jax.vmap(deletion.item_starts)(data) & data.free)
    for term in set(edit_flow.LOSS_TERMS) - {"image"}:
        np.testing.assert_array_equal(counts[term], first.sum(1))
    np.testing.assert_array_equal(counts["image"], np.asarray(data.is_image).sum(1))
