"""Fixtures: the demo with a fake service, and tabs of Chromium that show it."""

import contextlib
import socket
import threading

import pytest

pytest.importorskip("fastapi", reason="pip install -r requirements-demo.txt")
import uvicorn

from oneflow_jax.demo import server
from tests.demo.fake_service import FakeService
from tests.viewer.test_browser import browser  # noqa: F401 - a fixture


@contextlib.contextmanager
def serve(app):
    """Serve an application from a thread, and yield its address."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        running = uvicorn.Server(uvicorn.Config(app, log_level="error"))
        thread = threading.Thread(target=running.run, args=([listener],))
        thread.start()
        yield f"http://127.0.0.1:{listener.getsockname()[1]}/"
        running.should_exit = True
        thread.join()


@pytest.fixture
def fake():
    return FakeService("shipped", "plain")


@pytest.fixture
def address(fake):
    with serve(server.make_app(fake)) as address:
        yield address


def open_tab(browser, address, **wishes):  # noqa: F811 - not the fixture, but its value
    """Open a page; return the tab and a list that gets all messages of its console."""
    context = browser.new_context(viewport={"width": 1280, "height": 900}, **wishes)
    tab = context.new_page()
    complaints = []

    def block_other_hosts(route):
        if route.request.url.startswith((address, "data:", "blob:")):
            route.continue_()
        else:
            complaints.append(route.request.url)
            route.abort()

    tab.route("**/*", block_other_hosts)
    tab.on("console", lambda message: complaints.append(message.text))
    tab.on("pageerror", lambda error: complaints.append(str(error)))
    tab.goto(address)
    tab.wait_for_selector("body[data-ready]")
    return tab, complaints


@pytest.fixture
def tab(browser, address, request):  # noqa: F811 - the fixture
    """Yield a tab with the page; at teardown, fail if its console has messages."""
    opened, complaints = open_tab(browser, address, **getattr(request, "param", {}))
    yield opened
    opened.context.close()
    assert complaints == []
