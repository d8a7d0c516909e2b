"""Tests of a codec's page of reconstructions: its text, and the page in Chromium."""

import base64
import io
import re

import numpy as np
import pytest
from PIL import Image

from oneflow_jax.viewer import reconstructions
from tests.viewer import test_page
from tests.viewer.test_browser import browser  # noqa: F401 - a fixture

CURVES = {
    "training": [(step, 20 + step / 100) for step in range(100)],
    "held <out>": [(0, 18.0), (50, float("nan")), (90, 19.0)],
}


def random_images(count=3, size=16):
    shape = (2, count, size, size, 3)
    return np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)


def write_page(path, size=16, **changes):
    originals, rebuilt = random_images(size=size)
    fields = {
        "originals": originals,
        "reconstructions": rebuilt,
        "captions": ["first", "second", "third"],
        "columns": ["ours", "theirs"],
        "metrics": {"PSNR, dB": ("25.1", "21.2"), "pictures": ("3",)},
        "ylabel": "PSNR, dB",
        "curves": CURVES,
        "settings": {"steps": "6", "batch": "8"},
        "heading": "A codec",
        "intro": "What comes back.",
        "notes": ["A note"],
    }
    reconstructions.write(path, **fields | changes)
    return path.read_text("utf-8")


def extract_images(text):
    """Return the images of each figure, in order."""
    figures = re.findall(r"<figure>(.*?)</figure>", text)
    uris = [re.findall(r"src='data:image/png;base64,([^']*)'", figure) for figure in figures]
    return [
        [np.asarray(Image.open(io.BytesIO(base64.b64decode(uri)))) for uri in three]
        for three in uris
    ]


def test_the_page_refers_to_nothing_outside_itself(tmp_path):
    text = write_page(tmp_path / "new" / "page.html")
    links = test_page.LinkCollector()
    links.feed(text)
    assert len(links.links) == 1 + 9
    assert all(link.startswith("data:") for link in links.links)
    assert not re.search(r"url\(|@import|fetch\(|XMLHttpRequest|https?:", text)
    assert "default-src 'none'" in text
    assert not re.search(r"\{\{\w+\}\}", text)


def test_each_figure_has_original_reconstruction_and_difference(tmp_path):
    figures = extract_images(write_page(tmp_path / "page.html"))
    originals, rebuilt = random_images()
    assert [len(three) for three in figures] == [3, 3, 3]
    for three, real, reconstruction in zip(figures, originals, rebuilt, strict=True):
        # Images are enlarged by an integer factor: each pixel is a square.
        assert three[0].shape == (128, 128, 3)
        small = [image[::8, ::8] for image in three]
        np.testing.assert_array_equal(np.kron(small[0], np.ones((8, 8, 1), int)), three[0])
        np.testing.assert_array_equal(small[0], real)
        np.testing.assert_array_equal(small[1], reconstruction)
        expected = np.clip(128 + reconstruction.astype(int) - real, 0, 255)
        np.testing.assert_array_equal(small[2], expected)


def test_large_images_are_not_enlarged(tmp_path):
    assert extract_images(write_page(tmp_path / "page.html", size=200))[0][0].shape == (200, 200, 3)


def test_text_is_escaped(tmp_path):
    nasty = test_page.MALICIOUS_TEXT
    text = write_page(
        tmp_path / "page.html",
        captions=[nasty, nasty, "'"],
        columns=[nasty],
        metrics={nasty: (nasty,)},
        ylabel=nasty,
        curves={nasty: [(0, 1.0)]},
        settings={nasty: nasty},
        heading=nasty,
        intro=nasty,
        notes=[nasty],
    )
    assert text.count("<script") == 2
    assert "<!--" not in text
    read = test_page.extract_data(text)
    assert read["axis"] == nasty
    assert read["curves"][0]["name"] == nasty


def test_metrics_and_settings_are_shown(tmp_path):
    text = write_page(tmp_path / "page.html")
    assert "<th scope='col'>ours</th><th scope='col'>theirs</th>" in text
    assert "<tr><th scope='row'>PSNR, dB</th><td>25.1</td><td>21.2</td></tr>" in text
    # A missing value is an empty cell.
    assert "<tr><th scope='row'>pictures</th><td>3</td><td></td></tr>" in text
    assert "<tr><th scope='row'>batch</th><td>8</td></tr>" in text
    assert "<figcaption>second</figcaption>" in text
    assert "<p>A note</p>" in text


def test_one_caption_per_image(tmp_path):
    with pytest.raises(ValueError, match="shorter"):
        write_page(tmp_path / "page.html", captions=["one"])


@pytest.fixture(params=[{}, {"curves": {}}], ids=["curves", "no curves"])
def changes(request):
    return request.param


@pytest.fixture(params=[(1200, 900), (360, 740)], ids=["wide", "narrow"])
def tab(browser, changes, request, tmp_path):  # noqa: F811
    """Open the page; at teardown, fail if there were console messages or network requests."""
    write_page(tmp_path / "page.html", **changes)
    address = (tmp_path / "page.html").as_uri()
    width, height = request.param
    context = browser.new_context(offline=True, viewport={"width": width, "height": height})
    tab = context.new_page()
    complaints, urls = [], []
    tab.on("console", lambda message: complaints.append(message.text))
    tab.on("pageerror", lambda error: complaints.append(str(error)))
    tab.on("request", lambda sent: urls.append(sent.url))
    tab.goto(address)
    yield tab
    context.close()
    assert complaints == []
    assert [url for url in urls if not url.startswith(("data:", address))] == []


def test_page_in_a_browser(tab, changes):
    width = tab.viewport_size["width"]
    assert tab.evaluate("document.documentElement.scrollWidth") <= width
    assert tab.locator("figure img").count() == 9
    loaded = tab.locator("figure img").evaluate_all(
        "all => all.map(one => one.complete && one.naturalWidth === 128 && one.clientWidth > 60)"
    )
    assert loaded == [True] * 9
    # Three images are side by side, the caption is below them.
    boxes = [tab.locator("figure img").nth(n).bounding_box() for n in range(3)]
    assert len({box["y"] for box in boxes}) == 1
    assert tab.locator("figcaption").first.bounding_box()["y"] > boxes[0]["y"] + 60
    chart = tab.locator("#learning")
    assert chart.is_visible() == ("curves" not in changes)
    if "curves" in changes:
        return
    assert tab.locator("#chart .curve").count() == 2
    assert "PSNR, dB against training step" in tab.locator("#chart svg").get_attribute("aria-label")
    assert "PSNR, dB" in tab.locator("#chart text").all_text_contents()
    tab.locator("#chart").hover(position={"x": 60, "y": 100})
    legend = tab.locator("#legend-curves").text_content()
    assert "held <out>18 at step 0" in legend
    assert not tab.locator("#settings table").is_visible()
    tab.locator("#settings summary").click()
    assert tab.locator("#settings table").is_visible()
