"""Reader of WebDataset tar files: adjacent members with the same key form a document.

The reader unpacks nothing to disk. The module `pairs` describes the layouts of a group of files.
"""

import collections
import dataclasses
import itertools
import posixpath
import tarfile
from collections.abc import Iterator, Sequence

from oneflow_jax.data.custom import pairs
from oneflow_jax.data.custom.errors import SEPARATED, DataError
from oneflow_jax.data.custom.reader import (
    MAX_FILE_BYTES,
    RawDocument,
    Settings,
    WorkUnit,
    list_file_units,
)

EXTENSIONS = (".tar",)

_BLOCK_BYTES = 512

_COMPRESSED = (b"\x1f\x8b", b"BZh", b"\xfd7zXZ\0", b"\x28\xb5\x2f\xfd", b"PK\3\4")
"""First bytes of files of gzip, bzip2, xz, Zstandard and zip."""

_HIDDEN = "hidden"
"""Name under which hidden members are counted, such as `._cat.png` and `.DS_Store` of macOS."""


class _SafeTarInfo(tarfile.TarInfo):
    """Tar header that rejects negative sizes, which make tarfile loop forever (CVE-2025-8194)."""

    def _block(self, count: int) -> int:
        if count < 0:
            raise tarfile.ReadError("negative size")
        return super()._block(count)


class WebDatasetReader:
    """Reader of WebDataset tar files."""

    def list_units(self, settings: Settings) -> list[WorkUnit]:
        """List one unit per tar file."""
        return list_file_units(settings, EXTENSIONS)

    def read(self, settings: Settings, unit: WorkUnit) -> Iterator[RawDocument]:
        """Yield one document per group of members. An unreadable member becomes a `DataError`."""
        (name,) = unit.files
        with settings.folder.open(name) as file:
            if file.read(len(max(_COMPRESSED, key=len))).startswith(_COMPRESSED):
                raise DataError("unreadable file", f"{name}: it is compressed; unpack it")
            file.seek(0)
            try:
                tar = tarfile.open(fileobj=file, mode="r:", tarinfo=_SafeTarInfo)  # noqa: SIM115 - closed with `file`
            except (tarfile.TarError, EOFError, ValueError) as error:
                raise DataError("unreadable file", f"{name}: {error}") from error
            hidden: list[str] = []
            members = _skip_hidden(_iter_members(tar), hidden)
            alone: dict[str, bool] = {}
            for key, group in itertools.groupby(members, key=lambda pair: split_key(pair[0])[0]):
                pairs_of_group = list(group)
                notes = _note_separated(key, [path for path, _ in pairs_of_group], alone)
                for raw in _make_documents(name, pairs_of_group, settings):
                    unused = (*raw.unused, *hidden[:1])
                    hidden.clear()
                    yield dataclasses.replace(raw, unused=unused, notes=(*raw.notes, *notes))
            _check_archive_end(tar, name)


def split_key(name: str) -> tuple[str, str]:
    """Split a path into key and suffix, at the first dot of its file name."""
    folder, base = posixpath.split(name)
    stem, dot, ending = base.partition(".")
    return posixpath.join(folder, stem), (dot + ending).lower()


def _skip_hidden(
    members: "Iterator[tuple[str, MemberLoader | DataError]]", hidden: list[str]
) -> "Iterator[tuple[str, MemberLoader | DataError]]":
    """Yield the members that are not hidden; append `_HIDDEN` to `hidden` for each other one."""
    for name, loader in members:
        folders = posixpath.normpath(name).split("/")
        if any(each.startswith(".") and each != ".." for each in folders) or "__MACOSX" in folders:
            hidden.append(_HIDDEN)
        else:
            yield name, loader


def _note_separated(key: str, names: Sequence[str], alone: dict[str, bool]) -> tuple[str, ...]:
    """Return a note if the image or the text of these members came earlier, in another document.

    Args:
        key: key of the members.
        names: names of the members.
        alone: whether the member is a text, for the place of each earlier member that is an image
            without text or a text without image. The function adds these members.
    """
    is_text = pairs.has_text(names)
    if is_text == pairs.has_image(names):
        return ()
    return (SEPARATED,) if alone.setdefault(pairs.generalize(key), is_text) != is_text else ()


def _make_documents(
    name: str, group: "Sequence[tuple[str, MemberLoader | DataError]]", settings: Settings
) -> Iterator[RawDocument]:
    """Yield the document of a group of members whose names are equal up to the first dot.

    Keys may contain dots. So if `pairs` divides the group into several groups that all have text,
    yield a document for each of these groups.
    """
    loaders = dict(group)
    key = split_key(group[0][0])[0]
    groups = pairs.group_names(list(loaders))
    if not all(map(pairs.has_text, groups.values())):
        groups = {key: list(loaders)}
    faults = [
        DataError("unreadable file", f"another member has the same name, {path[:80]}")
        for path, count in collections.Counter(path for path, _ in group).items()
        for _ in range(count - 1)
    ]
    for group_key, sorted_paths in groups.items():
        paths = [path for path in loaders if path in sorted_paths]  # Keep the archive's order.
        faults += [loader for path in paths if isinstance(loader := loaders[path], DataError)]
        members = [
            pairs.GroupMember(path, path[len(group_key) :].lower(), loaders[path])
            for path in paths
            if not isinstance(loaders[path], DataError)
        ]
        raw = pairs.make_document(f"{name}, {group_key}", members, settings.columns)
        yield dataclasses.replace(raw, parts=(*raw.parts, *faults))
        faults = []


def _iter_members(tar: tarfile.TarFile) -> Iterator[tuple[str, "MemberLoader | DataError"]]:
    """Yield the name of each member with its loader, or with an error if it cannot be loaded."""
    last = -1
    while (member := _next_member(tar)) is not None:
        tar.members = []  # Otherwise tarfile keeps all members in memory.
        if member.offset_data <= last:
            raise DataError("unreadable file", f"at byte {last:,}: a header points backwards")
        last = member.offset_data
        if member.isdir():
            continue
        parts = posixpath.normpath(member.name).split("/")
        if posixpath.isabs(member.name) or ".." in parts:
            yield member.name, DataError("outside the folder", member.name[:80])
        elif not member.isreg():
            yield member.name, DataError("not a file", member.name[:80])
        else:
            yield member.name, MemberLoader(tar, member)


def _next_member(tar: tarfile.TarFile) -> tarfile.TarInfo | None:
    try:
        return tar.next()
    except Exception as error:  # tarfile raises many types of exceptions on malicious headers.
        message = f"at byte {tar.offset:,}: {type(error).__name__}: {error}"
        raise DataError("unreadable file", message) from error


class MemberLoader:
    """Callable that returns the bytes of a member of an open tar file."""

    def __init__(self, tar: tarfile.TarFile, member: tarfile.TarInfo) -> None:
        """Initialize the loader without reading."""
        self._tar, self._member = tar, member

    def __call__(self) -> bytes:
        """Read all bytes of the member.

        Raises:
            DataError: the member is too large, or cannot be read.
        """
        if self._member.size > MAX_FILE_BYTES:
            raise DataError("too large", f"{self._member.size:,} bytes")
        try:
            return self._tar.extractfile(self._member).read()
        except Exception as error:  # tarfile raises many types of exceptions.
            message = f"{self._member.name[:80]}: {type(error).__name__}: {error}"
            raise DataError("unreadable file", message) from error


def _check_archive_end(tar: tarfile.TarFile, name: str) -> None:
    """Check that the archive really ends here, since tarfile treats a damaged header as the end.

    Raises:
        DataError: the next block is not all zeros, so it is a damaged header.
    """
    tar.fileobj.seek(tar.offset)
    block = tar.fileobj.read(_BLOCK_BYTES)
    if block.strip(b"\0"):
        raise DataError("unreadable file", f"{name}, at byte {tar.offset:,}: damaged header")
