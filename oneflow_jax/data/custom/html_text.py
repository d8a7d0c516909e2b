"""Words and pictures of an HTML page, in reading order, without what surrounds them."""

import html.parser
import urllib.parse

SKIP_ELEMENTS = frozenset(
    (
        *("script", "style", "noscript", "template", "head", "nav", "header", "footer", "aside"),
        *("form", "button", "select", "option", "textarea", "svg", "math", "iframe", "object"),
        *("video", "audio", "canvas", "map", "dialog"),
    )
)
"""Elements whose insides are no part of the text."""

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
"""Elements that do not part words."""

MAX_DEPTH = 512
"""Elements within elements; what is open beyond is forgotten."""

HtmlPart = tuple[str, str]
"""("text", words) or ("image", address)."""


class _PageParser(html.parser.HTMLParser):
    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.everything: list[HtmlPart] = []
        self.main: list[HtmlPart] = []
        self._open: list[tuple[str, str]] = []  # element, and what it begins
        self._skipping = self._inside = 0
        self._words: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        values = {name: value or "" for name, value in attrs}
        if tag not in INLINE_ELEMENTS:
            self._words.append(" ")
        if tag == "img" and not self._skipping:
            address = values.get("src") or values.get("data-src")
            if address:
                self._add(("image", address))
        if tag in VOID_ELEMENTS or len(self._open) >= MAX_DEPTH:
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
        self._open.append((tag, begins))
        self._count(begins, 1)

    def handle_endtag(self, tag: str) -> None:
        if tag not in INLINE_ELEMENTS:
            self._words.append(" ")
        if all(tag != name for name, _ in self._open):
            return
        while self._open:
            name, begins = self._open.pop()
            self._count(begins, -1)
            if name == tag:
                return

    def handle_data(self, data: str) -> None:
        if not self._skipping:
            self._words.append(data)

    def close(self) -> None:
        super().close()
        self._flush()

    def _count(self, begins: str, change: int) -> None:
        if begins == "main":
            self._flush()
            self._inside += change
        elif begins == "skip":
            self._skipping += change

    def _flush(self) -> None:
        words = " ".join("".join(self._words).split(" "))
        self._words = []
        if words.strip():
            self._keep(("text", words))

    def _add(self, found: HtmlPart) -> None:
        self._flush()
        self._keep(found)

    def _keep(self, found: HtmlPart) -> None:
        self.everything.append(found)
        if self._inside:
            self.main.append(found)


def extract_parts(page: str) -> list[HtmlPart]:
    """Words and addresses of pictures of a page.

    If there is a `<main>`, an `<article>` or something of the role main, what is outside is left
    out; scripts, navigation and the like always are.
    """
    reader = _PageParser()
    reader.feed(page)
    reader.close()
    return reader.main or reader.everything


def url_to_path(url: str) -> str:
    """The path of a file that an address on a page means; other addresses stay as they are."""
    url = url.strip()
    if urllib.parse.urlsplit(url).scheme or url.startswith("//"):
        return url
    return urllib.parse.unquote(url.partition("#")[0].partition("?")[0])
