"""Tests of the viewer's page in Chromium, without a network."""

import itertools
import os
import shutil

import pytest

from oneflow_jax.viewer import fonts, page
from tests.viewer import examples, test_data_report

sync_api = pytest.importorskip("playwright.sync_api", reason="pip install playwright")

FLAGS = ["--no-sandbox", "--disable-gpu", "--disable-background-networking"]
CURVES = {
    "text": [(step, 5.0 / (1 + step)) for step in range(100)],
    "held <out>": [(0, 4.0), (50, float("nan")), (90, 0.5)],
}


def find_chromium():
    """Return the path of Chromium; if it is not installed, skip the test, or fail it on CI."""
    path = os.environ.get("CHROMIUM") or shutil.which("chromium")
    if not path:
        reason = "no Chromium: install the package chromium, or set CHROMIUM to its path"
        (pytest.fail if os.environ.get("CI") else pytest.skip)(reason)
    return path


@pytest.fixture(scope="module")
def browser():
    path = find_chromium()
    with sync_api.sync_playwright() as playwright:
        started = playwright.chromium.launch(executable_path=path, args=FLAGS)
        yield started
        started.close()


@pytest.fixture(scope="module")
def page_url(tmp_path_factory):
    path = tmp_path_factory.mktemp("viewer") / "page.html"
    stories = [
        examples.make_masked_view(),
        examples.make_given_view(),
        examples.make_insertion_view(),
        examples.make_edit_view(),
    ]
    page.write(
        path,
        stories,
        CURVES,
        {"steps": "6"},
        "Four documents",
        ["An attribution"],
        baselines={"frequencies <alone>": 7.5},
    )
    return path.as_uri()


RECORD_STEPS = """
    window.steps = [];
    new MutationObserver((changes) => steps.push(changes.at(-1).target.value))
      .observe(document, {subtree: true, attributeFilter: ["aria-valuetext"]});
"""
"""Script that stores each step that the page shows, as strings in `steps`."""


@pytest.fixture
def opened(browser, page_url, request):
    """Open the page; at teardown, fail if there were console messages or network requests."""
    wishes = {"viewport": {"width": 1200, "height": 900}, **getattr(request, "param", {})}
    context = browser.new_context(offline=True, **wishes)
    tab = context.new_page()
    complaints, urls = [], []
    tab.on("console", lambda message: complaints.append(message.text))
    tab.on("pageerror", lambda error: complaints.append(str(error)))
    tab.on("request", lambda sent: urls.append(sent.url))
    tab.add_init_script(RECORD_STEPS)
    tab.goto(page_url)
    tab.wait_for_selector("body[data-ready]")
    yield tab
    context.close()
    assert complaints == []
    assert [url for url in urls if not url.startswith(("data:", page_url))] == []


@pytest.fixture
def tab(opened):
    """Open the page at its first step; choosing a step stops playback."""
    set_step(opened, 0)
    return opened


def read_spoken_text(tab, card=0):
    return tab.locator(".spoken").nth(card).text_content()


def read_pixels(tab, card=0):
    """Return the pixels of a card's first image from its canvas."""
    return tab.evaluate(
        """card => {
          const shown = document.querySelectorAll(".card")[card].querySelector("canvas");
          const {width, height} = shown;
          // A copy, because Chromium warns of reading the original often.
          const copy = new OffscreenCanvas(width, height);
          const context = copy.getContext("2d", {willReadFrequently: true});
          context.drawImage(shown, 0, 0);
          const rgba = context.getImageData(0, 0, width, height).data;
          return Array.from(rgba).filter((_, at) => at % 4 < 3);
        }""",
        card,
    )


def read_mask_opacities(tab, card=0):
    """Return the mask opacities of a card: one number for each token."""
    return tab.locator(".card").nth(card).locator(".ink").evaluate_all(
        "inks => inks.map(ink => 1 - getComputedStyle(ink).getPropertyValue('--shown'))"
    )  # fmt: skip


def read_step(tab):
    return int(tab.locator("#step").input_value())


def set_step(tab, step):
    tab.locator("#step").fill(str(step))


def test_page_opens_on_the_finished_documents_and_plays_once(opened):
    opened.evaluate("""() => new Promise((done) => {
      const waiting = setInterval(() => steps.length >= 8 && done(clearInterval(waiting)), 50);
    })""")
    sync_api.expect(opened.locator("#play")).to_have_attribute("aria-label", "Play")
    assert opened.evaluate("steps") == ["6", "0", "1", "2", "3", "4", "5", "6"]


def test_page_does_not_play_after_a_step_was_chosen(tab):
    assert tab.evaluate("show.timer === null && document.body.dataset.ready") == "yes"
    tab.wait_for_timeout(2_000)
    assert tab.evaluate("steps.at(-1)") == "0"
    assert read_step(tab) == 0


@pytest.mark.parametrize("opened", [{"reduced_motion": "reduce"}], indirect=True)
def test_page_does_not_play_if_motion_is_reduced(opened):
    assert read_step(opened) == examples.STEPS
    assert opened.evaluate("show.opening === null")


def test_legend_stays_in_sight_while_documents_scroll(tab):
    tab.set_viewport_size({"width": 1200, "height": 500})
    tab.locator(".card").last.scroll_into_view_if_needed()
    legend = tab.get_by_role("list", name="Colors of the documents")
    assert legend.bounding_box()["y"] >= 0
    assert "given" in legend.text_content()


def test_text_and_images_change_together(tab):
    view = examples.make_masked_view()
    words, pictures = [], []
    for at in range(examples.STEPS + 1):
        set_step(tab, at)
        words.append(read_mask_opacities(tab))
        pictures.append(read_pixels(tab))
        assert pictures[-1] == view.frames[at].images()[0].x_t.flatten().tolist()
    assert words[0] == [1, 1, 1]
    assert words[-1] == [0, 0, 0]
    for before, after in itertools.pairwise(words):
        assert all(b >= a for b, a in zip(before, after, strict=True))
        assert sum(before) > sum(after)
    assert read_spoken_text(tab) == "A red square"


def test_masked_tokens_are_hidden_from_screen_readers(tab):
    assert read_spoken_text(tab) == "▁ ▁ ▁"
    assert tab.locator(".card").first.locator(".masked").count() == 3
    set_step(tab, examples.STEPS)
    assert tab.locator(".card").first.locator(".masked").count() == 0


def test_keyboard(tab):
    for key, expected in (
        ("ArrowLeft", 0), ("ArrowRight", 1), ("ArrowRight", 2), ("ArrowLeft", 1), ("End", 6),
        ("ArrowRight", 6), ("Home", 0),
    ):  # fmt: skip
        tab.keyboard.press(key)
        assert read_step(tab) == expected, key
    readout = tab.locator("#readout").text_content()
    assert " ".join(readout.split()) == "step 0 of 6 · t = 0.00"


def test_play_reaches_the_end_and_space_pauses(tab):
    tab.locator("#speed").select_option("4")
    tab.locator("h1").click()
    tab.keyboard.press("Space")
    assert tab.locator("#play").get_attribute("aria-label") == "Pause"
    sync_api.expect(tab.locator("#step")).not_to_have_value("0")
    tab.keyboard.press("Space")
    paused = read_step(tab)
    tab.wait_for_timeout(400)
    assert read_step(tab) == paused
    tab.locator("#play").click()
    sync_api.expect(tab.locator("#step")).to_have_value("6")
    assert tab.locator("#play").get_attribute("aria-label") == "Play"
    assert read_spoken_text(tab) == "A red square"


def test_button_shows_the_x1_prediction(tab):
    frame = examples.make_masked_view().frames[1]
    set_step(tab, 1)
    tab.locator("#belief").click()
    assert read_pixels(tab) == frame.images()[0].x1_hat.flatten().tolist()
    assert read_spoken_text(tab) == "perhaps perhaps perhaps"
    tab.keyboard.press("b")
    assert read_pixels(tab) == frame.images()[0].x_t.flatten().tolist()


def test_given_parts_are_marked_and_never_change(tab):
    first = read_pixels(tab, card=1)
    assert tab.locator(".card").nth(1).locator("figcaption").text_content() == "given"
    assert tab.locator(".card").nth(1).locator(".word.given").text_content() == "Blue"
    set_step(tab, 3)
    assert read_pixels(tab, card=1) == first


def test_insertions_animate_tokens_and_images(tab):
    card = tab.locator(".card").nth(2)
    assert card.locator(".word").count() == 0
    tab.keyboard.press("ArrowRight")
    tab.evaluate("for (const w of document.querySelectorAll('.word')) w.known = true")
    tab.keyboard.press("ArrowRight")
    assert read_spoken_text(tab, 2) == "here now there"
    known = card.locator(".word").evaluate_all("words => words.map(word => !!word.known)")
    assert known == [True, False, True]
    assert card.locator(".word.fresh.entering").text_content() == " now"
    tab.keyboard.press("ArrowRight")
    assert card.locator(".picture.entering").count() == 1
    assert card.locator("figcaption").text_content() == "t 0.20"
    known = card.locator(".word").evaluate_all("words => words.map(word => !!word.known)")
    assert known == [True, False, True]
    assert card.locator(".document > *").evaluate_all("all => all.map(one => one.tagName)") == [
        "P", "FIGURE", "P",
    ]  # fmt: skip
    tab.keyboard.press("ArrowLeft")
    assert card.locator(".picture, .run").count() == 1
    assert card.locator(".entering").count() == 0


def test_edits_show_substitutions_and_deletions(tab):
    card = tab.locator(".card").nth(3)
    assert read_spoken_text(tab, 3) == "a cat too"
    assert card.locator(".fresh").count() == 0
    tab.keyboard.press("ArrowRight")
    assert read_spoken_text(tab, 3) == "a cow too"
    assert card.locator(".fresh").all_text_contents() == [" cow"]
    assert card.locator(".entering").count() == 0  # The new token replaces the old one in place.
    assert card.locator("figcaption").text_content() == "t 0.10"
    tab.keyboard.press("ArrowRight")
    assert read_spoken_text(tab, 3) == "a cow"
    assert card.locator(".fresh").count() == 0
    assert card.locator("figcaption").text_content() == "t 1.00"


def test_words_are_listed_by_their_times(tab):
    order = tab.locator("#order")
    assert order.is_visible()
    columns = order.locator(".columns > div")
    assert columns.count() == 10
    tokens_by_time = {
        columns.nth(n).locator("h3").text_content(): columns.nth(n)
        .locator("li")
        .all_text_contents()
        for n in range(10)
    }
    assert "cow" in tokens_by_time["0.9"]
    assert "<image>" in tokens_by_time["0.7"]  # The image is inserted at 0.75.
    assert {"here", "there"} <= set(tokens_by_time["0.2"])


def read_background_color(tab):
    return tab.evaluate("getComputedStyle(document.body).backgroundColor")


@pytest.mark.parametrize(
    "opened", [{"color_scheme": "light"}, {"color_scheme": "dark"}], indirect=True
)
def test_theme_follows_the_system_until_toggled(tab):
    system = tab.evaluate("matchMedia('(prefers-color-scheme: dark)').matches")
    light, dark = "rgb(245, 242, 234)", "rgb(20, 19, 17)"
    assert read_background_color(tab) == (dark if system else light)
    tab.locator("#theme").click()
    assert read_background_color(tab) == (light if system else dark)
    tab.keyboard.press("d")
    assert read_background_color(tab) == (dark if system else light)


@pytest.mark.parametrize("opened", [{"reduced_motion": "reduce"}], indirect=True)
def test_reduced_motion_has_no_animations(tab):
    tab.keyboard.press("ArrowRight")
    tab.keyboard.press("ArrowRight")
    assert tab.locator(".entering").count() == 0
    assert tab.evaluate("document.getAnimations().length") == 0


def test_images_have_alternative_text(tab):
    set_step(tab, examples.STEPS)
    picture = tab.get_by_role("img", name="Image at t 1.00 in: A red square")
    assert picture.count() == 1


def test_growing_document_does_not_move_the_page(tab):
    tops = [tab.locator("#learning").bounding_box()["y"]]
    for at in range(1, examples.STEPS + 1):
        set_step(tab, at)
        tops.append(tab.locator("#learning").bounding_box()["y"])
    assert max(tops) - min(tops) < 0.5


def test_page_with_a_single_document(tab):
    tab.get_by_role("button", name="Show edited alone").click()
    assert tab.locator(".card:visible h2").all_text_contents() == ["edited"]
    tab.keyboard.press("Escape")
    assert tab.locator(".card:visible").count() == 4


def test_curves(tab):
    lines = tab.locator("#chart .curve")
    assert lines.count() == 2
    assert lines.nth(1).get_attribute("d").count("M") == 2  # A missing value breaks the line.
    assert "NaN" not in tab.locator("#chart").inner_html()
    assert tab.locator("#chart .baseline").count() == 1
    assert "frequencies <alone>: 7.5" in tab.locator("#chart").text_content()
    before = lines.first.get_attribute("d")
    tab.locator("#log").click()
    assert lines.first.get_attribute("d") != before
    tab.locator("#chart").hover(position={"x": 60, "y": 100})
    legend = tab.locator("#legend-curves").text_content()
    assert "held <out>4 at step 0" in legend
    assert tab.locator("#chart .dot").count() == 2


@pytest.mark.parametrize("opened", [{"viewport": {"width": 360, "height": 740}}], indirect=True)
def test_phone_width_needs_no_horizontal_scrolling(tab):
    set_step(tab, examples.STEPS)
    assert tab.evaluate("document.documentElement.scrollWidth") <= 360


@pytest.mark.parametrize(("scheme", "colors"), [("light", fonts.LIGHT), ("dark", fonts.DARK)])
def test_the_data_report_has_the_color_scheme_of_the_browser(browser, tmp_path, scheme, colors):
    tab = browser.new_page(color_scheme=scheme)
    tab.goto(test_data_report.write_report(tmp_path).as_uri())
    style = tab.evaluate("({...getComputedStyle(document.body)})")
    assert [style["backgroundColor"], style["color"]] == [
        f"rgb{fonts.rgb(color)}" for color in (colors.background, colors.text)
    ]
    # The plot has a frame of the background, so it does not stand out.
    corner = tab.evaluate("""async () => {
        const plot = document.querySelector("img[alt^=Histograms]");
        await plot.decode();
        const canvas = document.createElement("canvas");
        canvas.getContext("2d").drawImage(plot, 0, 0);
        return [...canvas.getContext("2d").getImageData(0, 0, 1, 1).data].slice(0, 3);
    }""")
    assert tuple(corner) == fonts.rgb(colors.background)
    tab.close()
