import numpy as np
import pytest

from oneflow_jax import errors
from oneflow_jax.data import document, pictures, prompt


@pytest.fixture
def tiger(tmp_path):
    path = tmp_path / "my tiger.png"
    path.write_bytes(pictures.to_png(np.full((9, 9, 3), 77, np.uint8)))
    return path


def test_words_and_gaps():
    parsed = prompt.parse("  a picture of\n a tiger: <image> and <text:12><text>", 8)
    assert parsed.parts == (
        document.Text("a picture of a tiger:"),
        document.Gap("image"),
        document.Text("and"),
        document.Gap("text", 12),
        document.Gap("text"),
    )


def test_a_gap_for_anything():
    parsed = prompt.parse("first <document>", 8)
    assert parsed.parts == (document.Text("first"), document.Gap("document"))
    assert prompt.format(parsed) == "first <document>"
    with pytest.raises(errors.UserError, match="<document:3>"):
        prompt.parse("<document:3>", 8)


def test_a_given_picture_is_read_at_the_size_of_the_model(tiger):
    parsed = prompt.parse(f"two: <image:{tiger}> and <text:2> <image>", 6)
    kinds = [type(part) for part in parsed.parts]
    assert kinds == [
        document.Text,
        document.Image,
        document.Text,
        document.Gap,
        document.Gap,
    ]
    np.testing.assert_array_equal(parsed.images()[0], np.full((6, 6, 3), 77))


def test_a_list_may_hold_pictures():
    picture = np.full((4, 4, 3), 5, np.uint8)
    parsed = prompt.parse(["this is", picture, "<text>"], 4)
    assert parsed.parts[0] == document.Text("this is")
    np.testing.assert_array_equal(parsed.parts[1].pixels, picture)
    assert parsed.parts[2] == document.Gap("text")


@pytest.mark.parametrize("wrong", ["1 < 2", "<images>", "<text", "a <b> c", "<Image>", "<<image>>"])
def test_a_stray_bracket_lists_the_tags(wrong):
    with pytest.raises(errors.UserError, match=r"<image:path/to\.png>.*<text:5>"):
        prompt.parse(wrong, 8)


@pytest.mark.parametrize("wrong", ["<text:0>", "<text:-1>", "<text:two>", "<text:>", "<text:1.5>"])
def test_a_wrong_count_is_named(wrong):
    with pytest.raises(errors.UserError, match=wrong):
        prompt.parse(wrong, 8)


@pytest.mark.parametrize("wrong", ["", "   ", []])
def test_an_empty_prompt_is_refused(wrong):
    with pytest.raises(errors.UserError, match="empty"):
        prompt.parse(wrong, 8)


@pytest.mark.parametrize("wrong", ["<image:no.png>", "<image:>"])
def test_a_missing_picture_is_named(wrong):
    with pytest.raises(errors.UserError, match="no such file"):
        prompt.parse(wrong, 8)


@pytest.mark.parametrize(
    "wrong", [np.zeros((4, 4)), np.zeros((4, 4, 4), np.uint8), np.zeros((0, 4, 3), np.uint8)]
)
def test_a_wrong_array_is_described(wrong):
    with pytest.raises(errors.UserError, match="uint8"):
        prompt.parse([wrong], 4)


def test_format_shows_every_part(tiger):
    line = "a <image> b <text:3> c <text>"
    assert prompt.format(prompt.parse(line, 8)) == line
    assert prompt.format(prompt.parse(f"<image:{tiger}>", 8)) == "<image:8x8>"
