"""Reader of a folder of HTML or Markdown pages with images; each page is one document.

If a page shows no image, image files with its name come before its text: `cat.png` for `cat.md`.
The front matter of a Markdown page gives its text only if the page has no text, and its image only
if the page has no image.
"""

import codecs
import posixpath
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from oneflow_jax import errors
from oneflow_jax.data.custom import (
    front_matter,
    html_text,
    image_decode,
    image_value,
    packages,
    record,
)
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
        images: dict[str, list[str]] = {}
        for name in settings.folder.list_files(image_decode.EXTENSIONS):
            images.setdefault(posixpath.splitext(name)[0], []).append(name)
        return [
            WorkUnit(tuple(file for page in chunk for file in (page, *_find_beside(page, images))))
            for chunk in chunk_stably(files, PAGES_PER_UNIT)
        ]

    def read(self, settings: Settings, unit: WorkUnit) -> Iterator[RawDocument]:
        """Yield one document per page."""
        folder = settings.folder
        pages = [name for name in unit.files if name.lower().endswith(EXTENSIONS)]
        images: dict[str, list[str]] = {}
        for name in set(unit.files).difference(pages):
            images.setdefault(posixpath.splitext(name)[0], []).append(name)
        for name in pages:
            try:
                yield _make_document(folder, name, _find_beside(name, images))
            except DataError as fault:
                yield RawDocument(name, error=fault)
            except (
                AssertionError,
                ValueError,
                RecursionError,
            ) as error:  # The HTML and Markdown parsers raise these.
                message = f"{type(error).__name__}: {error}"
                yield RawDocument(name, error=DataError("unreadable file", message))


def _find_beside(page: str, images: Mapping[str, Sequence[str]]) -> list[str]:
    """Return the images with the name of a page. Keys of `images` are names without extension."""
    return sorted(images.get(posixpath.splitext(page)[0], ()))


def _make_document(folder: SandboxedFolder, name: str, beside: Sequence[str]) -> RawDocument:
    page, fields = decode_page(folder.read_bytes(name, MAX_PAGE_BYTES)), {}
    if name.lower().endswith(MARKDOWN_EXTENSIONS):
        fields, page = front_matter.split(page)
        page = packages.require("markdown_it", "markdown-it-py", "pages").MarkdownIt().render(page)

    def locate(url: object) -> RawImage | DataError:
        return locate_image(folder, html_text.url_to_path(str(url)), name)

    parts: list[tuple[str, Any]] = list(html_text.extract_parts(page))
    kinds = {kind for kind, _ in parts}
    used = [key for key in _choose_fields(fields, folder, name) if _kind(key) not in kinds]
    parts = [
        *((_kind(key), value) for key in used for value in _as_list(fields[key])),
        *parts,
    ]
    if all(kind == "text" for kind, _ in parts):
        # Not `locate`, since these are names of files and not URLs.
        near = [locate_image(folder, posixpath.basename(file), name) for file in beside]
        parts, beside = [*(("image", image) for image in near), *parts], ()
    unused = [f"front matter: {key}" for key in fields if key not in used]
    unused += [f"image beside a page: {posixpath.splitext(file)[1]}" for file in beside]
    return RawDocument(
        name,
        tuple(
            value if kind == "text" else image_value.to_raw_image(value, locate)
            for kind, value in parts
        ),
        used=tuple(f"front matter: {key}" for key in used),
        unused=tuple(dict.fromkeys(unused)),
    )


def _choose_fields(fields: Mapping[str, Any], folder: SandboxedFolder, page: str) -> list[str]:
    """Return the fields of front matter that name images in the folder, and then those of text."""
    known = {
        key: value
        for key, value in fields.items()
        if value is not None
        and (
            not record.is_image_name(key)
            or all(folder.has_file(html_text.url_to_path(path), page) for path in _as_list(value))
        )
    }
    try:
        used = record.parse(known).used
    except (AttributeError, KeyError, TypeError, ValueError):
        return []
    return sorted(used, key=lambda key: _kind(key) != "image")


def _kind(field: str) -> str:
    return "image" if record.is_image_name(field) else "text"


def _as_list(value: str | list[str]) -> list[str]:
    return value if isinstance(value, list) else [value]


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
