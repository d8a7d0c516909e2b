"""What MkDocs does not do by itself: pages that stand elsewhere, links that lead out of docs/.

README.md is the first page, and the READMEs of launch/ and benchmarks/ have pages of their own. On
the site, links to them lead there; links to source files, which are no pages, become plain text.
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
"""Page of the site -> the file that it is made of."""

_LINK = re.compile(r"\[([^\]\[]*)\]\(([^)#\s]+)(#[^)\s]*)?\)")


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Adds the pages that stand outside docs/."""
    for page, source in ELSEWHERE.items():
        text = (ROOT / source).read_text(encoding="utf-8")
        here = pathlib.PurePosixPath(source).parent
        files.append(File.generated(config, page, content=_moved(text, here)))
    return files


def on_page_markdown(markdown: str, **_: object) -> str:
    """Leads links that leave docs/ to where their files are on the site."""
    return _moved(markdown, pathlib.PurePosixPath("docs"))


def _moved(text: str, folder: pathlib.PurePosixPath) -> str:
    """The text of a page of some folder of the project, as a page of the site."""
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
