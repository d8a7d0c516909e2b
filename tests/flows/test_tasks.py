import jax
import jax.numpy as jnp
import numpy as np
import pytest

from oneflow_jax.canvas import Canvas, Modality
from oneflow_jax.flows import tasks

NUM_SAMPLES = 4000
T_FIRST, T_SECOND = 0.3, 0.6

# (modality, number of slots, document) of each run. The documents are: BOS, text, image, text,
# given image; and BOS, text, image. PAD slots follow.
RUNS = (
    (Modality.TEXT, 1, 1),
    (Modality.TEXT, 5, 1),
    (Modality.IMAGE, 4, 1),
    (Modality.TEXT, 4, 1),
    (Modality.IMAGE, 4, 1),
    (Modality.TEXT, 1, 2),
    (Modality.TEXT, 3, 2),
    (Modality.IMAGE, 4, 2),
    (Modality.PAD, 3, 0),
)


@pytest.fixture(scope="module")
def canvas():
    slots = [
        (kind, segment, 0 if kind == Modality.PAD else span)
        for span, (kind, count, segment) in enumerate(RUNS, 1)
        for _ in range(count)
    ]
    kind, segment, span = map(jnp.array, zip(*slots, strict=True))
    return Canvas(
        ids=jnp.zeros_like(kind),
        latents=jnp.zeros((len(slots), 2)),
        modality=kind,
        segment=segment,
        span=span,
        position=jnp.zeros((len(slots), 3), jnp.int32),
        is_given=(span == 1) | (span == 5) | (span == 6),
        insertable=jnp.zeros_like(kind),
    )


def sample_tasks(canvas, probs, cond_drop_prob=0.0, seed=0):
    """Return samples of scored slots and times, `[NUM_SAMPLES L]`; each document has its own u."""
    mix = tasks.TaskMixture(probs, cond_drop_prob)
    u = jnp.sqrt(jnp.where(canvas.segment == 1, T_FIRST, T_SECOND))
    keys = jax.random.split(jax.random.key(seed), NUM_SAMPLES)
    draws = jax.jit(jax.vmap(lambda key: mix.sample(key, u, canvas, jnp.square)))(keys)
    return np.asarray(draws.scored), np.asarray(draws.time)


def one_hot_probs(name):
    return tuple(float(name == task) for task in tasks.NAMES)


def assert_fraction(outcomes, expected):
    share, n = np.mean(outcomes), len(outcomes)
    assert abs(share - expected) <= 4 * np.sqrt(expected * (1 - expected) / n), (share, expected)


@pytest.mark.parametrize("name", tasks.NAMES[:5])
def test_scored_slots_have_the_document_time_and_others_one(canvas, name):
    scored, clock = sample_tasks(canvas, one_hot_probs(name))
    t = np.where(canvas.segment == 1, T_FIRST, T_SECOND)
    np.testing.assert_allclose(clock, np.where(scored, t, 1), atol=1e-6)
    # BOS, given slots and PAD are never scored.
    assert not scored[:, ~np.asarray(canvas.to_generate)].any()


def test_joint_text_to_image_and_image_to_text_corrupt_their_modalities(canvas):
    free = np.asarray(canvas.to_generate)
    for name, kind in (
        ("joint", np.ones_like(free)),
        ("text_to_image", np.asarray(canvas.is_image)),
        ("image_to_text", np.asarray(canvas.is_text)),
    ):
        scored, _ = sample_tasks(canvas, one_hot_probs(name))
        np.testing.assert_array_equal(scored, np.tile(free & kind, (NUM_SAMPLES, 1)))


@pytest.mark.parametrize("name", ["own_run_times", "own_slot_times"])
def test_with_own_times_all_slots_are_scored_at_independent_times(canvas, name):
    scored, time = sample_tasks(canvas, one_hot_probs(name))
    free, span = np.asarray(canvas.to_generate), np.asarray(canvas.span)
    np.testing.assert_array_equal(scored, np.tile(free, (NUM_SAMPLES, 1)))
    for number in (2, 3, 4, 7, 8):
        inside = time[:, span == number]
        shared = np.all(inside == inside[:, :1], axis=1)
        # Tokens of a run have times of their own only in `own_slot_times`.
        own = name == "own_slot_times" and number in (2, 4, 7)
        assert shared.mean() == (0 if own else 1)
        # t = u^2, so P(t < 1/4) = 1/2.
        assert_fraction(inside[:, 0] < 1 / 4, 1 / 2)
    first, second = (time[:, span == number][:, 0] < 1 / 4 for number in (2, 3))
    assert_fraction(first & second, 1 / 4)


def test_text_first_has_times_of_its_own_for_tokens_and_pure_noise_for_images(canvas):
    scored, time = sample_tasks(canvas, one_hot_probs("text_first"))
    free, image = np.asarray(canvas.to_generate), np.asarray(canvas.is_image)
    np.testing.assert_array_equal(scored, np.tile(free, (NUM_SAMPLES, 1)))
    assert (time[:, free & image] == 0).all()
    first, second = time[:, free & ~image].T[:2] < 1 / 4
    assert_fraction(first, 1 / 2)  # t = u^2, so P(t < 1/4) = 1/2.
    assert_fraction(first & second, 1 / 4)


def test_captions_may_have_times_of_another_sampler(canvas):
    mix = tasks.TaskMixture(one_hot_probs("image_to_text"), 0.0)
    u = jnp.full(canvas.segment.shape, 0.5)

    def sample(*samplers):
        return np.asarray(mix.sample(jax.random.key(0), u, canvas, *samplers).time)

    text = np.asarray(canvas.is_text & canvas.to_generate)
    np.testing.assert_allclose(sample(jnp.square, jnp.sqrt), np.where(text, 0.5**0.5, 1))
    np.testing.assert_allclose(sample(jnp.square), np.where(text, 0.25, 1))
    mix = tasks.single_task("joint")
    everything = np.asarray(canvas.to_generate)
    np.testing.assert_allclose(sample(jnp.square, jnp.sqrt), np.where(everything, 0.25, 1))


@pytest.mark.parametrize("name", tasks.OWN_TIMES)
def test_text_with_own_times_may_have_times_of_another_sampler(canvas, name):
    mix, u = tasks.single_task(name), jnp.zeros(canvas.segment.shape)

    def sample(*samplers):
        return np.asarray(mix.sample(jax.random.key(0), u, canvas, *samplers).time)

    squares, roots = sample(jnp.square), sample(jnp.square, jnp.sqrt)
    images, text = (
        np.asarray(canvas.to_generate & slots) for slots in (canvas.is_image, canvas.is_text)
    )
    np.testing.assert_array_equal(roots[images], squares[images])
    np.testing.assert_allclose(roots[text], squares[text] ** 0.25, rtol=1e-5)


@pytest.mark.parametrize("name", tasks.NAMES)
def test_text_is_ahead_of_the_images_unless_its_time_is_separate(canvas, name):
    mix = tasks.TaskMixture(one_hot_probs(name), cond_drop_prob=0.5)
    u = jnp.where(canvas.segment == 1, T_FIRST, T_SECOND)

    def sample(lead):
        return mix.sample(jax.random.key(0), u, canvas, lambda u: u, None, lead)

    together, ahead = sample(1.0), sample(4.0)
    for field in ("scored", "task"):
        np.testing.assert_array_equal(getattr(ahead, field), getattr(together, field))
    t = np.asarray(together.time)
    leads = np.asarray(canvas.is_text) & (name not in tasks.SEPARATE_TEXT_TIMES)
    np.testing.assert_allclose(ahead.time, np.where(leads, 4 * t / (1 + 3 * t), t), rtol=1e-6)


def test_spans_are_corrupted_whole_at_a_random_rate_per_document(canvas):
    scored, _ = sample_tasks(canvas, one_hot_probs("spans"))
    span = np.asarray(canvas.span)
    hit = {}
    for number in (2, 3, 4, 7, 8):
        inside = scored[:, span == number]
        assert np.all(inside == inside[:, :1])
        hit[number] = inside[:, 0]
        assert_fraction(hit[number], 1 / 2)
    # Two spans of one document share a rate s: P(both corrupted) = E[s^2] = 1/3. For spans of two
    # documents it is 1/4.
    assert_fraction(hit[2] & hit[3], 1 / 3)
    assert_fraction(hit[2] & hit[7], 1 / 4)


def test_scattered_corrupts_single_tokens_and_whole_images(canvas):
    scored, _ = sample_tasks(canvas, one_hot_probs("scattered"))
    span = np.asarray(canvas.span)
    picture = scored[:, span == 3]
    assert np.all(picture == picture[:, :1])
    words = scored[:, span == 2]
    assert_fraction(words[:, 0], 1 / 2)
    assert_fraction(words[:, 0] & words[:, 1], 1 / 3)
    # P(all five tokens are corrupted, or none) = E[s^5 + (1 - s)^5] = 2/6.
    assert_fraction(np.all(words == words[:, :1], axis=1), 2 / 6)


def test_tasks_have_their_probabilities(canvas):
    scored, _ = sample_tasks(canvas, (0.35, 0.3, 0.2, 0.1, 0.05))
    free = np.asarray(canvas.to_generate & (canvas.segment == 1))
    words = scored[:, free & np.asarray(canvas.is_text)]
    picture = scored[:, free & np.asarray(canvas.is_image)]
    # With a random rate s, the tasks `spans` and `scattered` sometimes select the same slots as the
    # first three tasks. For `spans`, with two text runs and an image, the probabilities are
    # E[s^3] = 1/4 and E[s (1-s)^2] = E[s^2 (1-s)] = 1/12. For `scattered`, with nine tokens and an
    # image, they are E[s^10] = 1/11 and E[s (1-s)^9] = E[s^9 (1-s)] = 1/110.
    assert_fraction(words.all(1) & picture.all(1), 0.35 + 0.1 / 4 + 0.05 / 11)
    assert_fraction(~words.any(1) & picture.all(1), 0.3 + 0.1 / 12 + 0.05 / 110)
    assert_fraction(words.all(1) & ~picture.any(1), 0.2 + 0.1 / 12 + 0.05 / 110)
    run = words[:, :5]
    assert_fraction(run.any(1) & ~run.all(1), 0.05 * 4 / 6)


def test_packed_documents_sample_tasks_independently(canvas):
    scored, _ = sample_tasks(canvas, (0.5, 0.5, *(0.0,) * 5))
    span = np.asarray(canvas.span)
    first, second = (scored[:, span == number][:, 0] for number in (2, 7))
    assert_fraction(first, 1 / 2)
    assert_fraction(second, 1 / 2)
    assert_fraction(first & second, 1 / 4)


def test_text_is_dropped_at_cond_drop_prob_in_text_to_image(canvas):
    scored, clock = sample_tasks(canvas, (0.0, 0.5, 0.5, 0.0, 0.0), cond_drop_prob=0.3)
    span = np.asarray(canvas.span)
    words = clock[:, span == 2]
    assert np.all(words == words[:, :1])
    dropped = {number: clock[:, span == number][:, 0] == 0 for number in (2, 4, 7)}
    np.testing.assert_array_equal(dropped[2], dropped[4])
    assert_fraction(dropped[2], 0.5 * 0.3)
    assert_fraction(dropped[2] & dropped[7], (0.5 * 0.3) ** 2)
    # Dropped text is at t = 0 and not scored. BOS stays clean, and images are still scored.
    assert not (scored & (clock == 0)).any()
    assert np.all(clock[:, ~np.asarray(canvas.to_generate)] == 1)
    assert np.all(scored[:, span == 3].all(1)[dropped[2]])


def test_images_are_dropped_at_cond_drop_prob_in_image_to_text(canvas):
    scored, clock = sample_tasks(canvas, (0.0, 0.0, 1.0, 0.0, 0.0), cond_drop_prob=0.3)
    span = np.asarray(canvas.span)
    dropped = {number: clock[:, span == number][:, 0] == 0 for number in (3, 8)}
    assert_fraction(dropped[3], 0.3)
    assert_fraction(dropped[3] & dropped[8], 0.3**2)
    # The given image stays clean, and text is still scored.
    assert np.all(clock[:, span == 5] == 1)
    assert scored[:, span == 2].all()
