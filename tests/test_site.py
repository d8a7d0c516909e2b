"""Tests of the documentation site: all pages are built, and broken links are errors."""

import os
import re
import shutil
import subprocess
import sys

import pytest

from tests import runs

pytest.importorskip("mkdocs", reason="pip install -r requirements-docs.txt")

QUIET = os.environ | {"NO_MKDOCS_2_WARNING": "1"}


def build_site(project, site):
    return subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", f"--site-dir={site}"],
        capture_output=True,
        text=True,
        check=False,
        cwd=project,
        env=QUIET,
    )


def test_every_page_is_built(tmp_path):
    done = build_site(runs.REPOSITORY, tmp_path)
    assert done.returncode == 0, done.stderr
    pages = {path.stem for path in (runs.REPOSITORY / "docs").glob("*.md")}
    assert {f"{page}.html" for page in pages | {"index", "launch", "benchmarks"}} <= {
        path.name for path in tmp_path.glob("*.html")
    }
    nav = (tmp_path / "index.html").read_text("utf-8")
    assert [page for page in pages if f'href="{page}.html"' not in nav] == []
    reference = (tmp_path / "reference.html").read_text("utf-8")
    assert "Fill the gaps of one prompt" in reference
    # Pages load no fonts from other servers.
    assert "fonts.googleapis.com" not in nav
    assert not re.search(r'href="(\.\./)*docs/', nav)


def test_broken_links_fail_the_build(tmp_path):
    project = tmp_path / "project"
    for name in ("docs", "launch", "benchmarks"):
        shutil.copytree(
            runs.REPOSITORY / name, project / name, ignore=shutil.ignore_patterns("*.py[co]")
        )
    for name in ("mkdocs.yml", "README.md"):
        shutil.copy(runs.REPOSITORY / name, project / name)
    reference = project / "docs" / "reference.md"
    reference.write_text("# Reference\n\nSee [nothing](nowhere.md).\n")
    done = build_site(project, tmp_path / "site")
    assert done.returncode != 0
    assert "nowhere.md" in done.stderr
