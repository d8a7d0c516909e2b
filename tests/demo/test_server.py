"""Tests of the demo's application without a browser: page, example, descriptions and files."""

import io
import json
import re

import PIL.Image
import pytest
from fastapi.testclient import TestClient

from oneflow_jax.demo import descriptions, server
from oneflow_jax.serving import events, wire
from tests.viewer import examples


@pytest.fixture
def client(fake):
    with TestClient(server.make_app(fake), base_url="http://127.0.0.1") as connected:
        yield connected


def read_data(page):
    return json.loads(re.search(r'id="data">(.*?)</script>', page)[1])


def test_the_page_has_the_models_and_the_default_one_in_detail(client):
    page = client.get("/").text
    data = read_data(page)
    assert data["models"] == ["shipped", "plain"]
    assert list(data["descriptions"]) == ["shipped"]
    assert data["descriptions"]["shipped"]["names"] == ["tiger", "fox", "red apple"]
    assert data["example"] == {
        "prompt": "<text> <image>",
        "model": "shipped",
        "seed": 0,
        "steps": 6,
    }
    assert "OpenMoji" in data["descriptions"]["shipped"]["credits"][0]
    assert "connect-src 'self'" in page


def test_models_are_described_on_demand(client):
    assert client.get("/demo/model", params={"name": "plain"}).json()["can_edit"] is False
    missing = client.get("/demo/model", params={"name": "none"})
    assert missing.status_code == 400
    assert "model='none'" in missing.json()["message"]


def test_unknown_words_are_listed_without_generation(client, fake):
    count = len(fake.models["shipped"].calls)
    for model, prompt in ((None, "a redd fox <image>"), ("plain", "redd")):
        body = {"prompt": prompt} | ({"model": model} if model else {})
        (warning,) = client.post("/demo/warnings", json=body).json()["warnings"]
        assert "'redd'" in warning
    assert client.post("/demo/warnings", json={"prompt": "<text>"}).json() == {"warnings": []}
    assert client.post("/demo/warnings", json={"prompt": ""}).status_code == 400
    assert len(fake.models["shipped"].calls) == count


def test_prompts_with_files_are_left_out():
    given = ("<text> <image>", "<image:tiger.png> <text>")
    assert descriptions.list_prompts(given) == given[:1]


def test_the_example_is_streamed_to_every_page(client):
    first, second = (client.get("/demo/example").text for _ in range(2))
    assert first == second
    names = re.findall("^event: (.*)$", first, re.MULTILINE)
    assert names == ["queued", "queued", "compiling", *["state"] * 7, "done"]


def make_body(view, format):
    """Return the body of a request to save a trajectory, whose states are those of the stream."""
    from oneflow_jax.api import state

    states = []
    for frame in view.frames:
        event = events.State(0, 1, [state.from_frame(frame)])
        _, data = wire.write_event(event, ())
        states.append({"t": data["t"], "parts": data["documents"][0]["parts"]})
    return {
        "format": format, "title": "Document 1", "prompt": "<image>", "settings": {"seed": "3"},
        "states": states,
    }  # fmt: skip


@pytest.mark.parametrize("make_view", [examples.make_masked_view, examples.make_edit_view])
def test_a_saved_page_has_the_frames_of_the_stream(client, make_view):
    view = make_view()
    answer = client.post("/demo/save", json=make_body(view, "html"))
    assert answer.headers["content-type"].startswith("text/html")
    (story,) = read_data(answer.text)["stories"]
    assert len(story["frames"]) == len(view.frames)
    assert [t for t, _ in story["frames"]] == [round(frame.time, 4) for frame in view.frames]
    assert view.to_text() in answer.text


def test_frames_are_stacked_for_the_video(client):
    answer = client.post("/demo/save", json=make_body(examples.make_masked_view(), "frames"))
    assert answer.headers["frame-count"] == "7"
    gif = client.post("/demo/save", json=make_body(examples.make_masked_view(), "gif"))
    frame = PIL.Image.open(io.BytesIO(gif.content))
    stack = PIL.Image.open(io.BytesIO(answer.content))
    assert stack.size == (frame.width, 7 * frame.height)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"format": "exe"}, "format"),
        ({"states": []}, "states"),
        ({"states": [{"t": 2, "parts": []}]}, "Generate the document again"),
        ({"states": [{"t": 1, "parts": [{"key": 1, "time": 1, "given": False}]}]}, "Generate"),
        (
            {"states": [{"t": 1, "parts": [{"key": 1, "time": 1, "given": False, "image": "?"}]}]},
            "not base64",
        ),
    ],
)
def test_wrong_documents_are_refused(client, change, message):
    body = make_body(examples.make_masked_view(), "png") | change
    answer = client.post("/demo/save", json=body)
    assert answer.status_code == 400
    assert message in answer.json()["message"]
