"""Tests of token times: when each token was written."""

import numpy as np

from oneflow_jax.viewer import token_times, trajectory

NOISE = np.zeros((2, 2, 3), np.uint8)


def make_token(key, text, confidence=1.0, is_given=False):
    return trajectory.TokenView(key, text, confidence, is_given)


def make_view(*frames):
    clocks = np.linspace(0, 1, len(frames))
    return trajectory.TrajectoryView(
        "1",
        "",
        tuple(trajectory.Frame(float(t), parts) for t, parts in zip(clocks, frames, strict=True)),
    )


def make_span(*tokens, key=-1):
    return trajectory.TextSpan(key, tuple(tokens), 1.0)


def test_word_time_is_its_insertion_or_its_unmasking():
    given_token = make_token(1, " see", is_given=True)
    one = make_view(
        (make_span(given_token, make_token(2, " fox", 0.1)),),
        (make_span(given_token, make_token(2, " fox", 0.4)),),
        (make_span(given_token, make_token(2, " fox", 0.8), make_token(3, " too")),),
        (make_span(given_token, make_token(2, " fox"), make_token(3, " too")),),
        (make_span(given_token, make_token(2, " fox"), make_token(3, " too")),),
    )
    assert token_times.compute_word_times(one) == [
        token_times.WordTime("fox", 0.5),
        token_times.WordTime("too", 0.5),
    ]


def test_word_time_is_its_last_change():
    one = make_view(
        (make_span(make_token(2, " cat")),), (make_span(make_token(2, " fox")),),
        (make_span(make_token(2, " fox", 0.2)),),
        (make_span(make_token(2, " fox")),), (make_span(make_token(2, " fox")),),
    )  # fmt: skip
    assert token_times.compute_word_times(one) == [token_times.WordTime("fox", 0.75)]


def test_word_without_confidence_has_the_last_time():
    one = make_view(
        (make_span(make_token(2, " cat", 0.1)),), (make_span(make_token(2, " cat", 0.3)),)
    )
    assert token_times.compute_word_times(one) == [token_times.WordTime("cat", 1.0)]


def test_word_time_is_that_of_its_last_token():
    one = make_view(
        (make_span(make_token(2, " go")),),
        (make_span(make_token(2, " go"), make_token(4, "lla")),),
        (
            make_span(
                make_token(2, " go"), make_token(3, "ri"), make_token(4, "lla"), make_token(5, "")
            ),
        ),
    )
    assert token_times.compute_word_times(one) == [token_times.WordTime("gorilla", 1.0)]


def test_only_inserted_images_have_a_time():
    def picture(key):
        return trajectory.ImageView(key, NOISE, None, 0.5)

    one = make_view(
        (picture(9),),
        (picture(9), make_span(make_token(2, " a")), picture(10)),
        (picture(9), make_span(make_token(2, " a")), picture(10)),
    )
    assert token_times.compute_word_times(one) == [
        token_times.WordTime("a", 0.5),
        token_times.WordTime("<image>", 0.5),
    ]


def test_mean_times_are_sorted():
    times = [token_times.WordTime(*one) for one in (("a", 1.0), ("fox", 0.25), ("a", 0.5))]
    assert token_times.average_times(times) == {"fox": (0.25, 1), "a": (0.75, 2)}
