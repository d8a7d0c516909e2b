"""Tests of `edit_flow`: corruption and loss."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from oneflow_jax.canvas import EmbeddingTable, Modality
from oneflow_jax.data import toy
from oneflow_jax.data import vocab as vocabs
from oneflow_jax.flows import deletion, predictions, tasks, time_couplings, time_samplers
from oneflow_jax.flows.edit_corruption import EditOp
from oneflow_jax.paradigms import edit_flow
from oneflow_jax.paradigms.edit_flow import EditFlow
from oneflow_jax.samplers import token_sampling
from tests import tiny
from tests.paradigms.oracle import SEED, row_keys

IMAGE = 3
JOINT_ONLY = (1.0, *(0.0,) * 6)


def paradigm(
    task_probs=JOINT_ONLY, coupling_probs=(1.0, 0.0, 0.0, 0.0), cond_drop_prob=0.0, **overrides
):
    settings = {
        "token_space": token_sampling.TokenSpace(
            vocab_size=tiny.VOCAB,
            text_id_range=(6, tiny.VOCAB),
            image_token_id=IMAGE,
            end_token_id=vocabs.END,
            grid=tiny.CODEC.grid,
        ),
        "time_coupling": time_couplings.TimeCoupling(
            coupling_probs, time_samplers.PowerTimeSampler()
        ),
        "condition_on_text_time": False,
        "image_prediction": predictions.X1Prediction(),
        "channels": tiny.CODEC.channels,
        "task_mixture": tasks.TaskMixture(task_probs, cond_drop_prob),
        "weights": tuple((term, 1.0) for term in edit_flow.LOSS_TERMS),
    }
    return EditFlow(**settings | overrides)


TABLE = EmbeddingTable(
    embedding=jax.random.normal(jax.random.key(8), (tiny.VOCAB, tiny.EMBED)),
    mask_embedding=jnp.zeros(tiny.EMBED),
)


@pytest.fixture(scope="module")
def data():
    """Return 200 rows with documents of at least three items."""
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


def test_at_run_time_2_nothing_is_missing_or_noisy(data):
    view, targets = corrupt_rows(paradigm(), data, u=0.9999999)
    np.testing.assert_array_equal(view.modality, data.modality)
    assert not targets.insert_scored.any()
    assert np.asarray(targets.gap_scored)[np.asarray(data.is_text)].all()
    image = np.asarray(data.is_image)
    done = image & (np.asarray(view.time) == 1)
    np.testing.assert_array_equal(np.asarray(view.latents)[done], np.asarray(data.latents)[done])
    assert not np.asarray(targets.image_scored)[done].any()


def test_at_run_time_0_only_bos_is_present(data):
    view, targets = corrupt_rows(paradigm(), data, u=0.0)
    np.testing.assert_array_equal(np.asarray(view.modality) != Modality.PAD, data.is_given)
    items = np.asarray(jax.vmap(deletion.item_starts)(data) & data.to_generate)
    np.testing.assert_array_equal(targets.insert_scored, items)
    np.testing.assert_array_equal(targets.gaps.num_missing[:, 0], items.sum(1))
    expected = np.asarray(targets.ids)[items & np.asarray(data.is_image)]
    assert set(expected.tolist()) == {IMAGE}
    assert not targets.image_scored.any()


def test_interleaved_images_are_absent_noisy_and_clean_with_expected_rates(data):
    many = jax.tree.map(lambda x: jnp.concatenate([x] * 10), data)
    view, targets = corrupt_rows(paradigm(), many)
    first = np.asarray(jax.vmap(deletion.item_starts)(many) & many.is_image)
    there = np.asarray(view.modality)[first] != Modality.PAD
    clock = np.asarray(view.time)[first]
    n = first.sum()
    for share, expected in (
        (np.mean(~there), 1 / 4),
        (np.mean(there & (clock < 1)), 1 / 2),
        (np.mean(there & (clock == 1)), 1 / 4),
    ):
        assert abs(share - expected) < 4 * np.sqrt(expected * (1 - expected) / n)
    np.testing.assert_array_equal(np.asarray(targets.image_scored)[first], there & (clock < 1))


def test_at_shared_time_the_images_of_a_single_task_have_the_time_of_their_document(data):
    shared = paradigm().at_shared_time
    flow = dataclasses.replace(shared, task_mixture=tasks.single_task("text_to_image"))
    view, targets = corrupt_rows(flow, data, u=0.3)
    image = np.asarray(data.is_image & data.to_generate)
    np.testing.assert_allclose(np.asarray(view.time)[image], 0.3, atol=1e-6)
    np.testing.assert_array_equal(targets.image_scored, image)


def test_times_are_equal_for_together_and_differ_for_independent(data):
    image = np.asarray(data.is_image)
    view, _ = corrupt_rows(paradigm(coupling_probs=(0.0, 0.0, 1.0, 0.0)), data, u=0.3)
    np.testing.assert_allclose(np.asarray(view.time)[image], 0.3, atol=1e-6)
    text = np.asarray(data.to_generate & data.is_text)
    share = np.mean((np.asarray(view.modality) == Modality.TEXT)[text])
    assert abs(share - 0.3) < 4 * np.sqrt(0.21 / text.sum())
    view, _ = corrupt_rows(paradigm(coupling_probs=(0.0, 1.0, 0.0, 0.0)), data, u=0.3)
    times = np.unique(np.asarray(view.time)[image])
    assert len(times) > 50
    assert abs(times.mean() - 0.5) < 4 * np.sqrt(1 / 12 / len(times))


def test_given_items_are_present_and_their_gaps_are_not_scored(data):
    only_pictures = paradigm((0.0, 1.0, *(0.0,) * 5))
    view, targets = corrupt_rows(only_pictures, data)
    np.testing.assert_array_equal(view.modality, data.modality)
    assert not targets.gap_scored.any()
    assert not targets.insert_scored.any()
    only_words = paradigm((0.0, 0.0, 1.0, 0.0, 0.0))
    view, targets = corrupt_rows(only_words, data)
    image = np.asarray(data.is_image)
    np.testing.assert_array_equal(np.asarray(view.modality)[image], Modality.IMAGE)
    np.testing.assert_array_equal(np.asarray(view.time)[image], 1)
    assert not targets.image_scored.any()
    missing = np.asarray(targets.insert_scored)
    assert missing.any()
    assert not missing[image].any()


def test_conditioning_dropout_deletes_given_items(data):
    view, targets = corrupt_rows(paradigm((0.0, 1.0, *(0.0,) * 5), cond_drop_prob=0.5), data)
    words = np.asarray(data.to_generate & data.is_text)
    gone = (np.asarray(view.modality) == Modality.PAD) & words
    rows = gone.any(1)
    # Conditioning dropout deletes all text tokens of a document, or none.
    np.testing.assert_array_equal(gone.sum(1)[rows], words.sum(1)[rows])
    assert abs(rows.mean() - 0.5) < 4 * np.sqrt(0.25 / len(rows))
    assert not targets.insert_scored.any()
    assert not targets.gap_scored.any()


def test_bos_has_the_text_time_only_if_configured(data):
    for conditioned in (False, True):
        view, _ = corrupt_rows(
            paradigm(coupling_probs=(0.0, 0.0, 1.0, 0.0), condition_on_text_time=conditioned),
            data,
            u=0.3,
        )
        np.testing.assert_allclose(view.time[:, 0], 0.3 if conditioned else 1.0, atol=1e-6)
        text = np.asarray(data.to_generate & data.is_text)
        assert np.all(np.asarray(view.time)[text] == 1)


def test_loss_is_minimal_for_the_true_distribution(data):
    flow = paradigm()
    _, targets = corrupt_rows(flow, data)
    size = targets.gaps.num_missing.astype(float)
    raw = jnp.log(jnp.expm1(jnp.maximum(size - 1, 1e-4)))[..., None]
    bag = jax.vmap(lambda gap, ids, missing: jnp.zeros((48, tiny.VOCAB)).at[gap, ids].add(missing))(
        targets.gaps.gap_slot, targets.ids, targets.gaps.deleted.astype(float)
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
    np.testing.assert_allclose([least["insert_zero"], least["image"]], 0, atol=1e-4)
    for name, change in (
        ("gap_empty", 0.5),
        ("gap_count", 0.3),
        ("gap_count", -0.3),
        ("image", 0.1),
    ):
        term = {"gap_empty": "insert_zero", "gap_count": "insert_count", "image": "image"}[name]
        away = truth[name] * 0.5 if name == "gap_empty" else truth[name] + change
        assert totals(truth | {name: away})[term] > least[term]
    noise = 0.3 * jax.random.normal(jax.random.key(0), bag.shape)
    assert (
        totals(truth | {"gap_logits": truth["gap_logits"] + noise})["insert_token"]
        > least["insert_token"]
    )


def test_error_targets_are_correct(data):
    """Check the edit operation and the substitute of each visible item."""
    flow = paradigm(coupling_probs=(0.0, 0.0, 0.0, 1.0))
    view, targets = corrupt_rows(flow, data, u=0.2)
    fate, judged = np.asarray(targets.edit_op), np.asarray(targets.edit_scored)
    text = np.asarray(data.is_text & data.to_generate)
    ids = np.asarray(data.ids)
    there = judged & (np.asarray(view.modality) == Modality.TEXT)
    extra = fate == EditOp.DELETE
    assert {int(one) for one in np.unique(fate[there])} == {0, 1, 2}
    right = np.all(np.asarray(view.embeds) == np.asarray(TABLE.embedding)[ids], axis=-1)
    wrong = fate == EditOp.SUBSTITUTE
    np.testing.assert_array_equal(~right[there & ~extra], wrong[there & ~extra])
    np.testing.assert_array_equal(np.asarray(targets.ids)[text], ids[text])
    np.testing.assert_array_equal(np.asarray(view.time)[there], np.float32(0.6))
    # Absent, given and noisy items have no edit target.
    assert not judged[np.asarray(data.is_given)].any()
    assert not (judged & (np.asarray(view.modality) == Modality.PAD)).any()
    noisy = np.asarray(targets.image_scored)
    assert noisy.any()
    assert not (judged & noisy).any()
    assert np.asarray(targets.insert_scored).any()
    assert np.asarray(targets.gap_scored)[extra].all()
    assert not np.asarray(targets.gaps.num_missing)[extra].any()
    wrong = np.asarray(data.is_image) & judged & (fate == EditOp.SUBSTITUTE)
    right = np.asarray(data.is_image) & judged & (fate == EditOp.KEEP)
    assert wrong.any()
    same = np.all(np.asarray(view.latents) == np.asarray(data.latents), axis=-1)
    assert same[right].all()
    assert not same[wrong].any()


def test_documents_without_errors_have_no_edit_loss(data):
    _, targets = corrupt_rows(paradigm(coupling_probs=(0.4, 0.3, 0.3, 0.0)), data)
    assert not targets.edit_scored.any()


def test_counts_are_those_of_the_clean_canvas(data):
    counts = jax.vmap(paradigm().counts)(data)
    first = np.asarray(jax.vmap(deletion.item_starts)(data) & data.to_generate)
    for term in set(edit_flow.LOSS_TERMS) - {"image"}:
        np.testing.assert_array_equal(counts[term], first.sum(1))
    np.testing.assert_array_equal(counts["image"], np.asarray(data.is_image).sum(1))
