import numpy as np
import pytest
from PIL import Image, ImageColor

from oneflow_jax.viewer import contact_sheet, fonts
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


def test_a_white_image_has_a_visible_edge(tmp_path):
    path = tmp_path / "sheet.png"
    white = np.full((8, 8, 3), 255, np.uint8)
    contact_sheet.write_contact_sheet(path, [(white, "", "")], 1, "")
    sheet = np.asarray(Image.open(path).convert("RGB")).astype(int)
    rows, columns = np.where((sheet == 255).all(-1))
    frame = [*sheet[rows.min() - 1, columns], *sheet[rows, columns.max() + 1]]
    assert {tuple(pixel) for pixel in frame} == {fonts.rgb(fonts.LINE_COLOR)}


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
