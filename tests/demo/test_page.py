"""Tests of the demo page in Chromium: prompts, streaming and error messages."""

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
def page_tab(browser, address):  # noqa: F811
    """Open the page; at teardown, fail if there were requests to other servers."""
    context = browser.new_context(viewport={"width": 1200, "height": 1000})
    tab = context.new_page()
    errors, elsewhere = [], []

    def block_other_hosts(route):
        if route.request.url.startswith((address, "data:", "blob:")):
            route.continue_()
        else:
            elsewhere.append(route.request.url)
            route.abort()

    tab.route("**/*", block_other_hosts)
    tab.on("pageerror", lambda error: errors.append(str(error)))
    tab.goto(address)
    tab.get_by_role("button", name="Generate").wait_for(timeout=30_000)
    yield tab
    context.close()
    assert errors == []
    # Gradio's page frame requests this one script, and works without it.
    assert [url for url in elsewhere if "iframe-resizer" not in url] == []


def submit_prompt(tab, text):
    tab.get_by_label("Document").first.fill(text)
    tab.get_by_role("button", name="Generate").click()


def test_document_is_generated_on_the_page(page_tab):
    submit_prompt(page_tab, "a picture of red: <image> and <text>")
    slider = page_tab.get_by_label("step", exact=True)
    page_tab.get_by_text("forward passes,").wait_for(timeout=60_000)
    slide = page_tab.locator("[data-slide]:visible")
    assert slide.count() == 1
    assert "t = 1.00" in slide.text_content()
    assert "a picture of red:" in slide.text_content()
    slider.evaluate("one => { one.value = 0; one.dispatchEvent(new Event('input')) }")
    assert slide.count() == 1
    assert "t = 0.00" in slide.text_content()
    assert page_tab.get_by_text("An attribution").is_visible()


def test_error_is_shown_and_can_be_corrected(page_tab):
    submit_prompt(page_tab, "red <imgae>")
    alert = page_tab.get_by_role("alert")
    alert.wait_for(timeout=30_000)
    assert "imgae" in alert.text_content()
    submit_prompt(page_tab, "red <image>")
    page_tab.get_by_text("forward passes,").wait_for(timeout=60_000)
    assert alert.count() == 0


def test_port_in_use_is_reported(monkeypatch):
    monkeypatch.setattr(
        host, "configure", lambda: None
    )  # Do not change the allocator of the test process.
    monkeypatch.setattr(answers, "PRETRAINED", runs.trained_run()[1])
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(UserError, match=f"--port={port}"):
            command.run([], port)
