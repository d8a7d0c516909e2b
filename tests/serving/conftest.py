"""Fixtures: a small model, a service with it, and its application without a socket."""

import pytest

pytest.importorskip("fastapi", reason="pip install -r requirements-serve.txt")

from fastapi.testclient import TestClient

from oneflow_jax.serving import http, limits, service
from tests import runs


@pytest.fixture(scope="session")
def model(tmp_path_factory):
    return runs.make_untrained_model("oneflow", tmp_path_factory.mktemp("serving"))


@pytest.fixture
def served(model):
    """Yield a service with one model, and at most 32 documents in a batch."""
    running = service.Service({"tiny": model}, limits.Limits(rows=32, queue=64, steps=16))
    yield running
    running.close()


@pytest.fixture
def client(served):
    with TestClient(http.make_app(served), base_url="http://127.0.0.1") as connected:
        yield connected
