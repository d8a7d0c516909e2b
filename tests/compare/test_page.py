"""Tests of the comparison page: tables, charts, and the page in Chromium."""

import dataclasses
import itertools
import re

import numpy as np
import pytest

from oneflow_jax.compare import charts, metrics, page, result_tables, timeline_chart
from oneflow_jax.compare.page import CurvePoint, Estimate
from oneflow_jax.data.document import Document, Gap, Text
from tests.viewer import examples, test_page
from tests.viewer.test_browser import browser  # noqa: F401 - a fixture

SECTIONS = (
    "tables", "timelines", "curves", "samples", "figures", "costs", "notes", "method",
)  # fmt: skip


def write_page(path, **changes):
    page.write(path, examples.make_comparison(**changes))
    return path.read_text("utf-8")


def make_single_model(**changes):
    return [dataclasses.replace(examples.make_model_result("oneflow", 0), **changes)]


def read_column(table, index):
    return [row[index].text for row in table.rows]


def test_the_page_refers_to_nothing_outside_itself(tmp_path):
    text = write_page(tmp_path / "new" / "page.html")
    links = test_page.LinkCollector()
    links.feed(text)
    marks = {f"#mark{n}" for n in range(7)}
    assert all(link.startswith("data:") or link in marks for link in links.links)
    assert sum(link.startswith("data:image/png") for link in links.links) == 7 * 4 * 3
    assert not re.search(r"url\(|@import|fetch\(|XMLHttpRequest|https?:", text)
    assert "default-src 'none'" in text
    assert "<script" not in text
    assert not re.search(r"\{\{\w+\}\}", text)


def test_text_is_escaped(tmp_path):
    nasty = test_page.MALICIOUS_TEXT
    bar = page.TimelineBar("text", nasty, 0, 1)
    one = examples.make_estimate(1.0)
    changes = {
        "heading": nasty,
        "models": make_single_model(
            name=nasty, title=nasty, family=nasty, mode=nasty,
            metrics={nasty: one}, absence_reasons={"kid_efficientnet": nasty},
            curves={nasty: [CurvePoint(1, 1.0, 1.0)]},
            samples=[Document((Text(nasty), *examples.make_sample(0).parts))],
            timeline=page.Timeline(1, 1.0, [bar]),
        ),
        "reference_bounds": {nasty: {nasty: one}},
        "latency": [page.LatencyResult(nasty, 1, one)],
        "roofline": {nasty: [(nasty,), (nasty,)]},
        "notes": [nasty], "definitions": {nasty: nasty}, "machine": {nasty: nasty},
        "data": {nasty: nasty}, "attribution": [nasty],
    }  # fmt: skip
    text = write_page(tmp_path / "page.html", **changes)
    assert "<script" not in text
    assert "<!--" not in text
    links = test_page.LinkCollector()
    links.feed(text)
    assert (
        len(links.links) == 1 + 2 + 2 + 3
    )  # The links: icon, marks at titles, marks in charts, images.
    written = page.render_markdown(examples.make_comparison(**changes))
    assert "<script" not in written
    assert written.count(r"{{data}}") > 10
    assert "a\\|b" in page.render_markdown(examples.make_comparison(notes=["a|b"]))


def test_model_table():
    table = result_tables.make_model_table(examples.make_comparison())
    assert [name.replace("\u00a0", " ") for name in table.columns] == [
        "Model", "Generation mode", "KID of 2,000 images ↓", "FD of 2,000 images ↓",
        "Interleaved quality ↑", "Forward passes ↓",
    ]  # fmt: skip
    assert read_column(table, 0)[2:5] == ["Transfusion", "LMFusion", "OneFlow"]
    assert read_column(table, 5) == ["140", "128", "75", "75", "16", "16", "16"]
    assert [row[5].mark for row in table.rows] == [""] * 4 + ["best"] * 3
    assert "FID" not in " ".join(table.columns)
    last = table.rows[-1][2]
    assert (last.text, last.detail, last.mark) == ("0.0070", "0.0035–0.0105", "best")
    assert last.unrounded == examples.make_comparison().models[-1].metrics["kid_efficientnet"].value


def test_family_table():
    table = result_tables.make_family_table(examples.make_comparison())
    rows = [[cell.text for cell in row] for row in table.rows]
    assert rows == [
        ["Sequential AR", "Chameleon, DALL-E", "128–140 forward passes", "0.620–0.660"],
        ["AR + flow", "Transfusion, LMFusion", "75 forward passes", "0.700–0.740"],
        ["Concurrent flow", "OneFlow, Mask flow, Edit flow", "16 forward passes", "0.780–0.860"],
    ]
    assert [row[3].mark for row in table.rows] == ["", "", "best"]
    assert table.rows[0][2].detail == "1.57–1.72 s per document"
    bare = result_tables.make_family_table(
        examples.make_comparison(models=make_single_model(metrics={}))
    )
    assert [cell.text for cell in bare.rows[0][1:]] == ["OneFlow", "–", "–"]


def test_every_metric_has_a_row_and_missing_values_a_reason():
    comparison = examples.make_comparison()
    table = result_tables.make_metrics_table(comparison)
    assert len(table.rows) == len(comparison.models[0].metrics)
    assert table.columns[-2:] == ("real data", "shuffled")
    (row,) = (row for row in table.rows if row[0].text.startswith("Image to text"))
    assert row[2].text == "–"
    assert table.notes() == ["DALL-E: text comes before images, so it cannot caption"]
    (row,) = (row for row in table.rows if row[0].text.startswith("KID"))
    assert [cell.text for cell in row[-2:]] == ["0.0002", "0.0003"]
    # The columns of real documents are never marked as best, and lack some of the metrics.
    assert not any(cell.mark for cell in row[-2:])
    assert table.rows[0][-1].text == ""


def test_best_model_and_ties_are_marked():
    higher, lower = metrics.get("image_name_alignment"), metrics.get("kid_efficientnet")
    changes = {
        "a": Estimate(0.9, 0.8, 1.0),
        "b": Estimate(0.7, 0.6, 0.8),
        "c": Estimate(0.5, 0.4, 0.6),
    }
    assert metrics.best_marks(higher, changes) == {"a": "best", "b": "tied", "c": ""}
    assert metrics.best_marks(lower, changes) == {"a": "", "b": "tied", "c": "best"}
    assert metrics.best_marks(metrics.get("parameters"), changes) == {"a": "", "b": "", "c": ""}
    assert metrics.best_marks(higher, {}) == {}
    assert metrics.best_marks(higher, dict.fromkeys("ab", changes["a"])) == {"a": "", "b": ""}


@pytest.mark.parametrize(
    ("write", "value", "expected"),
    [
        (metrics.format_significant, 0.012345, "0.0123"),
        (metrics.format_significant, 0.9996, "1.00"),
        (metrics.format_significant, 123456, "123,000"), (metrics.format_significant, 0, "0"),
        (metrics.format_significant, -2.5, "−2.50"),
        (metrics.decimal_formatter(4), -0.00001, "0.0000"),
        (metrics.decimal_formatter(3), -0.5, "−0.500"), (metrics.format_count, 16.0, "16"),
        (metrics.format_count, 151.25, "151.2"), (metrics.format_scientific, 1.2e15, "1.20 · 10¹⁵"),
    ],
)  # fmt: skip
def test_number_formats(write, value, expected):
    assert write(value) == expected


def test_invalid_estimates_and_timelines_are_rejected():
    for wrong in ((float("nan"), 0, 1), (0, 2, 1), (0, 0, float("inf"))):
        with pytest.raises(ValueError, match="values must be finite"):
            Estimate(*wrong)
    with pytest.raises(ValueError, match=r"within Timeline\.passes=3"):
        page.Timeline(3, 1.0, [page.TimelineBar("text", "a", 2, 4)])
    with pytest.raises(ValueError, match=r"Timeline\.passes=0 must be positive"):
        page.Timeline(0, 1.0, [])
    with pytest.raises(ValueError, match="unique names"):
        examples.make_comparison(names=("oneflow", "oneflow"))
    with pytest.raises(ValueError, match="only text and images"):
        page.write(
            "unused",
            examples.make_comparison(
                models=make_single_model(samples=[_make_incomplete_document()])
            ),
        )


def _make_incomplete_document():
    return Document((Gap("text"),))


def test_intro_names_the_best_model_and_ties():
    assert "Edit flow, 0.860 in 16 forward passes." in page.format_intro(examples.make_comparison())
    close = [
        dataclasses.replace(one, metrics={"interleaved_score": Estimate(value, 0.5, 0.9)})
        for one, value in zip(
            examples.make_comparison().models, np.arange(7) / 10 + 0.2, strict=True
        )
    ]
    intro = page.format_intro(examples.make_comparison(models=close))
    assert intro.endswith(
        "Edit flow, 0.800; its interval overlaps those of Chameleon, DALL-E, Transfusion, "
        "LMFusion, OneFlow, Mask flow."
    )
    assert "quality" not in page.format_intro(
        examples.make_comparison(models=make_single_model(metrics={}))
    )


def test_markdown_has_the_tables_of_the_page():
    comparison = examples.make_comparison()
    text = page.render_markdown(comparison)
    for table in result_tables.make_tables(comparison):
        assert f"**{table.title}**" in text
        for row in table.rows:
            assert f"\n| {row[0].text} |" in text
    rows = [line for line in text.splitlines() if line.startswith("| OneFlow")]
    assert rows[0].endswith("| 0.780 (0.764–0.796) | ★ **16** |")
    assert "| –<sup>1</sup> |" in text
    assert "\n1. DALL-E: text comes before images, so it cannot caption\n" in text
    assert "seeds: 0, 1, 2" in text


@pytest.mark.parametrize(
    ("scale", "expected"),
    [
        (charts.AxisScale(0, 140, log=False), [0, 50, 100]),
        (charts.AxisScale(4, 140, log=True), [5, 10, 20, 50, 100]),
        (charts.AxisScale(0.002, 5, log=True), [0.01, 0.1, 1]),
        (charts.AxisScale(-0.2, 0.9, log=False), [0, 0.5]),
    ],
)
def test_ticks_are_round_numbers_within(scale, expected):
    assert scale.ticks() == pytest.approx(expected)
    assert all(0 <= scale(tick) <= 1 for tick in scale.ticks())


def test_curve_points_are_at_their_values():
    points = [CurvePoint(4, 0.4, 0.2), CurvePoint(16, 1.6, 0.8)]
    rendered = charts.render_charts(
        examples.make_comparison(
            models=make_single_model(curves={"text_to_image": points}), reference_bounds={}
        )
    )
    assert rendered.count("<svg") == 2
    places = [
        [
            (float(x), float(y))
            for x, y in re.findall(r"<use href='#mark0' x='(.*?)%' y='(.*?)'", svg)
        ]
        for svg in rendered.split("<svg")[1:]
    ]
    # On the x axis, equal cost ratios are equal distances; higher values are drawn higher.
    assert places[0] == places[1]
    (x0, y0), (x1, y1) = places[0]
    assert 0 < x0 < 10 < 90 < x1 < 100
    assert y0 / charts.HEIGHT == pytest.approx(1 - 0.2 / (0.8 + 0.6 * 0.08), abs=0.01)
    assert 0 < y1 < y0 < charts.HEIGHT
    assert "Text to image against forward passes. OneFlow: 0.200 at 4.00 to 0.800 at" in rendered


def test_covered_marker_has_one_rim_per_covering_marker():
    def rims(*curves_):
        names = ("chameleon", "dalle", "transfusion")
        contestants = [
            dataclasses.replace(one, curves={"kid_efficientnet": points})
            for one, points in zip(
                examples.make_comparison(names=names).models, curves_, strict=True
            )
        ]
        svg = charts.render_charts(
            examples.make_comparison(models=contestants, reference_bounds={})
        )
        return re.findall(r"<use href='#mark(\d)'[^>]*?(?: style='--rim:(\d)')?/>", svg)

    here, there = CurvePoint(50, 0.1, 0.2), CurvePoint(90, 0.3, 0.3)
    assert rims([here], [here], [here]) == [("0", "2"), ("1", "1"), ("2", "")] * 2
    assert rims([here, there], [here], [there]) == [
        ("0", "1"), ("0", "1"), ("1", ""), ("2", "")
    ] * 2  # fmt: skip
    assert rims([here, there], [here], [here]) == [
        ("0", "2"), ("0", ""), ("1", "1"), ("2", "")
    ] * 2  # fmt: skip


def test_large_ratios_use_a_logarithmic_scale():
    def ticks(values):
        points = [CurvePoint(n, n, value) for n, value in enumerate(values, 1)]
        comparison = examples.make_comparison(
            models=make_single_model(curves={"fd_efficientnet": points}), reference_bounds={}
        )
        return re.findall(
            r"<text x='-8'.*?>(.*?)</text>", charts.render_charts(comparison).split("<svg")[1]
        )

    assert ticks([700, 30, 20]) == ["20", "50", "100", "200", "500"]
    assert ticks([90, 30, 20]) == ["0", "50"]
    assert ticks([90, 85]) == ["86", "88", "90"]


def test_bar_length_is_proportional_to_duration():
    rendered = timeline_chart.render_timelines(
        examples.make_comparison(names=("chameleon", "oneflow")).models
    )
    shared = re.findall(r"<svg class='shared' .*?</svg>", rendered)
    own = re.findall(r"<svg class='own' .*?</svg>", rendered)
    bars = [
        [(float(x), float(width)) for x, width in re.findall(r"x='([\d.]*)%' width='(.*?)%'", svg)]
        for svg in shared + own
    ]
    assert [len(bar) for bar in bars] == [6, 6, 6, 6]
    # Sequential models: each bar starts where the previous one ends; the last ends with the axis.
    for (x, width), (following, _) in itertools.pairwise(bars[0]):
        assert x + width == pytest.approx(following, abs=0.02)
    assert sum(bars[0][-1]) == pytest.approx(100, abs=0.02)
    # Concurrent models: all bars start and end together, on the shared axis and on their own axis.
    assert bars[1] == [(0, pytest.approx(100 * 16 / 140, abs=0.01))] * 6
    assert bars[3] == [(0, 100)] * 6
    assert "three animals: a fox: 0 to 7; image 1: 7 to 49;" in rendered


def test_label_is_placed_where_most_room_is():
    def place(started, finished):
        timeline = page.Timeline(
            10, 1.0, [page.TimelineBar("text", "words " * 9, started, finished)]
        )
        return re.search(
            r"<text class='(\w+)'.*?>(.*?)<",
            timeline_chart.render_timelines(make_single_model(timeline=timeline))[300:],
        )

    assert [place(*ends)[1] for ends in ((0, 3), (7, 10), (1, 10))] == ["after", "before", "on"]
    assert place(0, 3)[2] == "words words words wor…"


def test_empty_sections_are_omitted(tmp_path):
    bare = make_single_model(metrics={}, curves={}, samples=(), timeline=None)
    text = write_page(
        tmp_path / "page.html", models=bare, reference_bounds={}, latency=(), roofline={}, notes=()
    )
    assert "<figure" not in text
    assert "<article" not in text
    assert page.render_markdown(examples.make_comparison(models=bare, notes=()))


@pytest.fixture(params=["light", "dark"])
def scheme(request):
    return request.param


@pytest.fixture(params=[(1280, 900), (375, 800)], ids=["wide", "narrow"])
def tab(browser, scheme, request, tmp_path):  # noqa: F811
    """Open the page; at teardown, fail if there were console messages or network requests."""
    write_page(tmp_path / "page.html")
    address = (tmp_path / "page.html").as_uri()
    width, height = request.param
    context = browser.new_context(
        offline=True, color_scheme=scheme, viewport={"width": width, "height": height}
    )
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


def test_page_in_a_browser(tab):
    comparison = examples.make_comparison()
    width = tab.viewport_size["width"]
    assert tab.evaluate("document.documentElement.scrollWidth") <= width
    for section in SECTIONS:
        assert tab.locator(f"#{section}").is_visible(), section
    # Every value is on the page with full precision.
    numbers = tab.locator("#figures data").evaluate_all("all => all.map(one => +one.value)")
    all_metrics = [one.metrics for one in comparison.models] + list(
        comparison.reference_bounds.values()
    )
    assert sorted(numbers) == sorted(f.value for figures in all_metrics for f in figures.values())
    # Each point of each chart has a mark in the color of its curve.
    points = sum(len(c) for one in comparison.models for c in one.curves.values())
    assert tab.locator(".plot use").count() == 2 * points
    assert tab.locator(".plot .bound").count() == 2 * 2 * 4
    hues = tab.locator(".who .mark").evaluate_all("all => all.map(x => getComputedStyle(x).fill)")
    assert len(set(hues)) == 7
    lines = tab.locator(".plot").first.locator(".curve").evaluate_all(
        "all => all.map(one => getComputedStyle(one).stroke)"
    )  # fmt: skip
    assert lines == hues
    assert all(box["width"] > 200 for box in measure_boxes(tab, ".plot"))
    bars = measure_boxes(tab, ".lane svg.shared:not(.axis) rect")
    assert len(bars) == 7 * 6
    assert all(box["width"] >= 1 for box in bars)


def measure_boxes(tab, selector):
    return tab.locator(selector).evaluate_all(
        "all => all.map(one => ({width: one.getBoundingClientRect().width}))"
    )


def test_images_are_pixelated_and_have_alternative_text(tab):
    pictures = tab.locator("#samples img")
    assert pictures.count() == 7 * 4 * 3
    loaded = pictures.evaluate_all(
        "all => all.map(one => one.complete && one.naturalWidth === 8 && one.clientWidth > 40"
        " && getComputedStyle(one).imageRendering === 'pixelated')"
    )
    assert all(loaded)
    alt = "Image 2 of 3 in: three squares: a red one a blue one and a red one"
    assert tab.get_by_alt_text(alt).count() == 7 * 4
    drawings = tab.get_by_role("img").and_(tab.locator("svg"))
    assert drawings.count() == 2 * 4 + 7
    labels = drawings.evaluate_all("all => all.map(one => one.getAttribute('aria-label'))")
    assert all(labels)
    assert labels[4].startswith("OneFlow, 16 passes, 0.197 s. three animals")


def test_wide_tables_scroll_by_keyboard(tab):
    wide = tab.locator("#figures .wide")
    if tab.viewport_size["width"] < 400:
        wide.focus()
        tab.keyboard.press("ArrowRight")
        tab.wait_for_function("one => one.scrollLeft > 0", arg=wide.element_handle())
    # The row names stay visible.
    assert wide.locator("tbody th").first.bounding_box()["x"] >= 0
