import dataclasses

import jax
import numpy as np
import pytest

from oneflow_jax.canvas import Canvas, Modality
from oneflow_jax.data import vocab
from oneflow_jax.samplers.base import Trajectory
from oneflow_jax.viewer import from_samples, trajectory
from tests import tiny

LENGTH = 8


def make_trajectory(layout):
    """Two moments of one document: BOS a <picture>, then BOS a [b] <picture> [c]."""
    a, b, c = list(layout.vocab.text)[:3]
    ids = np.array([[vocab.BOS, a, 0, 0, 0, 0, b, c]] * 2)[:, None]
    text, image, pad = int(Modality.TEXT), int(Modality.IMAGE), int(Modality.PAD)
    kind = np.array([[text, text, *[image] * 4, pad, pad], [text, text, *[image] * 4, text, text]])
    order = np.array([[0, 1, 2, 2, 2, 2, 0, 0], [0, 1, 3, 3, 3, 3, 2, 4]])
    grid = np.array([[0, 0], [0, 0], [0, 0], [0, 1], [1, 0], [1, 1], [0, 0], [0, 0]])
    position = np.concatenate([order[..., None], np.stack([grid] * 2)], axis=-1)
    span = np.where(kind == image, 3, np.where(kind == text, 1, 0))
    fixed = np.zeros((2, LENGTH), bool)
    fixed[:, :2] = True
    latents = np.zeros((2, 1, LENGTH, layout.codec.channels), np.float32)
    canvas = Canvas(
        ids=ids,
        latents=latents,
        kind=kind[:, None],
        segment=(kind != pad)[:, None].astype(np.int32),
        span=span[:, None],
        position=position[:, None],
        fixed=fixed[:, None],
        opening=np.zeros_like(kind)[:, None],
    )
    clock = np.where(kind == image, [[0.25], [1.0]], 0.5)[:, None]
    return Trajectory(
        canvas=canvas,
        clock=clock,
        certainty=np.full((2, 1, LENGTH), 0.75),
        guess=latents + 1,
        times=np.array([0.25, 1.0]),
    )


@pytest.fixture(scope="module")
def example():
    lay = tiny.make_layout(LENGTH)
    (one,) = from_samples.build_views(lay, make_trajectory(lay), ["title"], ["prompt"])
    return lay, tuple(lay.vocab.text)[:3], one


def test_a_frame_for_each_moment_at_its_time(example):
    _, _, one = example
    assert (one.title, one.prompt) == ("title", "prompt")
    assert [frame.clock for frame in one.frames] == [0.25, 1.0]


def test_inserted_words_stand_in_reading_order_and_the_others_keep_their_keys(example):
    lay, (a, b, c), one = example
    first, last = one.frames
    assert [[word.text for word in run.words] for run in first.runs()] == [[lay.vocab.piece(a)]]
    assert [[word.text for word in run.words] for run in last.runs()] == [
        [lay.vocab.piece(a), lay.vocab.piece(b)],
        [lay.vocab.piece(c)],
    ]
    assert first.words()[0].key == last.words()[0].key
    assert first.runs()[0].key == last.runs()[0].key
    assert first.pictures()[0].key == last.pictures()[0].key
    kinds = [type(part) for part in last.parts]
    assert kinds == [trajectory.TextSpan, trajectory.ImageView, trajectory.TextSpan]


def test_given_words_are_given_and_free_ones_have_their_certainty_and_clock(example):
    _, _, one = example
    before, after = one.frames[-1].runs()
    assert [word.given for word in before.words] == [True, False]
    assert before.words[1].certainty == 0.75
    assert (before.given, before.clock) == (False, 0.5)
    assert (after.given, after.clock) == (False, 0.5)
    assert one.frames[0].runs()[0].given
    assert one.frames[0].runs()[0].clock == 1.0


def test_a_picture_has_its_own_clock_and_shows_state_and_guess(example):
    _, _, one = example
    (picture,) = one.frames[0].pictures()
    assert picture.clock == 0.25
    assert not picture.given
    assert (picture.guess > picture.state).all()


def test_all_pictures_are_decoded_at_once_and_shown_where_they_belong():
    """Two documents at two moments: four pictures, and as many guesses."""
    lay = tiny.make_layout(LENGTH)
    codec = tiny.CountingCodec(lay.codec)
    lay = dataclasses.replace(lay, codec=codec)
    moments = jax.tree.map(lambda x: x.repeat(2, axis=1), make_trajectory(lay).replace(times=None))
    draws = np.random.default_rng(0)
    states, guesses = draws.uniform(-1, 1, (2, *moments.guess.shape)).astype(np.float32)
    moments = moments.replace(
        canvas=moments.canvas.replace(latents=states), guess=guesses, times=np.array([0.25, 1.0])
    )
    both = from_samples.build_views(lay, moments, ["one", "two"], ["", ""])
    assert codec.decoded == [4, 4]
    for b, one in enumerate(both):
        for moment, frame in enumerate(one.frames):
            (picture,) = frame.pictures()
            at = (moment, b, slice(2, 6))
            np.testing.assert_array_equal(picture.state, tiny.CODEC.decode(states[at]))
            np.testing.assert_array_equal(picture.guess, tiny.CODEC.decode(guesses[at]))


def test_without_pictures_nothing_is_decoded():
    lay = tiny.make_layout(LENGTH)
    codec = tiny.CountingCodec(lay.codec)
    lay = dataclasses.replace(lay, codec=codec)
    moments = make_trajectory(lay)
    kind = np.where(
        moments.canvas.kind == int(Modality.IMAGE), int(Modality.PAD), moments.canvas.kind
    )
    moments = moments.replace(canvas=moments.canvas.replace(kind=kind))
    (one,) = from_samples.build_views(lay, moments, ["title"], ["prompt"])
    assert codec.decoded == []
    assert [len(frame.words()) for frame in one.frames] == [1, 3]
