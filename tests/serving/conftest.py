"""Fixtures: a service with the tiny run, and its application without a socket."""

import pytest

pytest.importorskip("fastapi", reason="pip install -r requirements-serve.txt")

from fastapi.testclient import TestClient

import oneflow_jax as of
from oneflow_jax.serving import http, service
from tests import runs


@pytest.fixture(scope="session")
def model():
    return of.load(runs.trained_run()[1], {"sampling.steps": 2})


@pytest.fixture
def served(model):
    """Yield a service with one model."""
    running = service.Service({"tiny": model})
    yield running
    running.close()


@pytest.fixture
def client(served):
    with TestClient(http.make_app(served), base_url="http://127.0.0.1") as connected:
        yield connected
