"""Tests of the documentation site: its pages, links and search, and pages without a network."""

import functools
import http.server
import os
import re
import shutil
import subprocess
import sys
import threading

import pytest

from tests import runs
from tests.viewer.test_browser import browser  # noqa: F401 - a fixture

pytest.importorskip("mkdocs", reason="pip install -r requirements-docs.txt")

REPOSITORY = "https://example.com/me/oneflow_jax"
PHONE, LAPTOP = {"width": 390, "height": 844}, {"width": 1280, "height": 900}


def build_site(project, site, **variables):
    quiet = {**os.environ, "REPOSITORY": "", "NO_MKDOCS_2_WARNING": "1", **variables}
    return subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", f"--site-dir={site}"],
        capture_output=True,
        text=True,
        check=False,
        cwd=project,
        env=quiet,
    )


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    folder = tmp_path_factory.mktemp("site")
    done = build_site(runs.REPOSITORY, folder)
    assert done.returncode == 0, done.stderr
    return folder


@pytest.fixture
def open_page(browser, site):  # noqa: F811
    """Return a function that opens a page; at teardown, fail if there were console messages."""
    contexts, complaints = [], []

    def open_page(page, address=None, **wishes):
        address = address or site.as_uri()
        context = browser.new_context(**{"viewport": LAPTOP, **wishes})
        contexts.append(context)
        tab = context.new_page()
        tab.set_default_timeout(0)  # A busy machine may take minutes.
        tab.on("console", lambda message: complaints.append(f"{page}: {message.text}"))
        tab.on("pageerror", lambda error: complaints.append(f"{page}: {error}"))
        tab.on("request", lambda sent: sent.url.startswith(("data:", address)) or outside(sent))
        tab.goto(f"{address}/{page}")
        return tab

    def outside(sent):
        complaints.append(f"request of {sent.url}")

    yield open_page
    for context in contexts:
        context.close()
    assert complaints == []


def test_every_page_is_built(site):
    pages = {path.stem for path in (runs.REPOSITORY / "docs").glob("*.md")}
    assert {f"{page}.html" for page in pages | {"index", "launch", "benchmarks"}} <= {
        path.name for path in site.glob("*.html")
    }
    nav = (site / "index.html").read_text("utf-8")
    assert [page for page in pages if f'href="{page}.html"' not in nav] == []
    reference = (site / "reference.html").read_text("utf-8")
    assert "Fill the gaps of one prompt" in reference
    assert '<span class="n">generate_batch</span>' in reference  # The example of its docstring.
    # Pages load no fonts from other servers.
    assert "fonts.googleapis.com" not in nav
    assert not re.search(r'(href|src|srcset)="(\.\./)*docs/', nav)
    assert 'rel="edit"' not in nav


def test_broken_links_fail_the_build(tmp_path):
    project = tmp_path / "project"
    for name in ("docs", "launch", "benchmarks"):
        shutil.copytree(
            runs.REPOSITORY / name, project / name, ignore=shutil.ignore_patterns("*.py[co]")
        )
    for name in ("mkdocs.yml", "README.md", "CONTRIBUTING.md"):
        shutil.copy(runs.REPOSITORY / name, project / name)
    reference = project / "docs" / "reference.md"
    reference.write_text("# Reference\n\nSee [nothing](nowhere.md).\n")
    done = build_site(project, tmp_path / "site")
    assert done.returncode != 0
    assert "nowhere.md" in done.stderr


def test_pages_link_to_their_sources_if_a_repository_is_configured(tmp_path):
    done = build_site(runs.REPOSITORY, tmp_path, REPOSITORY=REPOSITORY)
    assert done.returncode == 0, done.stderr
    first, tpu, reference = (
        (tmp_path / name).read_text("utf-8")
        for name in ("index.html", "tpu.html", "reference.html")
    )
    assert f'href="{REPOSITORY}/edit/main/README.md"' in first
    assert f'href="{REPOSITORY}/edit/main/docs/tpu.md"' in tpu
    assert f'href="{REPOSITORY}/blob/main/oneflow_jax/costs/chips.py"' in tpu
    assert f'href="{REPOSITORY}/blob/main/oneflow_jax/api/model.py#L' in reference
    # The theme asks api.github.com for stars where it finds this component.
    assert 'data-md-component="source"' not in first


def test_pages_work_as_files_without_a_network(site, open_page):
    pages = sorted(path.name for path in site.glob("*.html") if path.name != "404.html")
    equations = 0
    for page in pages:
        tab = open_page(page, offline=True, viewport=PHONE)
        assert tab.locator("article h1").count() >= 1, page
        assert tab.locator("[name=query], [for=__search]").count() == 0, page
        equations += tab.locator(".katex-html").count()
        assert tab.locator(".arithmatex:not(:has(.katex-html))").count() == 0, page
        width = tab.evaluate("document.documentElement.scrollWidth")
        assert width <= PHONE["width"], f"{page} is {width} pixels wide"
        tab.context.close()
    assert equations > 100


def test_search_finds_a_page(site, open_page):
    class Quiet(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *_):
            pass

    handler = functools.partial(Quiet, directory=site)
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        tab = open_page("index.html", f"http://127.0.0.1:{server.server_port}")
        tab.locator("[name=query]").fill("renoising")
        tab.locator(".md-search-result__link").first.wait_for(state="attached")
        links = tab.locator(".md-search-result__link").evaluate_all("all => all.map(a => a.href)")
        server.shutdown()
    assert any("oneflow.html" in link for link in links)


@pytest.mark.parametrize("viewport", [PHONE, LAPTOP], ids=["phone", "laptop"])
def test_wide_tables_scroll_and_keep_their_first_column(viewport, open_page):
    tab = open_page("comparison.html", offline=True, viewport=viewport)
    table = tab.locator("table", has_text="Seconds per document, batch 8")
    measured = table.evaluate("""table => {
      const scroller = table.closest(".md-typeset__scrollwrap");
      const cells = [...table.rows[2].cells];
      scroller.scrollLeft = 1e6;
      const left = (element) => element.getBoundingClientRect().left;
      return {hidden: scroller.scrollWidth - scroller.clientWidth, scrolled: scroller.scrollLeft,
              first: left(cells[0]) - left(scroller), second: left(cells[1]) - left(scroller)};
    }""")
    assert measured["scrolled"] == pytest.approx(measured["hidden"], abs=1)
    assert measured["hidden"] > 100
    assert 0 <= measured["first"] < 20
    assert measured["second"] < measured["first"]
