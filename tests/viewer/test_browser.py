"""The page in a real Chromium, without a network."""

import itertools
import os
import shutil

import pytest

from oneflow_jax.viewer import page
from tests.viewer import examples

sync_api = pytest.importorskip("playwright.sync_api", reason="pip install playwright")

FLAGS = ["--no-sandbox", "--disable-gpu", "--disable-background-networking"]
CURVES = {
    "text": [(step, 5.0 / (1 + step)) for step in range(100)],
    "held <out>": [(0, 4.0), (50, float("nan")), (90, 0.5)],
}


def chromium():
    """The path of a Chromium; without one the test is skipped, on CI it fails."""
    found = os.environ.get("CHROMIUM") or shutil.which("chromium")
    if not found:
        reason = "no Chromium: install the package chromium, or set CHROMIUM to its path"
        (pytest.fail if os.environ.get("CI") else pytest.skip)(reason)
    return found


@pytest.fixture(scope="module")
def browser():
    path = chromium()
    with sync_api.sync_playwright() as playwright:
        started = playwright.chromium.launch(executable_path=path, args=FLAGS)
        yield started
        started.close()


@pytest.fixture(scope="module")
def address(tmp_path_factory):
    path = tmp_path_factory.mktemp("viewer") / "page.html"
    stories = [
        examples.masked_story(),
        examples.given_story(),
        examples.edited_story(),
        examples.revised_story(),
    ]
    page.write(path, stories, CURVES, {"steps": "6"}, "Four documents", ["An attribution"])
    return path.as_uri()


@pytest.fixture
def opened(browser, address, request):
    """The page, ready; anything it complains about or asks for fails the test when it is done."""
    wishes = {"viewport": {"width": 1200, "height": 900}, **getattr(request, "param", {})}
    context = browser.new_context(offline=True, **wishes)
    tab = context.new_page()
    complaints, asked = [], []
    tab.on("console", lambda message: complaints.append(message.text))
    tab.on("pageerror", lambda error: complaints.append(str(error)))
    tab.on("request", lambda sent: asked.append(sent.url))
    tab.goto(address)
    tab.wait_for_selector("body[data-ready]")
    yield tab
    context.close()
    assert complaints == []
    assert [url for url in asked if not url.startswith(("data:", address))] == []


def spoken(tab, card=0):
    return tab.locator(".spoken").nth(card).text_content()


def pixels(tab, card=0):
    """The pixels of a card's first picture, as the browser holds them."""
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


def blocks(tab, card=0):
    """How opaque the masks of a card's words are."""
    return tab.locator(".card").nth(card).locator(".ink").evaluate_all(
        "inks => inks.map(ink => 1 - getComputedStyle(ink).getPropertyValue('--shown'))"
    )  # fmt: skip


def step(tab):
    return int(tab.locator("#step").input_value())


def drag(tab, to):
    tab.locator("#step").fill(str(to))


def test_words_and_pictures_change_at_the_same_time(opened):
    told = examples.masked_story()
    words, pictures = [], []
    for at in range(examples.STEPS + 1):
        drag(opened, at)
        words.append(blocks(opened))
        pictures.append(pixels(opened))
        assert pictures[-1] == told.frames[at].pictures()[0].state.flatten().tolist()
    assert words[0] == [1, 1, 1]
    assert words[-1] == [0, 0, 0]
    for before, after in itertools.pairwise(words):
        assert all(b >= a for b, a in zip(before, after, strict=True))
        assert sum(before) > sum(after)
    assert spoken(opened) == "A red square"


def test_masked_words_are_not_read_out(opened):
    assert spoken(opened) == "▁ ▁ ▁"
    assert opened.locator(".card").first.locator(".masked").count() == 3
    drag(opened, examples.STEPS)
    assert opened.locator(".card").first.locator(".masked").count() == 0


def test_keyboard(opened):
    for key, expected in (
        ("ArrowLeft", 0), ("ArrowRight", 1), ("ArrowRight", 2), ("ArrowLeft", 1), ("End", 6),
        ("ArrowRight", 6), ("Home", 0),
    ):  # fmt: skip
        opened.keyboard.press(key)
        assert step(opened) == expected, key
    readout = opened.locator("#readout").text_content()
    assert " ".join(readout.split()) == "step 0 of 6 · t = 0.00"


def test_play_reaches_the_end_and_space_pauses(opened):
    opened.locator("#speed").select_option("4")
    opened.locator("h1").click()
    opened.keyboard.press("Space")
    assert opened.locator("#play").get_attribute("aria-label") == "Pause"
    sync_api.expect(opened.locator("#step")).not_to_have_value("0")
    opened.keyboard.press("Space")
    paused = step(opened)
    opened.wait_for_timeout(400)
    assert step(opened) == paused
    opened.locator("#play").click()
    sync_api.expect(opened.locator("#step")).to_have_value("6")
    assert opened.locator("#play").get_attribute("aria-label") == "Play"
    assert spoken(opened) == "A red square"


def test_belief_shows_the_guess(opened):
    frame = examples.masked_story().frames[1]
    drag(opened, 1)
    opened.locator("#belief").click()
    assert pixels(opened) == frame.pictures()[0].guess.flatten().tolist()
    assert spoken(opened) == "perhaps perhaps perhaps"
    opened.keyboard.press("b")
    assert pixels(opened) == frame.pictures()[0].state.flatten().tolist()


def test_what_is_given_is_marked_and_never_changes(opened):
    first = pixels(opened, card=1)
    assert opened.locator(".card").nth(1).locator("figcaption").text_content() == "given"
    assert opened.locator(".card").nth(1).locator(".word.given").text_content() == "Blue"
    drag(opened, 3)
    assert pixels(opened, card=1) == first


def test_insertions_push_words_apart_and_open_pictures(opened):
    card = opened.locator(".card").nth(2)
    assert card.locator(".word").count() == 0
    opened.keyboard.press("ArrowRight")
    opened.evaluate("for (const w of document.querySelectorAll('.word')) w.known = true")
    opened.keyboard.press("ArrowRight")
    assert spoken(opened, 2) == "here now there"
    known = card.locator(".word").evaluate_all("words => words.map(word => !!word.known)")
    assert known == [True, False, True]
    assert card.locator(".word.fresh.entering").text_content() == " now"
    opened.keyboard.press("ArrowRight")
    assert card.locator(".picture.entering").count() == 1
    assert card.locator("figcaption").text_content() == "t 0.20"
    known = card.locator(".word").evaluate_all("words => words.map(word => !!word.known)")
    assert known == [True, False, True]
    assert card.locator(".document > *").evaluate_all("all => all.map(one => one.tagName)") == [
        "P", "FIGURE", "P",
    ]  # fmt: skip
    opened.keyboard.press("ArrowLeft")
    assert card.locator(".picture, .run").count() == 1
    assert card.locator(".entering").count() == 0


def test_revision_shows_what_changes_and_takes_out_what_goes(opened):
    card = opened.locator(".card").nth(3)
    assert spoken(opened, 3) == "a cat too"
    assert card.locator(".fresh").count() == 0
    opened.keyboard.press("ArrowRight")
    assert spoken(opened, 3) == "a cow too"
    assert card.locator(".fresh").all_text_contents() == [" cow"]
    assert card.locator(".entering").count() == 0  # It stands where the other stood.
    assert card.locator("figcaption").text_content() == "t 0.10"
    opened.keyboard.press("ArrowRight")
    assert spoken(opened, 3) == "a cow"
    assert card.locator(".fresh").count() == 0
    assert card.locator("figcaption").text_content() == "t 1.00"


def test_which_words_come_first_stands_under_their_times(opened):
    order = opened.locator("#order")
    assert order.is_visible()
    columns = order.locator(".columns > div")
    assert columns.count() == 10
    found = {
        columns.nth(n).locator("h3").text_content(): columns.nth(n)
        .locator("li")
        .all_text_contents()
        for n in range(10)
    }
    assert "cow" in found["0.9"]
    assert "<image>" in found["0.7"]  # Born at 0.75.
    assert {"here", "there"} <= set(found["0.2"])


def background(tab):
    return tab.evaluate("getComputedStyle(document.body).backgroundColor")


@pytest.mark.parametrize(
    "opened", [{"color_scheme": "light"}, {"color_scheme": "dark"}], indirect=True
)
def test_theme_follows_the_system_until_toggled(opened):
    system = opened.evaluate("matchMedia('(prefers-color-scheme: dark)').matches")
    light, dark = "rgb(245, 242, 234)", "rgb(20, 19, 17)"
    assert background(opened) == (dark if system else light)
    opened.locator("#theme").click()
    assert background(opened) == (light if system else dark)
    opened.keyboard.press("d")
    assert background(opened) == (dark if system else light)


@pytest.mark.parametrize("opened", [{"reduced_motion": "reduce"}], indirect=True)
def test_reduced_motion_has_no_animations(opened):
    opened.keyboard.press("ArrowRight")
    opened.keyboard.press("ArrowRight")
    assert opened.locator(".entering").count() == 0
    assert opened.evaluate("document.getAnimations().length") == 0


def test_pictures_have_the_words_as_alternative_text(opened):
    drag(opened, examples.STEPS)
    picture = opened.get_by_role("img", name="Picture at t 1.00 in: A red square")
    assert picture.count() == 1


def test_nothing_moves_below_a_document_that_grows(opened):
    tops = [opened.locator("#learning").bounding_box()["y"]]
    for at in range(1, examples.STEPS + 1):
        drag(opened, at)
        tops.append(opened.locator("#learning").bounding_box()["y"])
    assert max(tops) - min(tops) < 0.5


def test_one_document_alone(opened):
    opened.get_by_role("button", name="Show edited alone").click()
    assert opened.locator(".card:visible h2").all_text_contents() == ["edited"]
    opened.keyboard.press("Escape")
    assert opened.locator(".card:visible").count() == 4


def test_curves(opened):
    lines = opened.locator("#chart .curve")
    assert lines.count() == 2
    assert lines.nth(1).get_attribute("d").count("M") == 2  # the hole breaks the line
    assert "NaN" not in opened.locator("#chart").inner_html()
    before = lines.first.get_attribute("d")
    opened.locator("#log").click()
    assert lines.first.get_attribute("d") != before
    opened.locator("#chart").hover(position={"x": 60, "y": 100})
    legend = opened.locator("#legend-curves").text_content()
    assert "held <out>4 at step 0" in legend
    assert opened.locator("#chart .dot").count() == 2


@pytest.mark.parametrize("opened", [{"viewport": {"width": 360, "height": 740}}], indirect=True)
def test_a_phone_needs_no_sideways_scrolling(opened):
    drag(opened, examples.STEPS)
    assert opened.evaluate("document.documentElement.scrollWidth") <= 360
