import numpy as np
import pytest

from oneflow_jax.viewer import trajectory
from tests.viewer import examples

PIXELS = np.zeros((4, 6, 3), np.uint8)


def make_tokens(*keys):
    return tuple(trajectory.TokenView(key, f" {key}", 1.0) for key in keys)


@pytest.mark.parametrize("confidence", [-0.01, 1.01, float("nan")])
def test_confidence_outside_0_1_is_refused(confidence):
    with pytest.raises(ValueError, match="confidence"):
        trajectory.TokenView(0, "a", confidence)


@pytest.mark.parametrize("clock", [-0.01, 1.01, float("nan")])
def test_time_outside_0_1_is_refused(clock):
    for make in (
        lambda: trajectory.TextSpan(0, (), clock),
        lambda: trajectory.ImageView(0, PIXELS, None, clock),
        lambda: trajectory.Frame(clock, ()),
    ):
        with pytest.raises(ValueError, match="not in"):
            make()


@pytest.mark.parametrize(
    "pixels", [PIXELS.astype(np.float32), PIXELS[..., :1], PIXELS[0], PIXELS[:0]]
)
def test_image_must_be_uint8_rgb(pixels):
    with pytest.raises(ValueError, match="x_t is"):
        trajectory.ImageView(0, pixels, None, 0.5)
    with pytest.raises(ValueError, match="x1_hat is"):
        trajectory.ImageView(0, PIXELS, pixels, 0.5)


def test_x1_prediction_must_have_the_shape_of_the_state():
    with pytest.raises(ValueError, match="differ"):
        trajectory.ImageView(0, PIXELS, PIXELS[:2], 0.5)


def test_keys_are_unique_in_a_frame():
    with pytest.raises(ValueError, match=r"parts.*\[3\]"):
        trajectory.Frame(
            0.0, (trajectory.TextSpan(3, (), 0.0), trajectory.ImageView(3, PIXELS, None, 0.0))
        )
    with pytest.raises(ValueError, match=r"tokens.*\[7\]"):
        trajectory.Frame(
            0.0,
            (
                trajectory.TextSpan(0, make_tokens(7), 0.0),
                trajectory.TextSpan(1, make_tokens(7), 0.0),
            ),
        )


def test_a_key_keeps_its_kind_in_all_frames():
    frames = (
        trajectory.Frame(0.0, (trajectory.TextSpan(0, (), 0.0),)),
        trajectory.Frame(1.0, (trajectory.ImageView(0, PIXELS, None, 1.0),)),
    )
    with pytest.raises(ValueError, match="key 0"):
        trajectory.TrajectoryView("title", "", frames)


def test_trajectory_must_have_frames():
    with pytest.raises(ValueError, match="no frames"):
        trajectory.TrajectoryView("title", "", ())


def test_frames_may_have_different_parts():
    view = examples.make_insertion_view()
    assert [len(frame.tokens()) for frame in view.frames] == [0, 2, 3, 3, 3]
    assert view.to_text() == "here now there"


@pytest.mark.parametrize(
    ("confidence", "is_given", "legibility"),
    [(0.0, False, 0.0), (0.1, False, 0.0), (0.5, False, 0.5), (0.95, False, 1.0), (0.0, True, 1.0)],
)
def test_token_opacity(confidence, is_given, legibility):
    assert trajectory.TokenView(0, "a", confidence, is_given).opacity() == pytest.approx(legibility)
