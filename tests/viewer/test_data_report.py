"""Tests of custom data by the command line: preparation and its report."""

import base64
import io
import json
import re

import numpy as np
import PIL.Image
import pytest
from etils import epath

from oneflow_jax.data.custom import summary
from oneflow_jax.data.custom.stats import DatasetStats
from oneflow_jax.data.document import Document, Image, Text
from oneflow_jax.errors import UserError
from oneflow_jax.runtime import workdir
from oneflow_jax.viewer import data_report
from tests.data.custom import examples

CONFIG = "--config=configs/own.py"


@pytest.fixture
def own_data(tmp_path):
    """Return a folder with forty documents and some faulty ones."""
    folder = examples.write_jsonl(tmp_path / "mine")
    with (folder / "documents.jsonl").open("a") as file:
        file.write('{"text": "<b>evil</b>", "image": "<script>.png"}\n{oops\n')
        file.write(json.dumps({"text": "many words of a long story " * 30}) + "\n")
    return folder


def arguments(own_data, tmp_path, *more):
    return [
        CONFIG,
        f"--config.source.path={own_data}",
        f"--config.data.dir={tmp_path / 'data'}",
        "--config.source.heldout_fraction=0.3",
        f"--workdir={tmp_path / 'run'}",
        "--mode=prepare",
        *more,
    ]


def test_folder_needs_only_the_source_path(cli, own_data, tmp_path, capsys):
    cli(*arguments(own_data, tmp_path))
    printed = capsys.readouterr().out
    assert f"Data report: {tmp_path / 'run' / 'data_report.html'}" in printed
    report = json.loads((tmp_path / "run" / workdir.DATA_REPORT).read_text())
    assert (report["seen"], report["kind"], sum(report["documents"].values())) == (43, "jsonl", 41)
    assert report["dropped"] == {"malformed line": 1, "no picture left": 1}
    assert report["reasons"]["missing file"]["parts dropped"] == 1
    split = [report["canvas"][side] for side in ("train", "heldout")]
    assert sum(side["documents"] for side in split) == 41
    assert sum(side["cut"] for side in split) == 1
    assert sum(side["pieces of those"] for side in split) > 1
    page = (tmp_path / "run" / "data_report.html").read_text()
    assert "&lt;script&gt;.png" in page
    assert "<script>" not in page
    assert (tmp_path / "run" / "data_report.png").read_bytes().startswith(b"\x89PNG")
    assert "Documents dropped, of 43, by reason: malformed line (1), no image left (1)." in page
    assert f"{split[0]['laid out whole']} of {split[0]['documents']} documents fit a row" in page


COLORS = {"red": (255, 0, 0), "<green>": (0, 255, 0)}


def write_report(folder):
    """Write the report of a document of each color, and return the path of the page."""
    pixels = {name: np.full((8, 8, 3), color, np.uint8) for name, color in COLORS.items()}
    source = [Document((Image(pixels[name]), Text(f"a {name} square"))) for name in COLORS]
    usage = summary.summarize_slots(
        64, "split", {"train": np.array([1, 3]), "heldout": np.array([1])}
    )
    usage["shapes"] = {"1:1": 1_200, "3:2": 7}
    stats = DatasetStats()
    for document in source:
        stats.add_kept(document, "train", "a.png")
    figures = summary.summarize_stats(stats) | {"path": "x", "kind": "pairs", "canvas": usage}
    figures |= {"notices": [], "choices": {"batch_size": (1_024, "so that a < b")}}
    return data_report.write_report(figures, source, epath.Path(folder))


def test_page_shows_each_text_beside_its_image(tmp_path):
    page = write_report(tmp_path).read_text()
    assert "batch_size</th><td>1,024</td><td>so that a &lt; b</td>" in page
    assert "1 of 2 documents fit a row, 1 split into 3 parts" in page
    assert "documents kept</th><td>2 (2 for training, 0 held out)</td>" in page
    assert "<td>1,200 of 1:1, 7 of 3:2</td>" in page
    pairs = re.findall(r'src="data:image/png;base64,([^"]*)"><p>(.*)</p>', page)
    assert [text for _, text in pairs] == ["a red square", "a &lt;green&gt; square"]
    shown = [PIL.Image.open(io.BytesIO(base64.b64decode(image))) for image, _ in pairs]
    assert [image.getpixel((0, 0)) for image in shown] == list(COLORS.values())


def test_notices_about_unused_data_precede_training(cli, tmp_path, capsys):
    folder = tmp_path / "mine"
    folder.mkdir()
    with (folder / "a.jsonl").open("w") as file:
        for n in range(30):
            record = {
                "url": "http://h/x.png",
                "text": f"a caption of many words, number {n}, and on",
            }
            file.write(json.dumps(record) + "\n")
    (folder / "<b>.png").write_bytes(b"")
    cli(*arguments(folder, tmp_path), "--config.data.text_slot_multiple=8")
    printed = capsys.readouterr().out
    expected = (
        "Notice: None of the 30 documents has both text and an image: 30 have only text.",
        "texts are longer than data.text_slot_multiple=8, the room for `<text>` in a prompt",
        "Notice: Unused fields, with the number of documents that have each: url (30).",
        "Notice: Files that were not used: .png (1).",
    )
    places = [printed.index(sentence) for sentence in (*expected, "Data report:")]
    assert places == sorted(places)
    report = json.loads((tmp_path / "run" / workdir.DATA_REPORT).read_text())
    assert len(report["notices"]) == 4
    assert (report["used"], report["unused"]) == ({"text": 30}, {"url": 30})
    assert report["unused files"] == {".png": {"count": 1, "first": ["<b>.png"]}}
    assert report["contents"] == {"only text": 30}
    page = (tmp_path / "run" / "data_report.html").read_text()
    assert page.count("Notice:") == 4
    assert "&lt;b&gt;.png" in page


def test_too_long_documents_are_an_error_with_overflow_error(
    cli,
    own_data,
    tmp_path,
):
    with pytest.raises(UserError, match=r"needs \d+ slots, but data\.sequence_length=128"):
        cli(*arguments(own_data, tmp_path, "--config.data.overflow=error"))


def test_missing_path_is_reported(cli, tmp_path):
    with pytest.raises(UserError, match=r"source\.path is empty\. Give the folder of your data"):
        cli(*arguments("", tmp_path))


def test_wrong_path_is_reported(cli, tmp_path):
    with pytest.raises(UserError, match="no such file or folder"):
        cli(*arguments("/nowhere/at/all", tmp_path))
