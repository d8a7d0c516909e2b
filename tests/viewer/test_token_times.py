"""When each word came."""

import numpy as np

from oneflow_jax.viewer import token_times, trajectory

NOISE = np.zeros((2, 2, 3), np.uint8)


def word(key, text, certainty=1.0, given=False):
    return trajectory.Word(key, text, certainty, given)


def told(*frames):
    clocks = np.linspace(0, 1, len(frames))
    return trajectory.Story(
        "1",
        "",
        tuple(trajectory.Frame(float(t), parts) for t, parts in zip(clocks, frames, strict=True)),
    )


def run(*words, key=-1):
    return trajectory.TextRun(key, tuple(words), 1.0)


def test_an_inserted_word_came_when_it_was_inserted_and_a_hidden_one_when_it_was_read():
    given = word(1, " see", given=True)
    one = told(
        (run(given, word(2, " fox", 0.1)),),
        (run(given, word(2, " fox", 0.4)),),
        (run(given, word(2, " fox", 0.8), word(3, " too")),),
        (run(given, word(2, " fox"), word(3, " too")),),
        (run(given, word(2, " fox"), word(3, " too")),),
    )
    assert token_times.arrivals(one) == [
        token_times.Arrival("fox", 0.5),
        token_times.Arrival("too", 0.5),
    ]


def test_a_word_that_changes_has_come_when_it_changes_no_more():
    one = told(
        (run(word(2, " cat")),), (run(word(2, " fox")),), (run(word(2, " fox", 0.2)),),
        (run(word(2, " fox")),), (run(word(2, " fox")),),
    )  # fmt: skip
    assert token_times.arrivals(one) == [token_times.Arrival("fox", 0.75)]


def test_a_word_that_is_never_certain_comes_at_the_end():
    one = told((run(word(2, " cat", 0.1)),), (run(word(2, " cat", 0.3)),))
    assert token_times.arrivals(one) == [token_times.Arrival("cat", 1.0)]


def test_a_word_of_pieces_has_come_with_its_last():
    one = told(
        (run(word(2, " go")),),
        (run(word(2, " go"), word(4, "lla")),),
        (run(word(2, " go"), word(3, "ri"), word(4, "lla"), word(5, "")),),
    )
    assert token_times.arrivals(one) == [token_times.Arrival("gorilla", 1.0)]


def test_only_pictures_that_were_born_have_come():
    def picture(key):
        return trajectory.Picture(key, NOISE, None, 0.5)

    one = told(
        (picture(9),),
        (picture(9), run(word(2, " a")), picture(10)),
        (picture(9), run(word(2, " a")), picture(10)),
    )
    assert token_times.arrivals(one) == [
        token_times.Arrival("a", 0.5),
        token_times.Arrival("<image>", 0.5),
    ]


def test_means_are_in_order_of_time():
    every = [token_times.Arrival(*one) for one in (("a", 1.0), ("fox", 0.25), ("a", 0.5))]
    assert token_times.mean_times(every) == {"fox": (0.25, 1), "a": (0.75, 2)}
