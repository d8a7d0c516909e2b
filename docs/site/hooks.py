"""Hooks for MkDocs: adds pages from outside docs/, and rewrites links that lead out of docs/.

README.md is the first page, and CONTRIBUTING.md and the READMEs of launch/ and benchmarks/ have
pages of their own. On the site, links to them lead there. Links to source files, which have no
page, lead to the repository if `repo_url` is set, and become plain text otherwise.
"""

import pathlib
import re

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

ROOT = pathlib.Path(__file__).parents[2]
ELSEWHERE = {
    "index.md": "README.md",
    "contributing.md": "CONTRIBUTING.md",
    "launch.md": "launch/README.md",
    "benchmarks.md": "benchmarks/README.md",
}
"""Source file of each page from outside docs/, by the name of the page."""

_LINK = re.compile(r"\[([^\]\[]*)\]\(([^)#\s]+)(#[^)\s]*)?\)")
_IMAGE = re.compile(r'(?<=src=")docs/|(?<=srcset=")docs/')
"""The folder docs/ in addresses of HTML images of README.md."""


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the pages whose sources are outside docs/."""
    for page, source in ELSEWHERE.items():
        text = (ROOT / source).read_text(encoding="utf-8")
        here = pathlib.PurePosixPath(source).parent
        content = _IMAGE.sub("", _move_links(text, here, config.repo_url))
        files.append(File.generated(config, page, content=content))
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, **_: object) -> str:
    """Rewrite links that leave docs/, and set the address at which the page can be edited."""
    if config.repo_url:
        source = ELSEWHERE.get(page.file.src_uri, f"docs/{page.file.src_uri}")
        page.edit_url = f"{config.repo_url}/edit/main/{source}"
    return _move_links(markdown, pathlib.PurePosixPath("docs"), config.repo_url)


def _move_links(text: str, folder: pathlib.PurePosixPath, repository: str | None) -> str:
    """Return the text of a Markdown file of `folder` with its links rewritten for the site."""
    pages = {source: page for page, source in ELSEWHERE.items()}

    def move(link: re.Match[str]) -> str:
        label, target, part = link[1], link[2], link[3] or ""
        if re.match(r"[a-z]+:", target):
            return link[0]
        path = _normalize(folder / target)
        if path in pages:
            return f"[{label}]({pages[path]}{part})"
        if path.startswith("docs/"):
            return f"[{label}]({path.removeprefix('docs/')}{part})"
        return f"[{label}]({repository}/blob/main/{path}{part})" if repository else label

    return _LINK.sub(move, text)


def _normalize(path: pathlib.PurePosixPath) -> str:
    parts: list[str] = []
    for part in path.parts:
        parts = parts[:-1] if part == ".." and parts else [*parts, part]
    return "/".join(parts)
