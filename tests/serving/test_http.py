"""Tests of the HTTP interface: answers, streams and error messages."""

import pytest
from fastapi.testclient import TestClient

import oneflow_jax as of
from oneflow_jax.serving import http, limits, service
from tests.serving.requests import RED, encode, read_documents, read_events

PROMPT = {"prompt": "red <image> and <text>"}


def test_generate_answers_the_documents_of_the_model(client, model):
    options = {"samples": 2, "seed": 3, "image_guidance_scale": 2}
    answer = client.post("/v1/generate", json={**PROMPT, **options})
    assert answer.status_code == 200, answer.text
    expected = model.generate(PROMPT["prompt"], **options)
    assert read_documents(answer.json()) == [document.parts for document in expected]
    assert answer.json()["documents"][0]["markup"].startswith("red <image:1> and")
    assert answer.json()["nfe"] == expected[0].nfe
    assert answer.json()["warnings"] == []


def test_images_of_a_request_are_given(client, model):
    body = {"prompt": "<image:mine> is <text>", "images": {"mine": encode(RED)}, "seed": 5}
    for data in (encode(RED), f"data:image/png;base64,{encode(RED)}"):
        body["images"] = {"mine": data}
        answer = client.post("/v1/generate", json=body)
        (expected,) = model.generate([RED, "is", of.TEXT], seed=5)
        assert read_documents(answer.json()) == [expected.parts]


def test_edit_answers_the_document_and_its_changes(client, model):
    parts = [{"text": "red"}, {"image": encode(RED)}]
    answer = client.post("/v1/edit", json={"document": parts, "start": 0.5, "seed": 2})
    expected = model.edit(of.Document(["red", RED]), start=0.5, seed=2)
    assert read_documents(answer.json()) == [expected.parts]
    assert answer.json()["changes"] == list(map(str, expected.edits))


def test_a_stream_has_each_state_and_the_result(client, model):
    body = PROMPT | {"samples": 2, "stream": True, "steps": 3, "seed": 4}
    with client.stream("POST", "/v1/generate", json=body) as response:
        events = read_events(response.iter_lines())
    names = [name for name, _ in events]
    assert names[0] == "queued"
    assert [name for name in names if name != "compiling"][1:] == ["state"] * 4 + ["done"]
    states = [data for name, data in events if name == "state"]
    assert [(state["step"], state["steps"]) for state in states] == [(n, 3) for n in range(4)]
    assert [state["t"] for state in states][::3] == [0, 1]
    expected = model.generate(PROMPT["prompt"], samples=2, steps=3, seed=4)
    assert read_documents(events[-1][1]) == [document.parts for document in expected]
    assert read_documents(states[-1]) == [document.parts for document in expected]
    for state in states[:-1]:
        text, image, *_ = state["documents"][0]["parts"]
        assert (text["text"], text["given"], image["given"]) == ("red", True, False)
        assert image["noisy_image"] != image["image"]
        assert all({"key", "text", "confidence", "given"} == set(x) for x in text["tokens"])


def test_warnings_name_unknown_words(client):
    answer = client.post("/v1/generate", json={"prompt": "redd <image>"})
    assert "redd" in answer.json()["warnings"][0]


def test_the_first_event_of_a_stream_names_unknown_words(client):
    body = {"prompt": "redd <image>", "stream": True, "steps": 1}
    with client.stream("POST", "/v1/generate", json=body) as response:
        events = read_events(response.iter_lines())
    (name, queued), (_, done) = events[0], events[-1]
    assert name == "queued"
    assert "redd" in queued["warnings"][0]
    assert queued["warnings"] == done["warnings"]


def test_models_health_and_metrics(client, served):
    listed = client.get("/v1/models").json()
    assert [model["name"] for model in listed["models"]] == [listed["default"]] == ["tiny"]
    assert listed["models"][0]["paradigm"] == "oneflow"
    assert listed["limits"]["rows"] == 32
    assert client.get("/v1/health").json() == {"status": "ok", "queued": 0}
    client.post("/v1/generate", json=PROMPT)
    client.post("/v1/generate", json=PROMPT | {"prompt": "no gap"})
    text = client.get("/v1/metrics").text
    for line in ("oneflow_finished_total 1", "oneflow_received_total 1", "oneflow_queue_length 0"):
        assert line in text.splitlines()
    assert "# TYPE oneflow_finished_total counter" in text
    served.close()
    assert client.get("/v1/health").status_code == 503
    assert client.post("/v1/generate", json=PROMPT).status_code == 503


MISTAKES = [
    ({"prompt": " "}, 400, "empty"),
    ({"prompt": "no gap"}, 400, "no gap"),
    ({"prompt": "<imgae>"}, 400, "imgae"),
    ({"prompt": "<image:/etc/passwd> <text>"}, 400, "has no image with this name"),
    ({"prompt": "<image> " * 3000}, 400, "characters are too many"),
    ({"prompt": 3}, 400, "prompt=3: "),
    ({"text": "red"}, 400, "text="),
    ({"model": "other"}, 400, "model='other'"),
    ({"samples": 0}, 400, "samples=0"),
    ({"samples": 33}, 400, "Give 32 at most"),
    ({"samples": True}, 400, "samples=True"),
    ({"steps": 10**9}, 400, "Give 16 at most"),
    ({"steps": 2.5}, 400, "steps=2.5"),
    ({"seed": 10**30}, 400, "seed"),
    ({"image_guidance_scale": "2"}, 400, "image_guidance_scale='2'"),
    ({"temperature": 0.5}, 400, "sampling.temperature"),
    ({"images": {"a": "!"}}, 400, "images['a']: not base64"),
    ({"images": {"a": "AAAA"}}, 400, "images['a']: not an image"),
    ({"images": dict.fromkeys(map(str, range(17)), "")}, 400, "Give 16 at most"),
    ({"images": {"a": "A" * 40_000_000}}, 413, "body: too large"),
]


@pytest.mark.parametrize(("fields", "status", "message"), MISTAKES)
def test_wrong_requests_are_refused_with_a_message(client, fields, status, message):
    answer = client.post("/v1/generate", json=PROMPT | fields)
    assert answer.status_code == status, answer.text
    assert message in answer.json()["message"]


def test_wrong_documents_and_paths_are_refused(client):
    for parts, message in (
        ([{"text": "red", "image": encode(RED)}], "either text or image"),
        ([], "empty"),
    ):
        answer = client.post("/v1/edit", json={"document": parts})
        assert (answer.status_code, message in answer.json()["message"]) == (400, True)
    assert client.post("/v1/generate", content=b"{").status_code == 400
    assert client.get("/v1/other").json()["message"].startswith("/v1/other: Not Found")
    assert client.get("/v1/generate").status_code == 405


def test_images_with_too_many_pixels_are_refused(model):
    with service.Service({"tiny": model}, limits.Limits(image_pixels=15)) as small:
        connected = TestClient(http.make_app(small), base_url="http://localhost:80")
        body = {"prompt": "<image:a> <text>", "images": {"a": encode(RED)}}
        answer = connected.post("/v1/generate", json=body)
        assert (answer.status_code, "4 x 4 pixels" in answer.json()["message"]) == (400, True)


def test_a_body_without_a_length_is_limited_too(model):
    with service.Service({"tiny": model}, limits.Limits(body_bytes=100)) as small:
        connected = TestClient(http.make_app(small), base_url="http://127.0.0.1")
        answer = connected.post("/v1/generate", content=iter([b"x" * 60, b"x" * 60]))
        assert answer.status_code == 413


def test_a_token_is_needed_if_the_server_has_one(served):
    connected = TestClient(http.make_app(served, "a long secret token"), base_url="http://any")
    for headers in (
        {},
        {"authorization": "Bearer wrong"},
        {"authorization": "a long secret token"},
    ):
        answer = connected.get("/v1/health", headers=headers)
        assert answer.status_code == 401
        assert "token" in answer.json()["message"]
    headers = {"authorization": "Bearer a long secret token"}
    assert connected.get("/v1/health", headers=headers).status_code == 200


@pytest.mark.parametrize(
    ("host", "status"),
    [
        ("localhost:8000", 200),
        ("[::1]:8000", 200),
        ("127.0.0.1", 200),
        ("evil.com", 403),
        ("", 403),
    ],
)
def test_without_a_token_only_this_machine_is_a_host(served, host, status):
    connected = TestClient(http.make_app(served), base_url="http://127.0.0.1")
    assert connected.get("/v1/health", headers={"host": host}).status_code == status
