import dataclasses
import functools

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from oneflow_jax.canvas import Canvas, EmbeddingTable, Modality
from oneflow_jax.flows import tasks
from oneflow_jax.samplers import ode
from oneflow_jax.samplers.base import SamplingPlan
from oneflow_jax.training import update
from tests import sampling, tiny

WORDS, LENGTH = 8, 5
LANGUAGE = {tuple((first + i) % WORDS for i in range(LENGTH)) for first in range(WORDS)}
TRAINING_STEPS = 600


@pytest.fixture
def table():
    rows, mask = jax.random.split(jax.random.key(0))
    return EmbeddingTable(
        embedding=3 * jax.random.normal(rows, (tiny.VOCAB, tiny.EMBED)),
        mask_embedding=jax.random.normal(mask, (tiny.EMBED,)),
    )


@pytest.mark.parametrize("name", ["cross_entropy", "velocity"])
def test_text_starts_from_noise_around_the_mask(name, table):
    objective = tiny.OBJECTIVES[name]
    ids = jnp.zeros(5000, jnp.int32)
    first, second = jax.random.split(jax.random.key(1))
    for x_0 in (
        objective.sample_x0_train(first, table, ids),
        objective.sample_x0(second, table, 5000),
    ):
        noise = np.asarray(x_0 - table.mask_embedding[None])
        assert np.abs(noise.mean(0)).max() < 0.08
        np.testing.assert_allclose(noise.std(0), 1, atol=0.05)


def test_naive_masks_a_random_subset_in_training_and_all_slots_in_sampling(table):
    objective = tiny.OBJECTIVES["naive"]
    ids = jnp.arange(100) % tiny.VOCAB
    shares = []
    for key in jax.random.split(jax.random.key(1), 40):
        x_0 = np.asarray(objective.sample_x0_train(key, table, ids))
        masked = np.all(x_0 == np.asarray(table.mask_embedding), axis=-1)
        clean = np.all(x_0 == np.asarray(table.embedding[ids]), axis=-1)
        assert np.all(masked ^ clean)
        shares.append(masked.mean())
    assert min(shares) < 0.2
    assert max(shares) > 0.8
    np.testing.assert_array_equal(
        objective.sample_x0(key, table, 3), jnp.stack([table.mask_embedding] * 3)
    )


@pytest.mark.parametrize(
    ("name", "normed", "learned"),
    [("cross_entropy", True, True), ("velocity", True, False), ("naive", False, True)],
)
def test_objectives_normalize_and_train_the_embeddings(name, normed, learned, table):
    objective = tiny.OBJECTIVES[name]
    used = objective.prepare_table(table)
    norms = np.linalg.norm(used.embedding, axis=-1)
    assert np.allclose(norms, np.sqrt(tiny.EMBED), rtol=1e-4) == normed
    direction = jax.random.normal(jax.random.key(4), table.embedding.shape)

    def project(rows):
        return jnp.sum(objective.prepare_table(table.replace(embedding=rows)).embedding * direction)

    assert bool(jnp.any(jax.grad(project)(table.embedding) != 0)) == learned


# The tests below show why the naive objective, a squared error on learned embeddings, fails.


@flax.struct.dataclass
class TrainingResult:
    rows_before: jax.Array
    rows_after: jax.Array
    texts: np.ndarray


def language(rows):
    """Return texts whose ids, after BOS, count up from a first id, modulo `WORDS`."""
    first = jnp.arange(rows) % WORDS
    ids = (first[:, None] + jnp.arange(LENGTH)[None]) % WORDS
    ids = jnp.concatenate([jnp.full((rows, 1), WORDS), ids], axis=1)
    order = jnp.broadcast_to(jnp.arange(LENGTH + 1)[None], ids.shape)
    ones = jnp.ones_like(ids)
    return Canvas(
        ids=ids,
        latents=jnp.zeros((*ids.shape, 1)),
        modality=Modality.TEXT * ones,
        segment=ones,
        span=1 + (order > 0),
        position=jnp.stack([order, 0 * order, 0 * order], axis=-1),
        is_given=order == 0,
        insertable=0 * ones,
    )


@functools.cache
def train_objective(name):
    """Train on `language`; return the embeddings before and after training, and samples."""
    objective = {
        "cross_entropy": tiny.objectives.CrossEntropyObjective(WORDS + 1),
        "naive": tiny.OBJECTIVES["naive"],
    }[name]
    joint = tasks.TaskMixture((1.0, *(0.0,) * 6), 0.0)
    paradigm = dataclasses.replace(
        tiny.paradigm(channels=1, task_mixture=joint), objective=objective
    )
    net = tiny.network(paradigm.heads, vocab_size=WORDS + 1, scan_unroll=2)
    rate = optax.cosine_decay_schedule(2e-2, TRAINING_STEPS)
    system = tiny.System(paradigm, net, optax.adam(rate), ema_decay=0.9)
    batch = language(64)
    state = before = system.init_state(batch)
    step = system.jit_train_step()
    for _ in range(TRAINING_STEPS):
        state, _ = step(state, batch)
    apply = functools.partial(net.apply, {"params": state.ema})
    table = net.apply({"params": state.ema}, method="embedding_table")
    draw = jax.jit(lambda keys, canvas: sampling.sample(
        paradigm, apply, table, keys, canvas, SamplingPlan(ode.make_schedule("euler", 16))
    ).canvas.ids)  # fmt: skip
    texts = draw(update.per_row_keys(jax.random.key(11), 64), batch)
    return TrainingResult(
        before.params["rows"][:WORDS], table.embedding[:WORDS], np.asarray(texts)[:, 1:]
    )


def mean_distance(rows):
    """Return the mean pairwise distance of the rows."""
    distance = jnp.linalg.norm(rows[:, None] - rows[None], axis=-1)
    return float(distance.sum() / (len(rows) * (len(rows) - 1)))


def test_naive_objective_collapses():
    """Check that the naive objective collapses the learned embeddings to one point.

    If all rows of E are equal, the network can compute v = E[id] - x_0 from (x_t, t) without
    knowing any token. So equal rows minimize the squared error. And if sampling starts from the
    mask embedding in every slot, the ODE has only one trajectory: all documents get the same text.
    """
    result = train_objective("naive")
    assert mean_distance(result.rows_after) < 0.05 * mean_distance(result.rows_before)
    assert len({tuple(text) for text in result.texts.tolist()}) == 1


def test_cross_entropy_does_not_collapse():
    """Check that embeddings stay apart and that samples from noise are valid and diverse."""
    result = train_objective("cross_entropy")
    rows = result.rows_after / jnp.linalg.norm(result.rows_after, axis=-1, keepdims=True)
    assert mean_distance(rows) > 1.0
    texts = [tuple(text) for text in result.texts.tolist()]
    assert np.mean([text in LANGUAGE for text in texts]) > 0.6
    assert len(set(texts) & LANGUAGE) >= 6
