"""Tests of timelines: after how many forward passes each part of a document is finished."""

import dataclasses
import itertools

import numpy as np

from oneflow_jax.canvas import Modality
from oneflow_jax.compare import timelines
from oneflow_jax.data.document import Document, Image, Text
from oneflow_jax.generation.running_batch import GeneratedBatch
from oneflow_jax.viewer import trajectory
from tests import tiny


def autoregressive_sample(document, num_images, nfe_per_image):
    """Return a layout, and a batch with `document` and the NFE of an autoregressive model."""
    layout = dataclasses.replace(tiny.make_layout(48, 0), has_markers=True)
    canvas = layout.canvas([layout.row(document)])
    words = int(np.sum(canvas.modality[0] == Modality.TEXT)) - 1  # BOS does not count.
    passes = 1 + words + num_images * nfe_per_image
    return layout, GeneratedBatch([], canvas, None, passes, [False])


def test_tokens_take_one_pass_each_and_images_the_rest():
    picture = Image(np.full((4, 4, 3), 200, np.uint8))
    document = Document((Text("a red circle"), picture, Text("a red circle"), picture))
    layout, batch = autoregressive_sample(document, num_images=2, nfe_per_image=7)
    bars = list(timelines._autoregressive_bars(layout, batch))
    assert [bar.kind for bar in bars] == ["text", "image", "text", "image"]
    assert [bar.label for bar in bars[::2]] == ["a red circle", "a red circle"]
    assert all(bar.finished - bar.started == 7 for bar in bars[1::2])
    assert bars[0].started == 1
    for one, following in itertools.pairwise(bars):
        assert one.finished <= following.started
    assert bars[-1].finished == batch.nfe - 1  # The last pass writes <end>.


def test_concurrent_bars_span_the_frames_of_formation():
    pixels = np.zeros((2, 2, 3), np.uint8)

    def frame(certainty, born):
        words = tuple(trajectory.TokenView(n, f" w{n}", c) for n, c in enumerate(certainty))
        parts = [trajectory.TextSpan(-1, words, 0.5)]
        parts += [trajectory.ImageView(9, pixels, None, 0.5)] if born else []
        return trajectory.Frame(0.5, tuple(parts))

    frames = (
        frame((0.1, 0.1), False), frame((0.9, 0.2), False), frame((0.9, 0.9), True),
        frame((1.0, 1.0), True), frame((1.0, 1.0), True),
    )  # fmt: skip
    text, image = timelines._concurrent_bars(trajectory.TrajectoryView("", "", frames), nfe=8)
    assert (text.kind, text.label, text.started, text.finished) == ("text", "w0 w1", 0, 4)
    assert (image.kind, image.started, image.finished) == ("image", 4, 8)
