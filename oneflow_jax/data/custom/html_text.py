"""Extraction of text and images from an HTML page, in reading order and without navigation."""

import html.parser
import urllib.parse
from collections.abc import Mapping

SKIP_ELEMENTS = frozenset(
    (
        *("script", "style", "noscript", "template", "head", "nav", "header", "footer", "aside"),
        *("form", "button", "select", "option", "textarea", "svg", "math", "iframe", "object"),
        *("video", "audio", "canvas", "map", "dialog"),
    )
)
"""Elements whose content is skipped."""

SKIP_ROLES = frozenset(("navigation", "banner", "search", "contentinfo", "complementary", "dialog"))
SKIP_CLASSES = frozenset(
    (
        *("navheader", "navfooter", "sidebar", "sphinxsidebar", "related", "toc", "navbar"),
        *("breadcrumbs", "footer", "headerlink", "sphx-glr-download"),
    )
)

VOID_ELEMENTS = frozenset(
    (
        *("area", "base", "br", "col", "embed", "hr", "img", "input", "link", "meta", "param"),
        *("source", "track", "wbr"),
    )
)
INLINE_ELEMENTS = frozenset(
    (
        *("a", "abbr", "b", "bdi", "bdo", "big", "cite", "code", "data", "del", "dfn", "em"),
        *("font", "i", "img", "ins", "kbd", "label", "mark", "q", "s", "samp", "small", "span"),
        *("strike", "strong", "sub", "sup", "time", "tt", "u", "var", "wbr"),
    )
)
"""Elements that do not separate words."""

MAX_DEPTH = 512
"""Maximum nesting depth; deeper elements do not begin a skipped or main region."""

HtmlPart = tuple[str, str]
"""("text", words) or ("image", address)."""


class _PageParser(html.parser.HTMLParser):
    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.all_parts: list[HtmlPart] = []
        self.main_parts: list[HtmlPart] = []
        self._open_elements: list[tuple[str, str]] = []  # (element, "skip", "main" or "")
        self._skip_depth = self._main_depth = 0
        self._text_buffer: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        values = {name: value or "" for name, value in attrs}
        if tag not in INLINE_ELEMENTS:
            self._text_buffer.append(" ")
        if tag == "img" and not self._skip_depth and (address := _choose_address(values)):
            self._flush_and_emit(("image", address))
        if tag in VOID_ELEMENTS or len(self._open_elements) >= MAX_DEPTH:
            return
        role = values.get("role", "")
        begins = ""
        if (
            tag in SKIP_ELEMENTS
            or role in SKIP_ROLES
            or not SKIP_CLASSES.isdisjoint(values.get("class", "").split())
        ):
            begins = "skip"
        elif tag in ("main", "article") or role == "main":
            begins = "main"
        self._open_elements.append((tag, begins))
        self._track_depth(begins, 1)

    def handle_endtag(self, tag: str) -> None:
        if tag not in INLINE_ELEMENTS:
            self._text_buffer.append(" ")
        if all(tag != name for name, _ in self._open_elements):
            return
        while self._open_elements:
            name, begins = self._open_elements.pop()
            self._track_depth(begins, -1)
            if name == tag:
                return

    def handle_data(self, data: str) -> None:
        if not self._skip_depth:
            self._text_buffer.append(data)

    def close(self) -> None:
        super().close()
        self._flush()

    def _track_depth(self, region: str, change: int) -> None:
        if region == "main":
            self._flush()
            self._main_depth += change
        elif region == "skip":
            self._skip_depth += change

    def _flush(self) -> None:
        words = " ".join("".join(self._text_buffer).split(" "))
        self._text_buffer = []
        if words.strip():
            self._emit(("text", words))

    def _flush_and_emit(self, part: HtmlPart) -> None:
        self._flush()
        self._emit(part)

    def _emit(self, part: HtmlPart) -> None:
        self.all_parts.append(part)
        if self._main_depth:
            self.main_parts.append(part)


def _choose_address(attributes: Mapping[str, str]) -> str:
    """Return the address of an `<img>` element, or "" if it has none.

    On pages that load images lazily, `src` is missing or holds a placeholder as a data URI.
    """
    candidates = [attributes.get("src", ""), attributes.get("data-src", "")]
    for name in ("srcset", "data-srcset"):  # Addresses with sizes: "cat.png 1x, cat2.png 2x".
        candidates += [each.rstrip(",") for each in attributes.get(name, "").split()[:1]]
    found = [address for address in candidates if address]
    return next((each for each in found if not each.startswith("data:")), (*found, "")[0])


def extract_parts(page: str) -> list[HtmlPart]:
    """Return the texts and image addresses of a page.

    If the page has a `<main>`, an `<article>` or an element with role main, only the content of
    such elements is returned. Scripts, navigation and other `SKIP_ELEMENTS` are never returned.
    """
    reader = _PageParser()
    reader.feed(page)
    reader.close()
    return reader.main_parts or reader.all_parts


def url_to_path(url: str) -> str:
    """Convert a relative URL to a file path; return any other URL unchanged."""
    url = url.strip()
    if urllib.parse.urlsplit(url).scheme or url.startswith("//"):
        return url
    return urllib.parse.unquote(url.partition("#")[0].partition("?")[0])
