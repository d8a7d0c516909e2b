"""Reader of a folder of HTML or Markdown pages with images; each page is one document."""

import codecs
import re
from collections.abc import Iterator

from oneflow_jax import errors
from oneflow_jax.data.custom import html_text, image_value, packages
from oneflow_jax.data.custom.errors import DataError
from oneflow_jax.data.custom.reader import (
    RawDocument,
    RawImage,
    Settings,
    WorkUnit,
    chunk_stably,
    locate_image,
)
from oneflow_jax.data.custom.sandbox import SandboxedFolder

HTML_EXTENSIONS = (".html", ".htm", ".xhtml")
MARKDOWN_EXTENSIONS = (".md", ".markdown")
EXTENSIONS = (*HTML_EXTENSIONS, *MARKDOWN_EXTENSIONS)

PAGES_PER_UNIT = 32
"""Average number of pages in a work unit."""

MAX_PAGE_BYTES = 16 * 2**20
"""Maximum size of a page, in bytes."""

_BOM_ENCODINGS = {
    codecs.BOM_UTF8: "utf-8-sig",
    codecs.BOM_UTF16_LE: "utf-16",
    codecs.BOM_UTF16_BE: "utf-16",
}
_DECLARED_ENCODING = re.compile(
    rb"""<(?:meta|\?xml)[^>]{0,200}?(?:charset|encoding)\s*=\s*["']?([\w.:-]{1,40})"""
)
_ALLOWED_ENCODINGS = re.compile(
    r"(iso8859-\d+|cp125\d|latin.*|shift_jis|euc_.*|gb.*|big5|koi8.*|utf-16)"
)
"""Encodings that a page may declare. Others are ignored, because some of Python's codecs are not
character sets, or are slow on malicious bytes."""


class WebPagesReader:
    """Reader of HTML and Markdown pages."""

    def list_units(self, settings: Settings) -> list[WorkUnit]:
        """List units of about `PAGES_PER_UNIT` pages."""
        files = settings.list_files(EXTENSIONS)
        if not files:
            raise errors.UserError(
                f"source.path={settings.path}: no page found. Pages end in {', '.join(EXTENSIONS)}."
            )
        if any(name.lower().endswith(MARKDOWN_EXTENSIONS) for name in files):
            packages.require("markdown_it", "markdown-it-py", "pages")
        return [WorkUnit(tuple(chunk)) for chunk in chunk_stably(files, PAGES_PER_UNIT)]

    def read(self, settings: Settings, unit: WorkUnit) -> Iterator[RawDocument]:
        """Yield one document per page."""
        folder = settings.folder
        for name in unit.files:
            try:
                yield RawDocument(name, tuple(_to_parts(folder, name)))
            except DataError as fault:
                yield RawDocument(name, error=fault)
            except (
                AssertionError,
                ValueError,
                RecursionError,
            ) as error:  # The parsers raise these.
                message = f"{type(error).__name__}: {error}"
                yield RawDocument(name, error=DataError("unreadable file", message))


def _to_parts(folder: SandboxedFolder, name: str) -> Iterator[object]:
    page = decode_page(folder.read_bytes(name, MAX_PAGE_BYTES))
    if name.lower().endswith(MARKDOWN_EXTENSIONS):
        page = packages.require("markdown_it", "markdown-it-py", "pages").MarkdownIt().render(page)

    def locate(url: object) -> RawImage | DataError:
        return locate_image(folder, html_text.url_to_path(str(url)), name)

    for kind, value in html_text.extract_parts(page):
        yield value if kind == "text" else image_value.to_raw_image(value, locate)


def decode_page(data: bytes) -> str:
    """Decode a page by its byte order mark, else by its declared encoding, and else as UTF-8.

    Bytes that are not UTF-8 become surrogates, which `text_clean.clean_text` replaces and counts.
    """
    for mark, name in _BOM_ENCODINGS.items():
        if data.startswith(mark):
            return data.decode(name, "replace")
    if named := _DECLARED_ENCODING.search(data[:2_048]):
        try:
            name = codecs.lookup(named[1].decode("ascii")).name
        except (LookupError, ValueError):
            name = ""
        if _ALLOWED_ENCODINGS.fullmatch(name):
            return data.decode(name, "replace")
    return data.decode("utf-8", "surrogateescape")
