"""Hooks for MkDocs: adds pages from outside docs/, and rewrites links that lead out of docs/.

README.md is the first page, and the READMEs of launch/ and benchmarks/ have pages of their own. On
the site, links to them lead there. Links to source files, which have no page, become plain text.
"""

import pathlib
import re

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files

ROOT = pathlib.Path(__file__).parents[2]
ELSEWHERE = {
    "index.md": "README.md",
    "launch.md": "launch/README.md",
    "benchmarks.md": "benchmarks/README.md",
}
"""Source file of each page from outside docs/, by the name of the page."""

_LINK = re.compile(r"\[([^\]\[]*)\]\(([^)#\s]+)(#[^)\s]*)?\)")


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the pages whose sources are outside docs/."""
    for page, source in ELSEWHERE.items():
        text = (ROOT / source).read_text(encoding="utf-8")
        here = pathlib.PurePosixPath(source).parent
        files.append(File.generated(config, page, content=_moved(text, here)))
    return files


def on_page_markdown(markdown: str, **_: object) -> str:
    """Rewrite links that leave docs/ to the pages of the site."""
    return _moved(markdown, pathlib.PurePosixPath("docs"))


def _moved(text: str, folder: pathlib.PurePosixPath) -> str:
    """Return the text of a Markdown file of `folder` with its links rewritten for the site."""
    pages = {source: page for page, source in ELSEWHERE.items()}

    def led(link: re.Match[str]) -> str:
        label, target, part = link[1], link[2], link[3] or ""
        if re.match(r"[a-z]+:", target):
            return link[0]
        path = _normal(folder / target)
        if path in pages:
            return f"[{label}]({pages[path]}{part})"
        if path.startswith("docs/"):
            return f"[{label}]({path.removeprefix('docs/')}{part})"
        return label

    return _LINK.sub(led, text)


def _normal(path: pathlib.PurePosixPath) -> str:
    parts: list[str] = []
    for part in path.parts:
        parts = parts[:-1] if part == ".." and parts else [*parts, part]
    return "/".join(parts)
