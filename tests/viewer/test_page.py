import base64
import html.parser
import io
import json
import re

import numpy as np
import pytest
from PIL import Image

from oneflow_jax.viewer import page, trajectory
from tests.viewer import examples

MALICIOUS_TEXT = "</script><script>document.title='owned'</script><!-- & \u2028 \"'{{data}}"


class LinkCollector(html.parser.HTMLParser):
    """A parser that collects all link targets of the page."""

    def __init__(self):
        super().__init__()
        self.links = []

    def handle_starttag(self, tag, attrs):
        pointing = ("src", "srcset", "href", "action", "poster", "data")
        self.links += [value for name, value in attrs if name in pointing]


def write_page(path, views, curves=None, **settings):
    page.write(path, views, curves or {}, settings, "A heading", ["A note"])
    return path.read_text("utf-8")


def extract_data(text):
    return json.loads(
        re.search(r'<script type="application/json" id="data">(.*?)</script>', text)[1]
    )


def test_the_page_refers_to_nothing_outside_itself(tmp_path):
    text = write_page(tmp_path / "new" / "page.html", [examples.make_masked_view()])
    links = LinkCollector()
    links.feed(text)
    assert links.links == ["data:,"]
    assert not re.search(r"url\(|@import|fetch\(|XMLHttpRequest|https?:", text)
    assert "default-src 'none'" in text
    assert not re.search(r"\{\{\w+\}\}", text)


def test_text_is_escaped(tmp_path):
    view = examples.make_masked_view(title=MALICIOUS_TEXT, text=(MALICIOUS_TEXT, " b"))
    path = tmp_path / "page.html"
    page.write(
        path,
        [view],
        {MALICIOUS_TEXT: [(0, 1.0)]},
        {MALICIOUS_TEXT: MALICIOUS_TEXT},
        MALICIOUS_TEXT,
        [MALICIOUS_TEXT],
    )
    text = path.read_text("utf-8")
    assert text.count("<script") == 2
    assert "<!--" not in text
    read = extract_data(text)
    assert read["stories"][0]["title"] == MALICIOUS_TEXT
    assert read["curves"][0]["name"] == MALICIOUS_TEXT
    assert [0, MALICIOUS_TEXT, 0] in read["stories"][0]["words"]


def test_serialized_frames_list_their_tokens_and_images(tmp_path):
    (story,) = extract_data(write_page(tmp_path / "page.html", [examples.make_insertion_view()]))[
        "stories"
    ]
    runs = [[part for part in parts if part[0] == 0] for _, parts in story["frames"]]
    texts = [
        [[story["words"][unit][1] for unit in run[4]] for run in run_spans] for run_spans in runs
    ]
    assert texts == [
        [], [[" here", " there"]], [[" here", " now", " there"]],
        [[" here", " now"], [" there"]], [[" here", " now"], [" there"]],
    ]  # fmt: skip
    assert [parts[1][:4] for _, parts in story["frames"][3:]] == [[1, 9, 0, 0.2], [1, 9, 0, 1]]


def test_token_below_the_confidence_threshold_is_a_block(tmp_path):
    def frame(certainty):
        words = (trajectory.TokenView(0, "a", certainty),)
        return trajectory.Frame(0.0, (trajectory.TextSpan(0, words, 0.0),))

    view = trajectory.TrajectoryView("", "", tuple(map(frame, (0.0, 0.0999, 0.101, 1.0))))
    frames = extract_data(write_page(tmp_path / "page.html", [view]))["stories"][0]["frames"]
    assert [parts[0][5] for _, parts in frames] == [[0], [0], [1], [100]]


def test_curves_with_gaps_and_many_points(tmp_path):
    curve = [(step, float("nan") if step == 0 else 1 / step) for step in range(12345)]
    (read,) = extract_data(write_page(tmp_path / "page.html", [], {"loss": curve}))["curves"]
    assert read["points"][0] == [0, None]
    assert read["points"][-1][0] == 12344
    assert len(read["points"]) <= page.MAX_CURVE_POINTS + 1
    assert read["points"][1] == [read["every"], pytest.approx(1 / read["every"], rel=1e-4)]


def test_settings_and_notes_are_shown(tmp_path):
    text = write_page(tmp_path / "page.html", [], sampler="Euler <1>")
    assert "<tr><th scope='row'>sampler</th><td>Euler &lt;1&gt;</td></tr>" in text
    assert "<p>A note</p>" in text


def test_given_and_finished_images_are_lossless_above_the_budget(tmp_path, monkeypatch):
    monkeypatch.setattr(page, "MAX_IMAGE_BYTES", 1)
    stories = [examples.make_masked_view(), examples.make_given_view()]
    read = extract_data(write_page(tmp_path / "page.html", stories))
    finished, given_image = (
        (read["stories"][i]["frames"][-1][1][1 - i], stories[i]) for i in (0, 1)
    )
    for (_, _, _, _, number, row, *_), view in (finished, given_image):
        sheet = read["sheets"][number]
        image = Image.open(io.BytesIO(base64.b64decode(sheet["uri"].split(",")[1])))
        tile = np.asarray(image)[row * sheet["height"] :][: sheet["height"]]
        np.testing.assert_array_equal(tile, view.frames[-1].images()[0].x_t)
    assert any("webp" in sheet["uri"] for sheet in read["sheets"])


def test_a_long_run_of_large_noise_stays_below_3_megabytes(tmp_path, monkeypatch):
    # A long run has 16 samples x 24 frames x 2 images x (state, x1). To save time, the test uses a
    # fourth of these images and a fourth of the limit.
    monkeypatch.setattr(page, "MAX_IMAGE_BYTES", page.MAX_IMAGE_BYTES // 4)
    rng = np.random.default_rng(0)

    def picture(key, t):
        state, guess = rng.integers(0, 256, (2, 32, 32, 3), dtype=np.uint8)
        return trajectory.ImageView(key, state, guess, t)

    def make_noise_view(name):
        times = examples.uniform_times(23)
        words = [tuple(trajectory.TokenView(i, f" word{i}", t) for i in range(60)) for t in times]
        frames = (
            trajectory.Frame(t, (trajectory.TextSpan(0, w, t), picture(1, t), picture(2, t)))
            for t, w in zip(times, words, strict=True)
        )
        return trajectory.TrajectoryView(name, "", tuple(frames))

    path = tmp_path / "page.html"
    text = write_page(path, [make_noise_view(str(i)) for i in range(4)])
    assert path.stat().st_size < 750_000
    assert "to keep the page small" in text


def test_the_page_shows_the_sheet_of_held_out_documents(tmp_path):
    file = io.BytesIO()
    Image.new("RGB", (3, 2)).save(file, "PNG")
    path = tmp_path / "page.html"
    view = examples.make_masked_view()
    page.write(path, [view], {}, {}, "A heading", sheet=file.getvalue())
    encoded = base64.b64encode(file.getvalue()).decode()
    assert f'src="data:image/png;base64,{encoded}"' in path.read_text()
    assert "Held-out documents" not in write_page(path, [view])


def test_findings_stand_above_the_held_out_documents(tmp_path):
    path, view = tmp_path / "page.html", examples.make_masked_view()
    findings = ["Diagnosis: images < texts.", "Texts depend on images."]
    page.write(path, [view], {}, {}, "A heading", findings=findings, sheet=b"PNG")
    text = path.read_text()
    first, second = (text.index(line) for line in ("images &lt; texts.", findings[1]))
    assert first < second < text.index("Held-out documents")
    assert "What the last evaluation found" not in write_page(path, [view])


def test_the_page_lists_what_the_program_chose(tmp_path):
    path, view = tmp_path / "page.html", examples.make_masked_view()
    choices = {"steps": (1_421, "so that training takes < 10 minutes")}
    page.write(path, [view], {}, {}, "A heading", choices=choices)
    cells = "<td>1,421</td><td>so that training takes &lt; 10 minutes</td>"
    assert f"<th scope='row'>steps</th>{cells}" in path.read_text()
    assert "Chosen by the program" not in write_page(path, [view])
