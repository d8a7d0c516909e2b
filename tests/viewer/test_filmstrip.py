"""Tests of film strips and animations."""

import numpy as np
from PIL import Image, ImageColor

from oneflow_jax.viewer import filmstrip, fonts, trajectory
from tests.viewer import examples
from tests.viewer.test_contact_sheet import read_colors


def test_filmstrip_shows_text_and_images_at_each_step(tmp_path):
    view = examples.make_masked_view()
    for at in (0, 2, -1):
        path = tmp_path / f"{at}.png"
        filmstrip.write_filmstrip(path, view, [at])
        colors = read_colors(path)
        frame = view.frames[at]
        assert set(map(tuple, frame.images()[0].x_t.reshape(-1, 3).tolist())) <= colors
        for word in frame.tokens():
            assert (
                fonts.mix_colors(fonts.MASK_COLOR, fonts.BACKGROUND_COLOR, word.opacity()) in colors
            )
        assert (ImageColor.getrgb(fonts.MASK_COLOR) in colors) == (at == 0)


def test_masked_token_hides_its_text(tmp_path):
    def strip(text):
        words = (trajectory.TokenView(0, text, 0.0),)
        frames = (trajectory.Frame(0.0, (trajectory.TextSpan(0, words, 0.0),)),)
        filmstrip.write_filmstrip(
            tmp_path / "film.png", trajectory.TrajectoryView("", "", frames), [0]
        )
        return np.asarray(Image.open(tmp_path / "film.png"))

    # The texts are equally wide. Only the first has descenders, which must not show.
    np.testing.assert_array_equal(strip("pqpq"), strip("bdbd"))


def test_filmstrip_has_a_row_per_step_with_inserted_parts(tmp_path):
    view = examples.make_insertion_view()
    heights = []
    for steps in ([0], [0, 1, 3, -1]):
        filmstrip.write_filmstrip(tmp_path / "film.png", view, steps)
        heights.append(Image.open(tmp_path / "film.png").height)
    assert heights[1] > 3 * heights[0]
    assert examples.COLORS["red"] in read_colors(tmp_path / "film.png")


def test_filmstrip_draws_an_image_inserted_before_another_beside_it(tmp_path):
    red, blue = (
        trajectory.ImageView(key, examples.make_square(color), None, 1.0)
        for key, color in ((1, "red"), (2, "blue"))
    )
    frames = (trajectory.Frame(0.5, (red,)), trajectory.Frame(1.0, (blue, red)))
    view = trajectory.TrajectoryView("", "", frames)
    filmstrip.write_filmstrip(tmp_path / "film.png", view, [0, 1])
    image = np.asarray(Image.open(tmp_path / "film.png").convert("RGB"))
    counts = {color: (image == examples.COLORS[color]).all(-1).sum() for color in ("red", "blue")}
    assert counts["red"] == 2 * counts["blue"] > 0
    lefts = {
        color: np.nonzero((image == examples.COLORS[color]).all(-1).any(0))[0].min()
        for color in counts
    }
    assert lefts["blue"] < lefts["red"]


def test_a_high_image_is_drawn_whole(tmp_path):
    high = np.zeros((30, 10, 3), np.uint8)
    high[-1] = examples.COLORS["red"]
    frame = trajectory.Frame(1.0, (trajectory.ImageView(1, high, None, 1.0),))
    filmstrip.write_filmstrip(
        tmp_path / "film.png", trajectory.TrajectoryView("", "", (frame,)), [0]
    )
    assert examples.COLORS["red"] in read_colors(tmp_path / "film.png")
    (drawn,) = filmstrip.draw_frames([frame])
    assert examples.COLORS["red"] in {color for _, color in drawn.getcolors(2**20)}


def test_wide_images_are_drawn_beside_each_other(tmp_path):
    """Draw images of 149 x 60 pixels, which are enlarged to 298 x 120 pixels."""
    parts = tuple(
        trajectory.ImageView(
            key, np.full((60, 149, 3), examples.COLORS[color], np.uint8), None, 1.0
        )
        for key, color in enumerate(("red", "blue"))
    )
    frame = trajectory.Frame(1.0, parts)
    filmstrip.write_filmstrip(
        tmp_path / "film.png", trajectory.TrajectoryView("", "", (frame,)), [0]
    )
    for drawn in (Image.open(tmp_path / "film.png"), *filmstrip.draw_frames([frame])):
        image = np.asarray(drawn.convert("RGB"))
        for color in ("red", "blue"):
            assert (image == examples.COLORS[color]).all(-1).sum() == 298 * 120
