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
from tests import tiny

WORDS, LENGTH = 8, 5
LANGUAGE = {tuple((first + i) % WORDS for i in range(LENGTH)) for first in range(WORDS)}
TRAINING_STEPS = 600


@pytest.fixture
def table():
    rows, mask = jax.random.split(jax.random.key(0))
    return EmbeddingTable(
        rows=3 * jax.random.normal(rows, (tiny.VOCAB, tiny.EMBED)),
        mask=jax.random.normal(mask, (tiny.EMBED,)),
    )


@pytest.mark.parametrize("name", ["endpoint", "velocity"])
def test_text_starts_from_noise_around_the_mask(name, table):
    objective = tiny.OBJECTIVES[name]
    ids = jnp.zeros(5000, jnp.int32)
    first, second = jax.random.split(jax.random.key(1))
    for x_0 in (objective.sample_x0_train(first, table, ids), objective.start(second, table, 5000)):
        noise = np.asarray(x_0 - table.mask[None])
        assert np.abs(noise.mean(0)).max() < 0.08
        np.testing.assert_allclose(noise.std(0), 1, atol=0.05)


def test_literal_masks_a_random_subset_in_training_and_all_of_it_in_sampling(table):
    objective = tiny.OBJECTIVES["literal"]
    ids = jnp.arange(100) % tiny.VOCAB
    shares = []
    for key in jax.random.split(jax.random.key(1), 40):
        x_0 = np.asarray(objective.sample_x0_train(key, table, ids))
        masked = np.all(x_0 == np.asarray(table.mask), axis=-1)
        clean = np.all(x_0 == np.asarray(table.rows[ids]), axis=-1)
        assert np.all(masked ^ clean)
        shares.append(masked.mean())
    assert min(shares) < 0.2
    assert max(shares) > 0.8
    np.testing.assert_array_equal(objective.start(key, table, 3), jnp.stack([table.mask] * 3))


@pytest.mark.parametrize(
    ("name", "normed", "learned"),
    [("endpoint", True, True), ("velocity", True, False), ("literal", False, True)],
)
def test_rows_are_normed_and_learned_as_the_objective_says(name, normed, learned, table):
    objective = tiny.OBJECTIVES[name]
    used = objective.table(table)
    norms = np.linalg.norm(used.rows, axis=-1)
    assert np.allclose(norms, np.sqrt(tiny.EMBED), rtol=1e-4) == normed
    direction = jax.random.normal(jax.random.key(4), table.rows.shape)

    def project(rows):
        return jnp.sum(objective.table(table.replace(rows=rows)).rows * direction)

    assert bool(jnp.any(jax.grad(project)(table.rows) != 0)) == learned


# The seed's printed objective, and why it is not the default.


@flax.struct.dataclass
class TrainingResult:
    rows_before: jax.Array
    rows_after: jax.Array
    texts: np.ndarray


def language(rows):
    """Texts that count up from a random word, modulo `WORDS`, each after a fixed BOS."""
    first = jnp.arange(rows) % WORDS
    ids = (first[:, None] + jnp.arange(LENGTH)[None]) % WORDS
    ids = jnp.concatenate([jnp.full((rows, 1), WORDS), ids], axis=1)
    order = jnp.broadcast_to(jnp.arange(LENGTH + 1)[None], ids.shape)
    ones = jnp.ones_like(ids)
    return Canvas(
        ids=ids,
        latents=jnp.zeros((*ids.shape, 1)),
        kind=Modality.TEXT * ones,
        segment=ones,
        span=1 + (order > 0),
        position=jnp.stack([order, 0 * order, 0 * order], axis=-1),
        fixed=order == 0,
        opening=0 * ones,
    )


@functools.cache
def train_objective(name):
    """The rows of E before and after training on `language`, and samples from noise."""
    objective = {
        "endpoint": tiny.objectives.CrossEntropyObjective(WORDS + 1),
        "literal": tiny.OBJECTIVES["literal"],
    }[name]
    joint = tasks.TaskMixture((1.0, 0.0, 0.0, 0.0, 0.0), 0.0)
    paradigm = dataclasses.replace(tiny.paradigm(channels=1, mix=joint), objective=objective)
    net = tiny.network(paradigm.heads, vocab_size=WORDS + 1, unroll=2)
    rate = optax.cosine_decay_schedule(2e-2, TRAINING_STEPS)
    system = tiny.System(paradigm, net, optax.adam(rate), decay=0.9)
    batch = language(64)
    state = before = system.state(batch)
    step = system.step()
    for _ in range(TRAINING_STEPS):
        state, _ = step(state, batch)
    apply = functools.partial(net.apply, {"params": state.ema})
    table = net.apply({"params": state.ema}, method="table")
    draw = jax.jit(lambda keys, canvas: paradigm.sample(
        apply, table, keys, canvas, SamplingPlan(ode.make_schedule("euler", 16))
    ).canvas.ids)  # fmt: skip
    texts = draw(update.per_row_keys(jax.random.key(11), 64), batch)
    return TrainingResult(
        before.params["rows"][:WORDS], table.rows[:WORDS], np.asarray(texts)[:, 1:]
    )


def mean_distance(rows):
    """Mean distance of two rows."""
    distance = jnp.linalg.norm(rows[:, None] - rows[None], axis=-1)
    return float(distance.sum() / (len(rows) * (len(rows) - 1)))


def test_literal_collapses():
    """One squared error against learned rows is smallest where all rows are equal.

    v = E[id] - x_0 can be told from (x_t, t) without knowing any word, once every E[id] is the
    same. And where sampling starts from the mask in every slot, the ODE has one trajectory: all
    documents get the same text, however well the rest works.
    """
    result = train_objective("literal")
    assert mean_distance(result.rows_after) < 0.05 * mean_distance(result.rows_before)
    assert len({tuple(text) for text in result.texts.tolist()}) == 1


def test_endpoint_does_not_collapse():
    """Cross-entropy tells words apart, and the randomness is in x_0: valid texts, and diverse."""
    result = train_objective("endpoint")
    rows = result.rows_after / jnp.linalg.norm(result.rows_after, axis=-1, keepdims=True)
    assert mean_distance(rows) > 1.0
    texts = [tuple(text) for text in result.texts.tolist()]
    assert np.mean([text in LANGUAGE for text in texts]) > 0.6
    assert len(set(texts) & LANGUAGE) >= 6
