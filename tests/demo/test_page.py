"""Tests of the demo's page in Chromium: writing, generating, playing, saving, revising."""

import io
import json
import re
import zipfile

import PIL.Image
import pytest

from oneflow_jax.demo import server
from oneflow_jax.viewer import trajectory
from tests.demo.conftest import open_tab, serve
from tests.viewer import examples

sync_api = pytest.importorskip("playwright.sync_api", reason="pip install playwright")
expect = sync_api.expect

UNKNOWN = (
    "The model probably does not know the word 'redd'. The nearest known word to 'redd' is 'red'."
)
"""The warning of `fake_service` in the words of the page."""

RED_PNG = PIL.Image.fromarray(examples.make_square("red", 32))


def png(image=RED_PNG):
    file = io.BytesIO()
    image.save(file, "PNG")
    return file.getvalue()


def editor(tab):
    return tab.get_by_role("textbox", name="Document", exact=True)


def button(tab, name):
    return tab.get_by_role("button", name=name, exact=True)


def generate(tab):
    button(tab, "Generate").click()


def wait_until_finished(tab, count=4):
    expect(tab.locator("#outcome")).to_contain_text("NFE 6")
    expect(tab.locator(".card-actions")).to_have_count(count)


def read_gaps(tab):
    return tab.locator("#editor .gap").all_text_contents()


def last_request(fake):
    """Return the parts of the newest prompt, and its options."""
    prompt, options = fake.models[fake.default_model].calls[-1]
    return prompt.parts, options


def test_a_finished_example_is_there_when_the_page_opens(tab):
    wait_until_finished(tab)
    expect(tab.locator("#origin")).to_contain_text("Example, made by the model shipped")
    assert tab.locator(".card h2").all_text_contents() == [f"Document {n}" for n in range(1, 5)]
    expect(tab.locator("#step")).to_have_value("6")  # It plays without a click.
    assert tab.locator(".spoken").first.text_content() == "A red square"


def test_the_example_is_generated_only_once(browser, fake, address, tab):
    wait_until_finished(tab)
    other, complaints = open_tab(browser, address)
    wait_until_finished(other)
    other.context.close()
    assert complaints == []
    assert len(fake.models["shipped"].calls) == 2  # The other one compiles programs.


def test_four_documents_are_generated_and_played(tab, fake):
    wait_until_finished(tab)
    editor(tab).fill("a fox ")
    button(tab, "+ image").click()
    generate(tab)
    wait_until_finished(tab)
    parts, options = last_request(fake)
    assert [str(part) for part in parts] == ["a fox", "<image>"]
    assert options["seed"] == 0
    expect(tab.locator("#step")).to_have_value("6")
    expect(tab.locator("#origin")).to_contain_text("Model shipped, seed 0, 6 steps: a fox image")


def test_states_are_drawn_as_they_arrive(tab, fake):
    wait_until_finished(tab)
    fake.gate.clear()
    generate(tab)
    expect(tab.locator("#status")).to_have_text("Generating text and images ...")
    expect(tab.locator(".card .masked")).to_have_count(6)  # Of two of the four documents.
    assert tab.locator("#bar").get_attribute("max") == "6"
    assert tab.locator(".card-actions").count() == 0
    fake.gate.set()
    wait_until_finished(tab)
    assert tab.locator("#progress").is_hidden()


def test_stop_cancels_the_request(tab, fake):
    wait_until_finished(tab)
    fake.gate.clear()
    generate(tab)
    expect(tab.locator("#status")).to_have_text("Generating text and images ...")
    button(tab, "Stop").click()
    expect(button(tab, "Generate")).to_be_visible()
    fake.gate.set()
    tab.wait_for_timeout(200)
    assert tab.locator("#problem").text_content() == ""
    assert len(fake.cancelled) == 1


def test_the_same_request_again_gets_a_new_seed(tab, fake):
    wait_until_finished(tab)
    for _ in range(2):
        generate(tab)
        wait_until_finished(tab)
    assert last_request(fake)[1]["seed"] == int(tab.locator("#seed").input_value()) != 0


def test_typed_tags_become_boxes(tab, fake):
    editor(tab).fill("")
    editor(tab).press_sequentially("1 < 2 <text:3> and <image 3:2>.")
    assert read_gaps(tab) == ["text, 3 tokens", "image 3:2"]
    generate(tab)
    wait_until_finished(tab)
    assert [str(part) for part in last_request(fake)[0]] == [
        "1 < 2",
        "<text:3>",
        "and",
        "<image 3:2>",
        ".",
    ]


def test_a_button_inserts_an_image_of_each_aspect_ratio(tab):
    editor(tab).fill("")
    button(tab, "+ image 3:2").click()
    assert read_gaps(tab) == ["image 3:2"]
    assert button(tab, "+ image 1:1").count() == 0


def test_several_tags_at_once_become_boxes(tab, fake):
    wait_until_finished(tab)
    editor(tab).fill("<text> <image>, then <text:2> en")
    editor(tab).press_sequentially("d")  # The caret is still behind the text.
    assert read_gaps(tab) == ["text", "image", "text, 2 tokens"]
    generate(tab)
    wait_until_finished(tab)
    parts = [str(part) for part in last_request(fake)[0]]
    assert parts == ["<text>", "<image>", ", then", "<text:2>", "end"]


def test_names_are_found_and_inserted(tab):
    editor(tab).fill("")
    names = tab.locator("#name-list button:visible")
    assert names.all_text_contents() == ["tiger ", "fox ", "red apple "]
    tab.get_by_role("searchbox", name="The model knows these names").fill("app")
    assert names.all_text_contents() == ["red apple "]
    expect(tab.locator("#name-count")).to_have_text("1 of 3")
    tab.keyboard.press("Enter")
    assert "red apple" in editor(tab).text_content()
    assert read_gaps(tab) == ["image"]  # A name alone would be no prompt.


def test_arrow_keys_move_among_the_names(tab):
    button(tab, "tiger").focus()
    for key, name in (("ArrowRight", "fox "), ("ArrowDown", "red apple "), ("ArrowUp", "fox ")):
        tab.keyboard.press(key)
        assert tab.evaluate("document.activeElement.textContent") == name


def test_prompts_of_the_run_are_starting_points(tab):
    tab.locator("#start-list button").nth(1).click()
    assert read_gaps(tab) == ["image", "text", "image"]
    assert editor(tab).text_content().startswith("first a fox")


def drop_file(tab, kind):
    """Drop or paste a PNG on the editor."""
    tab.evaluate(
        """async ([kind, bytes]) => {
          const files = new DataTransfer();
          files.items.add(new File([new Uint8Array(bytes)], "mine.png", {type: "image/png"}));
          const options = {bubbles: true, cancelable: true};
          const event = kind === "drop" ? new DragEvent("drop", {...options, dataTransfer: files})
            : new ClipboardEvent("paste", {...options, clipboardData: files});
          document.getElementById("editor").dispatchEvent(event);
        }""",
        [kind, list(png())],
    )


@pytest.mark.parametrize("kind", ["drop", "paste", "choose"])
def test_images_insert_themselves_as_thumbnails(tab, fake, kind):
    wait_until_finished(tab)
    editor(tab).fill("look: ")
    if kind == "choose":
        file = {"name": "mine.png", "mimeType": "image/png", "buffer": png()}
        tab.locator("#files").set_input_files(file)
    else:
        drop_file(tab, kind)
    thumbnail = tab.locator("#editor img")
    expect(thumbnail).to_have_attribute("alt", "your image mine.png")
    button(tab, "+ text").click()
    generate(tab)
    wait_until_finished(tab)
    words, image, gap = last_request(fake)[0]
    assert (words, str(gap)) == ("look:", "<text>")
    assert image.convert("RGB").tobytes() == RED_PNG.tobytes()


def test_a_file_that_is_no_image_is_reported(tab):
    file = {"name": "notes.png", "mimeType": "image/png", "buffer": b"words"}
    tab.locator("#files").set_input_files(file)
    expect(tab.get_by_role("alert").first).to_have_text(
        "notes.png cannot be read as an image. Use a PNG, JPEG or WebP file."
    )


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "The document is empty. Write text, and add a gap"),
        ("a red fox", "The document has no gap. Add one with “+ image” or “+ text”"),
        ("<document>", "Replace the box “any parts”"),
    ],
)
def test_mistakes_are_explained_in_the_words_of_the_page(tab, text, message):
    wait_until_finished(tab)
    editor(tab).fill("")
    editor(tab).press_sequentially(text)
    generate(tab)
    expect(tab.locator("#problem")).to_contain_text(message)
    button(tab, "+ image").click()
    editor(tab).fill("a fox <image>")
    generate(tab)
    expect(tab.locator("#problem")).to_be_empty()
    wait_until_finished(tab)


def test_errors_of_the_server_are_shown(browser, address):
    tab, complaints = open_tab(browser, address)
    wait_until_finished(tab)
    editor(tab).fill("a long fox <image>")
    generate(tab)
    expect(tab.locator("#problem")).to_have_text(
        "The document is too long for this model. Remove some text or images."
    )
    tab.locator("#seed").fill("13")
    editor(tab).fill("a fox <image>")
    generate(tab)
    expect(tab.locator("#problem")).to_have_text("The batch failed.")
    tab.context.close()
    # Chromium itself reports the status of the first answer.
    assert [text for text in complaints if "status of 400" not in text] == []


def test_a_refused_request_keeps_the_lines_above_the_earlier_documents(browser, address):
    tab, _ = open_tab(browser, address)  # Chromium reports the status of the answer.
    wait_until_finished(tab)
    editor(tab).fill("a long fox <image>")
    generate(tab)
    expect(tab.locator("#problem")).to_contain_text("too long")
    expect(tab.locator("#origin")).to_contain_text("Example, made by the model shipped")
    expect(tab.locator("#outcome")).to_contain_text("NFE 6")
    tab.context.close()


def test_a_message_disappears_when_the_document_changes(tab):
    wait_until_finished(tab)
    editor(tab).fill("a red fox")
    generate(tab)
    expect(tab.locator("#problem")).to_contain_text("The document has no gap")
    button(tab, "+ image").click()
    expect(tab.locator("#problem")).to_be_empty()


def test_unknown_words_are_named_while_typing(tab, fake):
    wait_until_finished(tab)
    editor(tab).fill("redd <image>")
    expect(tab.locator("#advice")).to_have_text(UNKNOWN)
    editor(tab).fill("red <image>")
    expect(tab.locator("#advice")).to_be_empty()
    assert len(fake.models["shipped"].calls) == 2  # Only the example was generated.


def test_unknown_words_are_named_before_sampling(tab, fake):
    wait_until_finished(tab)
    fake.gate.clear()
    editor(tab).fill("redd <image>")
    generate(tab)
    expect(tab.locator("#outcome")).to_have_text(UNKNOWN)
    expect(tab.locator("#advice")).to_be_empty()
    fake.gate.set()
    wait_until_finished(tab)
    expect(tab.locator("#outcome")).to_contain_text(UNKNOWN)


def save(tab, name):
    """Save the first document; return the name and the bytes of the file."""
    with tab.expect_download() as download:
        tab.get_by_role("group", name="Save Document 1").get_by_role("button", name=name).click()
    return download.value.suggested_filename, download.value.path().read_bytes()


def test_documents_are_saved(tab):
    wait_until_finished(tab)
    name, content = save(tab, "PNG")
    assert name == "text_image.png"
    assert PIL.Image.open(io.BytesIO(content)).width == 720
    assert PIL.Image.open(io.BytesIO(save(tab, "GIF")[1])).n_frames == 7
    assert zipfile.ZipFile(io.BytesIO(save(tab, "MD")[1])).namelist() == [
        "document.md", "document_images/1.png",
    ]  # fmt: skip
    content = save(tab, "HTML")[1].decode()
    stories = json.loads(re.search(r'id="data">(.*?)</script>', content)[1])["stories"]
    assert len(stories[0]["frames"]) == 7
    expect(tab.locator("#notice")).to_have_text("Document 1 was saved as HTML.")


def test_a_video_is_recorded(tab):
    wait_until_finished(tab)
    name, content = save(tab, re.compile("MP4|WebM"))
    if name.endswith(".mp4"):
        assert content[4:8] == b"ftyp"
    else:
        assert content[:4] == b"\x1aE\xdf\xa3"
    assert len(content) > 1_000


@pytest.mark.parametrize(
    "tab", [{"permissions": ["clipboard-read", "clipboard-write"]}], indirect=True
)
def test_a_link_shares_prompt_and_seed(tab, fake, browser, address):
    wait_until_finished(tab)
    editor(tab).fill("50 % <b> & a fox <image>")
    tab.locator("#seed").fill("7")
    tab.locator("#steps").fill("3")
    button(tab, "Copy link").click()
    expect(tab.locator("#notice")).to_contain_text("was copied")
    link = tab.evaluate("navigator.clipboard.readText()")
    other, complaints = open_tab(browser, address)
    for first in ("about:blank", address):  # A link opens in a new tab, or in one with the page.
        other.goto(first)
        other.goto(link)
        expect(other.locator("#origin")).to_contain_text("seed 7, 3 steps: 50 % <b> & a fox image")
        wait_until_finished(other)
        parts, options = last_request(fake)
        assert [str(part) for part in parts] == ["50 % <b> & a fox", "<image>"]
        assert (options["seed"], options["steps"]) == (7, 3)
    assert complaints == []


def test_a_document_is_edited_in_place_and_revised(tab, fake):
    wait_until_finished(tab)
    button(tab, "Edit").first.click()
    box = tab.get_by_role("textbox", name="Text and images of Document 1")
    expect(box).to_contain_text("A red square")
    assert box.locator("img").count() == 1
    box.press("Home")
    box.press_sequentially("look, ")
    tab.get_by_label("The model may change").fill("50")
    button(tab, "Revise").click()
    expect(tab.locator(".card h2").first).to_have_text("Document 1, revised")
    expect(tab.locator(".card-actions")).to_have_count(4)
    parts, options = last_request(fake)
    assert parts[0] == "look, A red square"
    assert options["start"] == 0.5
    expect(tab.locator("#outcome")).to_contain_text(
        "Changes: cat → cow, deleted too, inserted here."
    )
    assert tab.locator(".card").count() == 4


def test_a_document_to_revise_has_no_gaps(tab):
    wait_until_finished(tab)
    button(tab, "Edit").first.click()
    tab.get_by_role("textbox", name="Text and images of Document 1").press_sequentially("<image>")
    button(tab, "Revise").click()
    expect(tab.locator(".revision .problem")).to_contain_text("Remove the boxes")
    tab.keyboard.press("Escape")
    expect(tab.locator(".revision")).to_have_count(0)


def test_another_model_is_chosen_by_name(tab, fake):
    wait_until_finished(tab)
    tab.get_by_label("Model", exact=True).select_option("plain")
    expect(tab.locator("#progress")).to_be_hidden()
    generate(tab)
    wait_until_finished(tab)
    assert len(fake.models["plain"].calls) == 1
    assert button(tab, "Edit").count() == 0  # This model cannot edit.


def test_keyboard(tab, fake):
    wait_until_finished(tab)
    editor(tab).fill("a fox <image>")
    editor(tab).press("ArrowLeft")
    editor(tab).press("Space")  # Typing does not play.
    editor(tab).press("Control+Enter")
    expect(tab.locator("#origin")).to_contain_text("Model shipped")
    wait_until_finished(tab)
    tab.locator("h1").click()
    tab.keyboard.press("Home")
    expect(tab.locator("#step")).to_have_value("0")


@pytest.mark.parametrize("tab", [{"reduced_motion": "reduce"}], indirect=True)
def test_reduced_motion_shows_finished_documents(tab):
    wait_until_finished(tab)
    expect(tab.locator("#step")).to_have_value("6")
    assert tab.locator("#play").get_attribute("aria-label") == "Play"


def test_a_phone_shows_the_example_without_scrolling(browser, address):
    tab, complaints = open_tab(browser, address, reduced_motion="reduce")
    wait_until_finished(tab)
    summary = tab.get_by_text("Known names and settings")
    expect(summary).to_be_hidden()
    expect(tab.locator("#seed")).to_be_visible()
    tab.set_viewport_size({"width": 390, "height": 844})
    expect(tab.locator("#seed")).to_be_hidden()
    controls = tab.locator(".transport").bounding_box()["y"]
    assert tab.locator(".card").first.bounding_box()["y"] < controls
    summary.click()
    expect(tab.locator("#seed")).to_be_visible()
    tab.context.close()
    assert complaints == []


def test_a_phone_scrolls_to_the_result(browser, address):
    tab, complaints = open_tab(browser, address, reduced_motion="reduce")
    tab.set_viewport_size({"width": 390, "height": 844})
    wait_until_finished(tab)
    assert tab.evaluate("document.documentElement.scrollWidth") <= 390
    editor(tab).scroll_into_view_if_needed()
    generate(tab)
    wait_until_finished(tab)
    top = tab.locator("#results").bounding_box()["y"]
    assert 0 <= top < 100
    tab.context.close()
    assert complaints == []


def test_a_touch_screen_shows_whole_seeds_and_one_row_of_buttons(browser, address):
    tab, complaints = open_tab(browser, address, reduced_motion="reduce", has_touch=True)
    tab.set_viewport_size({"width": 390, "height": 844})
    wait_until_finished(tab)
    assert tab.evaluate("matchMedia('(pointer: coarse)').matches")
    rows = tab.locator(".card-actions").first.get_by_role("button").all()
    assert len({row.bounding_box()["y"] for row in rows}) == 1
    tab.get_by_text("Known names and settings").click()
    tab.locator("#seed").fill("2147483647")
    assert tab.locator("#seed").evaluate("field => field.scrollWidth <= field.clientWidth")
    tab.context.close()
    assert complaints == []


@pytest.mark.parametrize("wishes", [{}, {"color_scheme": "dark"}])
@pytest.mark.parametrize("width", [1280, 390])
def test_axe_finds_nothing(browser, address, width, wishes):
    axe = pytest.importorskip("axe_playwright_python.sync_playwright")
    tab, _ = open_tab(browser, address, reduced_motion="reduce", **wishes)
    tab.set_viewport_size({"width": width, "height": 844})
    wait_until_finished(tab)
    button(tab, "Edit").first.click()
    assert axe.Axe().run(tab).response["violations"] == []
    tab.context.close()


def test_tokens_are_as_opaque_as_in_the_viewer(tab):
    limits = tab.evaluate("[TRANSPARENT, OPAQUE]")
    assert limits == [trajectory.TRANSPARENT_CONFIDENCE, trajectory.OPAQUE_CONFIDENCE]


def test_prompts_are_split_and_escaped_as_in_python(tab):
    from oneflow_jax.data import prompt as prompts

    for text in ("a < b", r"a \< b", "tail \\", r"\\<image>", r"\<text> and <text:3>"):
        escaped = tab.evaluate("escapePrompt", text)
        assert escaped == prompts.escape(text)
        assert tab.evaluate("splitPrompt", escaped) == [{"text": text.strip()}]
    text = r"a \<b <image> c <image 3:2> d \\<text:2>"
    expected = [str(part) for part in prompts.split(text)]
    parts = tab.evaluate("splitPrompt", text)
    assert [part.get("text") or part["gap"] for part in parts] == expected


def test_the_page_says_that_the_server_has_stopped(browser, fake):
    with serve(server.make_app(fake)) as address:
        tab, _ = open_tab(browser, address)
        wait_until_finished(tab)
    generate(tab)
    expect(tab.locator("#problem")).to_contain_text("The server does not answer.")
    tab.context.close()
