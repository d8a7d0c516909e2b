"""Tests of the command: a server on a free port, its examples in docs/serving.md, and its flags."""

import contextlib
import http.client
import json
import pathlib
import re
import shutil
import socket
import subprocess
import threading
import time

import pytest
import uvicorn

from oneflow_jax.errors import UserError
from oneflow_jax.serving import http as application
from oneflow_jax.serving import limits, server, service
from tests import runs

PAGE = (runs.REPOSITORY / "docs/serving.md").read_text()
BODY = {"prompt": "red <image>", "steps": 2}


@contextlib.contextmanager
def listen(served, token=None):
    """Serve on a free port, and yield the port."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        config = uvicorn.Config(application.make_app(served, token), log_level="warning")
        running = uvicorn.Server(config)
        thread = threading.Thread(target=running.run, args=([listener],))
        thread.start()
        yield listener.getsockname()[1]
        running.should_exit = True
        thread.join()


@pytest.fixture
def port(model):
    with listen(service.Service({"tiny": model}, limits.Limits(steps=64))) as chosen:
        yield chosen


def post(port, **fields):
    connection = http.client.HTTPConnection("127.0.0.1", port)
    headers = {"content-type": "application/json"}
    connection.request("POST", "/v1/generate", json.dumps(BODY | fields), headers)
    return connection, connection.getresponse()


def read_metric(port, name):
    connection = http.client.HTTPConnection("127.0.0.1", port)
    connection.request("GET", "/v1/metrics")
    text = connection.getresponse().read().decode()
    return int(re.search(rf"^oneflow_{name}_total (\d+)$", text, re.MULTILINE)[1])


def test_states_are_sent_while_sampling_runs(port, monkeypatch):
    from oneflow_jax.api import batch

    release, advance = threading.Event(), batch.BatchRun.advance

    def advance_later(self, *arguments):
        if self.step > 0:
            release.wait(600)
        return advance(self, *arguments)

    monkeypatch.setattr(batch.BatchRun, "advance", advance_later)
    connection, response = post(port, stream=True, steps=3)
    lines = iter(response)
    while next(lines) != b"event: state\n":
        pass
    assert json.loads(next(lines).removeprefix(b"data: "))["step"] == 0
    release.set()  # The first state came before the second step.
    assert b"event: done\n" in list(lines)
    connection.close()


@pytest.mark.parametrize("stream", [True, False])
def test_a_request_whose_client_leaves_is_cancelled(port, monkeypatch, stream):
    from oneflow_jax.api import batch

    started, release, advance = threading.Event(), threading.Event(), batch.BatchRun.advance

    def advance_later(self, *arguments):
        started.set()
        release.wait(600)
        return advance(self, *arguments)

    monkeypatch.setattr(batch.BatchRun, "advance", advance_later)
    with socket.create_connection(("127.0.0.1", port)) as client:
        content = json.dumps(BODY | {"steps": 64, "stream": stream}).encode()
        head = f"POST /v1/generate HTTP/1.1\r\nhost: 127.0.0.1:{port}\r\n"
        head += f"content-type: application/json\r\ncontent-length: {len(content)}\r\n\r\n"
        client.sendall(head.encode() + content)
        started.wait(600)
    time.sleep(0.5)  # The server notices the end of the connection.
    release.set()
    _, response = post(port, steps=1)
    assert response.status == 200
    assert read_metric(port, "cancelled") == 1
    assert read_metric(port, "finished") == 1


def test_a_full_queue_answers_503(model, monkeypatch):
    served = service.Service({"tiny": model}, limits.Limits(queue=0))
    with listen(served) as port:
        _, response = post(port)
        assert response.status == 503
        assert response.getheader("retry-after") == "1"
        assert "queue=0" in json.load(response)["message"]


def test_examples_of_the_page_run(port, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    blocks = re.findall(r"^```(sh|py)\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)
    assert len(blocks) == 3
    scope = {}
    for language, block in blocks:
        block = block.replace("127.0.0.1:8000", f"127.0.0.1:{port}")
        if language == "py":
            exec(block, scope)
        elif shutil.which("curl"):
            done = subprocess.run(
                ["bash", "-c", block], capture_output=True, text=True, check=True, timeout=600
            )
            assert json.loads(done.stdout)["documents"][0]["markup"].endswith("<image:1>")
    assert scope["state"]["step"] == scope["state"]["steps"] == 4
    assert {path.name for path in pathlib.Path().iterdir()} == {"tiger0.png", "tiger1.png"}


def test_the_page_states_the_limits():
    default = limits.Limits()
    for text in (f"{default.queue} requests", f"{default.rows} samples", f"{default.steps} steps"):
        assert text in PAGE
    assert f"{default.characters:,} characters, and {default.images} images" in PAGE.replace(
        "\n", " "
    )


def test_models_have_names():
    assert server.parse_models(["a=x", "b=y=z"]) == {"a": "x", "b": "y=z"}
    assert list(server.parse_models([])) == ["shipped"]
    for wrong in (["a"], ["=x"], ["a="], ["a=x", "a=y"]):
        with pytest.raises(UserError, match=f"--model={wrong[-1]}"):
            server.parse_models(wrong)


def test_other_hosts_need_a_token(tmp_path):
    path = tmp_path / "token.txt"
    assert server.read_token("127.0.0.1", None) is None
    with pytest.raises(UserError, match=r"--host=0\.0\.0\.0: .* --token-file"):
        server.read_token("0.0.0.0", None)
    with pytest.raises(UserError, match="cannot be read"):
        server.read_token("0.0.0.0", str(path))
    for wrong in ("", "short", "a token with spaces in it", "ä" * 20):
        path.write_text(wrong)
        with pytest.raises(UserError, match="16 or more"):
            server.read_token("0.0.0.0", str(path))
    path.write_text("0123456789abcdef\n")
    assert server.read_token("0.0.0.0", str(path)) == "0123456789abcdef"


def test_a_port_that_is_taken_is_an_error(capsys):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(SystemExit, match=f"--port={port}"):
            server.main([f"--port={port}"])
