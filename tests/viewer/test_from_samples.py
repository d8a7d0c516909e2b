import dataclasses
import json
import re

import jax
import numpy as np
import pytest

from oneflow_jax.api import slides, state
from oneflow_jax.canvas import Canvas, Modality
from oneflow_jax.data import vocab
from oneflow_jax.samplers.base import Trajectory
from oneflow_jax.viewer import fonts, from_samples, page, trajectory
from tests import tiny

LENGTH = 8


def make_trajectory(layout):
    """Return a trajectory of two steps: BOS a <image>, then BOS a [b] <image> [c]."""
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
        modality=kind[:, None],
        segment=(kind != pad)[:, None].astype(np.int32),
        span=span[:, None],
        position=position[:, None],
        is_given=fixed[:, None],
        insertable=np.zeros_like(kind)[:, None],
    )
    clock = np.where(kind == image, [[0.25], [1.0]], 0.5)[:, None]
    return Trajectory(
        canvas=canvas,
        time=clock,
        confidence=np.full((2, 1, LENGTH), 0.75),
        x1_hat=latents + 1,
        run_times=np.array([0.25, 1.0]),
    )


@pytest.fixture(scope="module")
def example():
    lay = tiny.make_layout(LENGTH)
    (view,) = from_samples.build_views(lay, make_trajectory(lay), ["title"], ["prompt"])
    return lay, tuple(lay.vocab.text)[:3], view


def test_one_frame_per_step_with_its_time(example):
    _, _, view = example
    assert (view.title, view.prompt) == ("title", "prompt")
    assert [frame.time for frame in view.frames] == [0.25, 1.0]


def test_inserted_tokens_are_in_reading_order_and_keys_are_stable(example):
    lay, (a, b, c), view = example
    first, last = view.frames
    assert [[word.text for word in run.tokens] for run in first.text_spans()] == [
        lay.vocab.to_pieces([a])
    ]
    assert [[word.text for word in run.tokens] for run in last.text_spans()] == [
        lay.vocab.to_pieces([a, b]),
        lay.vocab.to_pieces([c]),
    ]
    assert first.tokens()[0].key == last.tokens()[0].key
    assert first.text_spans()[0].key == last.text_spans()[0].key
    assert first.images()[0].key == last.images()[0].key
    kinds = [type(part) for part in last.parts]
    assert kinds == [trajectory.TextSpan, trajectory.ImageView, trajectory.TextSpan]


def test_generated_tokens_have_confidence_and_time(example):
    _, _, view = example
    before, after = view.frames[-1].text_spans()
    assert [word.given for word in before.tokens] == [True, False]
    assert before.tokens[1].confidence == 0.75
    assert (before.given, before.time) == (False, 0.5)
    assert (after.given, after.time) == (False, 0.5)
    assert view.frames[0].text_spans()[0].given
    assert view.frames[0].text_spans()[0].time == 1.0


def test_image_has_its_own_time_state_and_x1_prediction(example):
    _, _, view = example
    (picture,) = view.frames[0].images()
    assert picture.time == 0.25
    assert not picture.given
    assert (picture.x1_hat > picture.x_t).all()


def test_all_images_are_decoded_in_one_call_and_placed_correctly():
    """Check two documents at two steps, with four images and four x1 predictions."""
    lay = tiny.make_layout(LENGTH)
    codec = tiny.CountingCodec(lay.codec)
    lay = dataclasses.replace(lay, codec=codec)
    moments = jax.tree.map(
        lambda x: x.repeat(2, axis=1), make_trajectory(lay).replace(run_times=None)
    )
    draws = np.random.default_rng(0)
    states, guesses = draws.uniform(-1, 1, (2, *moments.x1_hat.shape)).astype(np.float32)
    moments = moments.replace(
        canvas=moments.canvas.replace(latents=states),
        x1_hat=guesses,
        run_times=np.array([0.25, 1.0]),
    )
    both = from_samples.build_views(lay, moments, ["one", "two"], ["", ""])
    assert codec.decode_counts == [4, 4]
    for b, view in enumerate(both):
        for moment, frame in enumerate(view.frames):
            (picture,) = frame.images()
            at = (moment, b, slice(2, 6))
            np.testing.assert_array_equal(picture.x_t, tiny.CODEC.decode(states[at]))
            np.testing.assert_array_equal(picture.x1_hat, tiny.CODEC.decode(guesses[at]))


def test_without_images_nothing_is_decoded():
    lay = tiny.make_layout(LENGTH)
    codec = tiny.CountingCodec(lay.codec)
    lay = dataclasses.replace(lay, codec=codec)
    moments = make_trajectory(lay)
    kind = np.where(
        moments.canvas.modality == int(Modality.IMAGE), int(Modality.PAD), moments.canvas.modality
    )
    moments = moments.replace(canvas=moments.canvas.replace(modality=kind))
    (view,) = from_samples.build_views(lay, moments, ["title"], ["prompt"])
    assert codec.decode_counts == []
    assert [len(frame.tokens()) for frame in view.frames] == [1, 3]


@pytest.mark.parametrize("confidence", [0.0, 0.05, 0.5])
def test_a_finished_document_shows_no_masked_tokens(confidence, tmp_path):
    """Check the last step on the page, in the film strip and in the slides."""
    lay = tiny.make_layout(LENGTH)
    steps = make_trajectory(lay)
    # In both steps the document is whole; only the confidence is low.
    steps = jax.tree.map(lambda x: np.stack([x[-1]] * 2), steps).replace(
        confidence=np.full((2, 1, LENGTH), confidence), run_times=np.array([0.5, 1.0])
    )
    (view,) = from_samples.build_views(lay, steps, ["title"], ["prompt"])
    before, last = ([token for token in frame.tokens() if not token.given] for frame in view.frames)
    assert [token.opacity() for token in last] == [1.0, 1.0]
    assert all(token.opacity() < 1 for token in before)
    assert [token.confidence for token in last] == [confidence] * 2
    page.write(tmp_path / "page.html", [view], {}, {}, "heading")
    text = (tmp_path / "page.html").read_text()
    data = json.loads(
        re.search(r'<script type="application/json" id="data">(.*?)</script>', text)[1]
    )
    runs = [part for part in data["stories"][0]["frames"][-1][1] if not part[0]]
    assert {percent for run in runs for percent in run[5]} == {100}
    html = slides.TrajectoryViewer([state.from_frame(frame) for frame in view.frames]).html()
    *_, last_slide = html.split("data-slide ")
    assert f"background: {fonts.MASK_COLOR}" not in last_slide
