import numpy as np
import pytest

from oneflow_jax import errors
from oneflow_jax.data import document, image_io, prompt


@pytest.fixture
def tiger(tmp_path):
    path = tmp_path / "my tiger.png"
    path.write_bytes(image_io.to_png(np.full((9, 9, 3), 77, np.uint8)))
    return path


def test_text_and_gaps_are_parsed():
    parsed = prompt.parse("  a picture of\n a tiger: <image> and <text:12><text>", 8)
    assert parsed.parts == (
        document.Text("a picture of a tiger:"),
        document.Gap("image"),
        document.Text("and"),
        document.Gap("text", 12),
        document.Gap("text"),
    )


def test_document_gap_is_parsed():
    parsed = prompt.parse("first <document>", 8)
    assert parsed.parts == (document.Text("first"), document.Gap("document"))
    assert prompt.format(parsed) == "first <document>"
    with pytest.raises(errors.UserError, match="<document:3>"):
        prompt.parse("<document:3>", 8)


def test_given_image_is_read_at_the_model_size(tiger):
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


def test_list_may_hold_images():
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
def test_wrong_count_is_reported(wrong):
    with pytest.raises(errors.UserError, match=wrong):
        prompt.parse(wrong, 8)


@pytest.mark.parametrize("wrong", ["", "   ", []])
def test_an_empty_prompt_is_refused(wrong):
    with pytest.raises(errors.UserError, match="empty"):
        prompt.parse(wrong, 8)


@pytest.mark.parametrize(
    ("wrong", "reason"), [("<image:no.png>", "no such file"), ("<image:>", "a folder, not a file")]
)
def test_missing_image_is_reported(wrong, reason):
    with pytest.raises(errors.UserError, match=reason):
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


ESCAPES = [
    (r"1 \< 2", "1 < 2"),
    (r"\<image>", "<image>"),
    (r"\<text:5> \<document>", "<text:5> <document>"),
    (r"a \\\<b", r"a \<b"),  # a backslash before a literal <
    (r"C:\new\table \\server \> x", r"C:\new\table \\server \> x"),  # no escape elsewhere
    (r"I \<3 you <3".replace(" <3", r" \<3"), "I <3 you <3"),
]


@pytest.mark.parametrize(("line", "text"), ESCAPES)
def test_an_escaped_bracket_is_literal(line, text):
    parsed = prompt.parse(f"{line} <image>", 8)
    assert parsed.parts == (document.Text(text), document.Gap("image"))
    assert prompt.format(parsed) == f"{line} <image>"


def test_backslashes_before_a_tag():
    assert prompt.parse(r"a\\<image>", 8).parts == (document.Text("a\\"), document.Gap("image"))
    assert prompt.parse(r"a\\\\<image>", 8).parts[0] == document.Text(r"a\\")


TEXTS = [
    "<",
    "\\",
    "\\<",
    "<\\",
    "<image>",
    r"\<image>",
    r"\\<text:5>",
    "a < b > c",
    "<<>>",
    "<unk> \\\\",
]


@pytest.mark.parametrize("text", TEXTS)
def test_any_text_is_printed_and_parsed_again(text):
    whole = document.Document((document.Text(text), document.Gap("image"), document.Text(text)))
    assert prompt.parse(prompt.format(whole), 8) == whole


def test_the_help_names_the_escape():
    with pytest.raises(errors.UserError, match=r"\\<"):
        prompt.parse("1 < 2", 8)


@pytest.mark.parametrize("wrong", ["<text:9999999999>", f"<text:{'9' * 5000}>", "<text:٣>"])
def test_impossible_count_is_refused(wrong):
    with pytest.raises(errors.UserError, match="<text:") as error:
        prompt.parse(wrong, 8)
    assert len(str(error.value)) < 300


@pytest.mark.parametrize(
    ("kind", "slots"),
    [("text", 0), ("text", -3), ("text", 2.5), ("text", True), ("image", 3), ("sound", None)],
)
def test_impossible_gap_is_refused(kind, slots):
    with pytest.raises(errors.UserError, match="Gap"):
        document.Gap(kind, slots)


@pytest.mark.parametrize(
    "several",
    [
        ["a lion: <image>", "a fox: <image>"],
        ("a lion: <image>", "a fox: <image>"),
        ["<text>", "<image>"],
        ["a lion:", "<image>", "a fox"],
    ],
)
def test_list_of_strings_is_refused(several):
    with pytest.raises(errors.UserError, match="generate_batch"):
        prompt.parse(several, 8)


def test_nested_lists_and_documents_suggest_generate_batch():
    for several in ([["a", "<image>"], ["b"]], [document.Document(()), document.Document(())]):
        with pytest.raises(errors.UserError, match="generate_batch"):
            prompt.parse(several, 8)


def test_an_image_gap_may_have_an_aspect_ratio():
    parsed = prompt.parse("a <image 3:2> b <image  4:6> <image 2:2>", 8)
    assert (parsed.parts[1], parsed.parts[3]) == tuple(
        document.Gap("image", aspect_ratio=ratio) for ratio in ("3:2", "2:3")
    )
    assert parsed.parts[-1] == document.Gap("image")
    assert prompt.format(parsed) == "a <image 3:2> b <image 2:3> <image>"
    for wrong in ("<image wide>", "<image 3>", "<image 3:0>"):
        with pytest.raises(errors.UserError, match=r"not WIDTH:HEIGHT"):
            prompt.parse(wrong, 8)
    with pytest.raises(errors.UserError, match=r"'<text 3:2>' is not a known tag"):
        prompt.parse("<text 3:2>", 8)


def test_given_images_are_cropped_to_the_nearest_size():
    sizes = ((8, 8), (6, 10))
    wide, square = (np.full((30, width, 3), 90, np.uint8) for width in (45, 30))
    first, second, _ = prompt.parse([wide, square, "<text>"], 8, sizes).parts
    assert first.pixels.shape == (6, 10, 3)
    assert second.pixels.shape == (8, 8, 3)
    assert (first.pixels == 90).all()
