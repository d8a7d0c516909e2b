"""A folder of HTML or Markdown pages with pictures, a document a page."""

import codecs
import re
from collections.abc import Iterator

from oneflow_jax import errors
from oneflow_jax.data.custom import html_text, packages
from oneflow_jax.data.custom.errors import Fault
from oneflow_jax.data.custom.reader import Raw, Settings, Unit, stored
from oneflow_jax.data.custom.sandbox import Folder

HTML = (".html", ".htm", ".xhtml")
MARKDOWN = (".md", ".markdown")
ENDINGS = (*HTML, *MARKDOWN)

AT_ONCE = 32
"""Pages in a unit."""

MOST_BYTES = 16 * 2**20
"""Of a page."""

_MARKS = {
    codecs.BOM_UTF8: "utf-8-sig",
    codecs.BOM_UTF16_LE: "utf-16",
    codecs.BOM_UTF16_BE: "utf-16",
}
_NAMED = re.compile(
    rb"""<(?:meta|\?xml)[^>]{0,200}?(?:charset|encoding)\s*=\s*["']?([\w.:-]{1,40})"""
)
_ALLOWED = re.compile(r"(iso8859-\d+|cp125\d|latin.*|shift_jis|euc_.*|gb.*|big5|koi8.*|utf-16)")
"""Python has others that are no character sets, or slow on purpose-made bytes."""


class Pages:
    """Pages; see above."""

    def units(self, settings: Settings) -> list[Unit]:
        """So many pages each."""
        files = settings.listed(ENDINGS)
        if not files:
            raise errors.UserError(
                f"source.path={settings.path}: no page there (endings {', '.join(ENDINGS)})"
            )
        if any(name.lower().endswith(MARKDOWN) for name in files):
            packages.needed("markdown_it", "markdown-it-py", "pages")
        return [Unit(tuple(files[at : at + AT_ONCE])) for at in range(0, len(files), AT_ONCE)]

    def read(self, settings: Settings, unit: Unit) -> Iterator[Raw]:
        """A document a page."""
        folder = settings.folder
        for name in unit.files:
            try:
                yield Raw(name, tuple(_parts(folder, name)))
            except Fault as fault:
                yield Raw(name, fault=fault)
            except (AssertionError, ValueError, RecursionError) as error:  # Of the parsers.
                message = f"{type(error).__name__}: {error}"
                yield Raw(name, fault=Fault("unreadable file", message))


def _parts(folder: Folder, name: str) -> Iterator[object]:
    page = decoded(folder.bytes(name, MOST_BYTES))
    if name.lower().endswith(MARKDOWN):
        page = packages.needed("markdown_it", "markdown-it-py", "pages").MarkdownIt().render(page)
    for kind, value in html_text.parts(page):
        yield value if kind == "text" else stored(folder, html_text.path_of(value), name)


def decoded(data: bytes) -> str:
    """The text of a page, by its byte order mark, by what it says itself, or as UTF-8.

    Bytes that are no UTF-8 stay to be seen in the words: `words.cleaned` counts them.
    """
    for mark, name in _MARKS.items():
        if data.startswith(mark):
            return data.decode(name, "replace")
    if named := _NAMED.search(data[:2_048]):
        try:
            name = codecs.lookup(named[1].decode("ascii")).name
        except (LookupError, ValueError):
            name = ""
        if _ALLOWED.fullmatch(name):
            return data.decode(name, "replace")
    return data.decode("utf-8", "surrogateescape")
