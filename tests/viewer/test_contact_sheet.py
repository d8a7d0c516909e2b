import numpy as np
import pytest
from PIL import Image, ImageColor

from oneflow_jax.viewer import contact_sheet, fonts, trajectory
from tests.viewer import examples


def read_colors(path):
    """Return the set of colors of an image file."""
    return {color for _, color in Image.open(path).convert("RGB").getcolors(maxcolors=1 << 24)}


def test_contact_sheet_enlarges_by_an_integer_factor(tmp_path):
    path = tmp_path / "new" / "sheet.png"
    contact_sheet.write_contact_sheet(
        path, [(examples.make_square("red"), "", ""), (examples.make_square("blue"), "", "")], 2, ""
    )
    image = np.asarray(Image.open(path).convert("RGB"))
    for color in examples.COLORS.values():
        assert (image == color).all(
            -1
        ).sum() == 16 * 22**2  # 4x4 of 8x8 pixels, enlarged by 22 to a width of 176.


@pytest.mark.parametrize(("mark", "color"), contact_sheet.MARK_COLORS.items())
def test_caption_color_shows_right_or_wrong(tmp_path, mark, color):
    path = tmp_path / "sheet.png"
    contact_sheet.write_contact_sheet(path, [(examples.make_square("red"), "HHHH", mark)], 1, "")
    assert [
        c for c in contact_sheet.MARK_COLORS.values() if ImageColor.getrgb(c) in read_colors(path)
    ] == [color]


def test_long_captions_and_many_rows_fit(tmp_path):
    cells = [(examples.make_square("red"), "a caption of several lines " * i, "") for i in range(5)]
    path = tmp_path / "sheet.png"
    contact_sheet.write_contact_sheet(
        path, cells, 2, "A title that is longer than the sheet is wide " * 2
    )
    edge = np.asarray(Image.open(path).convert("RGB"))
    paper = ImageColor.getrgb(fonts.BACKGROUND_COLOR)
    for border in (edge[:8], edge[-8:], edge[:, :8], edge[:, -8:]):
        assert (border == paper).all()


def test_headers_are_above_the_first_row(tmp_path):
    cells = [(examples.make_square("red"), "", "")] * 2

    def first_red_row(headers):
        path = tmp_path / "sheet.png"
        contact_sheet.write_contact_sheet(path, cells, 2, "title", headers)
        image = np.asarray(Image.open(path).convert("RGB"))
        return np.flatnonzero((image == examples.COLORS["red"]).all(-1).any(1))[0]

    plain, one_line = first_red_row(()), first_red_row(("left", "right"))
    assert plain < one_line < first_red_row(("left", "a header of several words and lines"))
    assert ImageColor.getrgb(fonts.MUTED_COLOR) in read_colors(tmp_path / "sheet.png")


def test_filmstrip_shows_text_and_images_at_each_step(tmp_path):
    view = examples.make_masked_view()
    for at in (0, 2, -1):
        path = tmp_path / f"{at}.png"
        contact_sheet.write_filmstrip(path, view, [at])
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
        contact_sheet.write_filmstrip(
            tmp_path / "film.png", trajectory.TrajectoryView("", "", frames), [0]
        )
        return np.asarray(Image.open(tmp_path / "film.png"))

    # The texts are equally wide. Only the first has descenders, which must not show.
    np.testing.assert_array_equal(strip("pqpq"), strip("bdbd"))


def test_filmstrip_has_a_row_per_step_with_inserted_parts(tmp_path):
    view = examples.make_insertion_view()
    heights = []
    for steps in ([0], [0, 1, 3, -1]):
        contact_sheet.write_filmstrip(tmp_path / "film.png", view, steps)
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
    contact_sheet.write_filmstrip(tmp_path / "film.png", view, [0, 1])
    image = np.asarray(Image.open(tmp_path / "film.png").convert("RGB"))
    counts = {color: (image == examples.COLORS[color]).all(-1).sum() for color in ("red", "blue")}
    assert counts["red"] == 2 * counts["blue"] > 0
    lefts = {
        color: np.nonzero((image == examples.COLORS[color]).all(-1).any(0))[0].min()
        for color in counts
    }
    assert lefts["blue"] < lefts["red"]


def test_lines_break_before_words_and_never_inside():
    face = fonts.load_font("text", 20)
    pieces = ["one", " two", "three", " four"]
    width = face.getlength("one twothree") + 1
    broken = fonts.break_lines(pieces, face, width)
    assert [[index for index, _ in line] for line in broken] == [[0, 1, 2], [3]]
    assert broken[1][0][1] == -face.getlength(
        " "
    )  # The leading space is outside of the edge, so the word starts at the edge.
    narrow = fonts.break_lines(pieces, face, 5)
    assert [[index for index, _ in line] for line in narrow] == [[0], [1, 2], [3]]
