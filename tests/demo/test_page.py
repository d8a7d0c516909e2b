"""The page in a real Chromium: written to, watched, and told mistakes."""

import socket

import pytest

from oneflow_jax.demo import __main__ as command
from oneflow_jax.demo import answers
from oneflow_jax.errors import UserError
from oneflow_jax.runtime import host
from tests import runs
from tests.viewer.test_browser import browser  # noqa: F401 - a fixture

gradio = pytest.importorskip("gradio", reason="pip install -r requirements-demo.txt")


@pytest.fixture(scope="module")
def address():
    from oneflow_jax.demo import page

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(answers, "PRETRAINED", runs.trained_run()[1])
        built = page.make_page(answers.ModelRegistry([]), "An attribution")
        yield page.serve(built, 0, wait=False)
        built.close()


@pytest.fixture
def opened(browser, address):  # noqa: F811
    """The page, ready; it may ask nobody but its own server."""
    context = browser.new_context(viewport={"width": 1200, "height": 1000})
    tab = context.new_page()
    errors, elsewhere = [], []

    def kept_at_home(route):
        if route.request.url.startswith((address, "data:", "blob:")):
            route.continue_()
        else:
            elsewhere.append(route.request.url)
            route.abort()

    tab.route("**/*", kept_at_home)
    tab.on("pageerror", lambda error: errors.append(str(error)))
    tab.goto(address)
    tab.get_by_role("button", name="Make it").wait_for(timeout=30_000)
    yield tab
    context.close()
    assert errors == []
    # Gradio's own page frame asks for this one script, and does without it.
    assert [url for url in elsewhere if "iframe-resizer" not in url] == []


def asks(tab, text):
    tab.get_by_label("Document").first.fill(text)
    tab.get_by_role("button", name="Make it").click()


def test_a_document_forms(opened):
    asks(opened, "a picture of red: <image> and <text>")
    slider = opened.get_by_label("step", exact=True)
    opened.get_by_text("forward passes,").wait_for(timeout=60_000)
    shown = opened.locator("[data-slide]:visible")
    assert shown.count() == 1
    assert "t = 1.00" in shown.text_content()
    assert "a picture of red:" in shown.text_content()
    slider.evaluate("one => { one.value = 0; one.dispatchEvent(new Event('input')) }")
    assert shown.count() == 1
    assert "t = 0.00" in shown.text_content()
    assert opened.get_by_text("An attribution").is_visible()


def test_a_mistake_is_told_and_mended(opened):
    asks(opened, "red <imgae>")
    alert = opened.get_by_role("alert")
    alert.wait_for(timeout=30_000)
    assert "imgae" in alert.text_content()
    asks(opened, "red <image>")
    opened.get_by_text("forward passes,").wait_for(timeout=60_000)
    assert alert.count() == 0


def test_a_port_that_is_taken(monkeypatch):
    monkeypatch.setattr(
        host, "configure_malloc", lambda: None
    )  # Of this process, which is many tests'.
    monkeypatch.setattr(answers, "PRETRAINED", runs.trained_run()[1])
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(UserError, match=f"--port={port}"):
            command.run([], port)
