"""Tests of the command: which models it offers, its port, and a document of a real model."""

import json
import shutil
import socket

import pytest
from fastapi.testclient import TestClient

import oneflow_jax as of
from oneflow_jax.demo import __main__ as command
from oneflow_jax.demo import runs as demo_runs
from oneflow_jax.demo import server
from oneflow_jax.errors import UserError
from oneflow_jax.runtime import workdir
from oneflow_jax.serving import service
from tests import runs


def test_models_of_given_folders_come_first(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    run = shutil.copytree(runs.trained_run()[1], tmp_path / "mine")
    again = shutil.copytree(run, tmp_path / "other" / "mine")
    found = shutil.copytree(run, tmp_path / "runs" / "found")
    (tmp_path / "runs" / "codec").mkdir()
    assert demo_runs.find_models([run, again]) == {
        "mine": str(run),
        str(again): str(again),
        "shipped": str(of.PRETRAINED),
        "found": str(found),
    }
    assert list(demo_runs.find_models([])) == ["shipped", "found"]


def test_folders_without_a_model_are_refused(tmp_path):
    fresh = shutil.copytree(runs.trained_run()[1], tmp_path / "run")
    shutil.rmtree(fresh / workdir.CHECKPOINTS)
    for folder in (fresh, tmp_path / "nowhere"):
        with pytest.raises(UserError, match=rf"workdir=.*{folder.name}"):
            command.run([str(folder)], 0)


def test_a_port_that_is_taken_is_replaced_by_the_next_one(capsys):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with command.open_port(port) as listener:
            assert listener.getsockname()[1] > port
    assert capsys.readouterr().out.startswith(f"--port={port}: taken. The page has port ")


@pytest.mark.parametrize("port", [-1, 65_536])
def test_ports_out_of_range_are_refused(port):
    with pytest.raises(UserError, match=f"--port={port}: out of range"):
        command.open_port(port)


def test_no_free_port_is_reported(monkeypatch):
    monkeypatch.setattr(command, "MAX_TRIES", 1)
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(UserError, match=f"--port={port}: taken"):
            command.open_port(port)


def test_ctrl_c_ends_without_a_traceback(monkeypatch, capsys):
    def stop(folders, port):
        raise KeyboardInterrupt

    monkeypatch.setattr(command, "run", stop)
    command.main([])
    assert capsys.readouterr().out == "The server has stopped.\n"


@pytest.fixture(scope="module")
def client():
    """Yield a client of the demo with the tiny run."""
    model = of.load(runs.trained_run()[1], {"sampling.steps": 2})
    app = server.make_app(service.Service({"tiny": model}))
    with TestClient(app, base_url="http://127.0.0.1") as connected:
        yield connected


def read_events(text):
    blocks = [block for block in text.split("\n\n") if block.startswith("event")]
    pairs = [block.removeprefix("event: ").split("\ndata: ") for block in blocks]
    return [(name, json.loads(data)) for name, data in pairs]


def test_a_real_model_makes_the_example_and_saves_it(client):
    received = read_events(client.get("/demo/example").text)
    states = [data for name, data in received if name == "state"]
    assert [state["step"] for state in states] == [0, 1, 2]
    assert [len(state["documents"]) for state in states] == [4, 4, 4]
    assert states[-1]["t"] == 1
    name, done = received[-1]
    assert name == "done"
    shown = [{"t": state["t"], "parts": state["documents"][0]["parts"]} for state in states]
    texts = [part["text"] for part in shown[-1]["parts"] if "tokens" in part]
    finished = [part["text"] for part in done["documents"][0]["parts"] if "text" in part]
    assert list(filter(None, texts)) == finished
    body = {"format": "gif", "title": "x", "prompt": "", "settings": {}, "states": shown}
    assert client.post("/demo/save", json=body).content[:4] == b"GIF8"


def test_sliders_compile_nothing(client):
    model = client.app.state.service.get_model("tiny")
    client.get("/demo/example")

    def generate(**options):
        body = {"prompt": "<text> <image>", "samples": 4, **options}
        answer = client.post("/v1/generate", json=body)
        assert answer.status_code == 200, answer.text

    generate()  # After this request, those that the server makes at its start are finished.
    before = model.num_compilations
    for options in ({"image_guidance_scale": 3.25}, {"seed": 9}, {"steps": 5}, {"steps": 32}):
        generate(**options)
        generate(**{"image_guidance_scale": 1.5, **options})
    assert model.num_compilations == before
