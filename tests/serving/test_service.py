"""Tests of the queue: batches have the bits of single calls; cancellation, limits, failures."""

import itertools
import queue
import threading

import pytest

from oneflow_jax.api import batch as batches
from oneflow_jax.errors import UserError
from oneflow_jax.serving import events, limits, service

PROMPTS = ("red <image>", "<text> <image>", "<image> is <text:2>", "<text> <image> " * 3)


class Client:
    """A client that keeps the events of its request."""

    def __init__(self, served, model, prompt="red <image>", stream=False, **options):
        self.events = queue.Queue()
        self.call = model.prepare_generate(prompt, **options)
        self.job = served.submit(None, self.call, self.events.put, wants_states=stream)

    def wait(self, kind=(events.Done, events.Failed)):
        """Return the next event of this kind."""
        while not isinstance(event := self.events.get(timeout=600), kind):
            pass
        return event


@pytest.fixture
def held(monkeypatch):
    """Return an event; batches wait for it before each step."""
    release = threading.Event()
    advance = batches.BatchRun.advance

    def advance_later(self, *arguments):
        release.wait(600)
        return advance(self, *arguments)

    monkeypatch.setattr(batches.BatchRun, "advance", advance_later)
    yield release
    release.set()


def test_documents_of_mixed_requests_are_those_of_single_calls(served, model, held):
    """Let 24 requests wait together, so that batches of several sizes are made of them."""
    requests = [
        {
            "prompt": prompt,
            "samples": samples,
            "seed": 7 * samples + n,
            "image_guidance_scale": scale,
        }
        for (n, prompt), samples, scale in itertools.product(
            enumerate(PROMPTS), (1, 2, 5), (1.0, 2.0)
        )
    ]
    clients = [
        Client(served, model, stream=n % 5 == 0, **request) for n, request in enumerate(requests)
    ]
    held.set()
    for client, request in zip(clients, requests, strict=True):
        assert client.wait().documents == model.generate(**request)
    assert served.counters["finished"] == len(requests)
    assert served.counters["batches"] < len(requests)


def test_a_cancelled_request_leaves_the_queue(served, model, held):
    first, second, third = (Client(served, model, seed=n, steps=n + 2) for n in range(3))
    assert third.wait(events.Queued).position > 0
    served.cancel(second.job)
    held.set()
    assert isinstance(third.wait(), events.Done)
    assert isinstance(first.wait(), events.Done)
    assert served.counters["cancelled"] == 1
    assert served.counters["finished"] == 2


def test_a_batch_whose_requests_are_cancelled_stops(served, model, held):
    client = Client(served, model, stream=True, steps=16)
    while served.num_waiting:
        pass
    served.cancel(client.job)
    held.set()
    assert isinstance(Client(served, model, steps=2).wait(), events.Done)
    assert served.counters["cancelled"] == 1
    kinds = {type(event) for event in list(client.events.queue)}
    assert events.Done not in kinds
    assert sum(isinstance(event, events.State) for event in list(client.events.queue)) <= 1


def test_a_full_queue_refuses_requests(model, held):
    with service.Service({"tiny": model}, limits.Limits(queue=1)) as small:
        first = Client(small, model)
        while small.num_waiting:
            pass
        second = Client(small, model)
        with pytest.raises(service.QueueFullError, match="queue=1"):
            Client(small, model)
        assert small.counters["refused"] == 1
        held.set()
        assert isinstance(first.wait(), events.Done)
        assert isinstance(second.wait(), events.Done)


def test_sizes_are_limited(served, model):
    with pytest.raises(UserError, match="samples=33"):
        Client(served, model, samples=33)
    with pytest.raises(UserError, match="steps=17"):
        Client(served, model, steps=17)


def test_closing_fails_the_requests_that_are_not_finished(model, held):
    small = service.Service({"tiny": model})
    running = Client(small, model, stream=True, steps=4)
    while small.num_waiting:
        pass
    waiting = Client(small, model, steps=3)
    threading.Timer(0.2, held.set).start()
    small.close()
    assert waiting.wait().message == running.wait().message == service.STOPPED
    with pytest.raises(service.WorkerStoppedError):
        Client(small, model)


def test_an_error_in_a_batch_fails_it_and_the_server_goes_on(served, model, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr(batches.BatchRun, "results", lambda self, **_: 1 / 0)
        failed = Client(served, model).wait()
    assert failed == events.Failed("The batch failed: division by zero", is_bug=True)
    assert isinstance(Client(served, model).wait(), events.Done)


def test_unknown_models_and_folders_are_refused(served, tmp_path):
    with pytest.raises(UserError, match="model='other'"):
        served.get_model("other")
    with pytest.raises(UserError, match="workdir"):
        service.Service({"empty": tmp_path})
