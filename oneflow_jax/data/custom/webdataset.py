"""Tar files in the layout of WebDataset: files of one key stand together, a document each.

Nothing is unpacked to disk. Layouts of a group are those of `groups`.
"""

import itertools
import posixpath
import tarfile
from collections.abc import Iterator

from oneflow_jax import errors
from oneflow_jax.data.custom import pairs
from oneflow_jax.data.custom.errors import DataError
from oneflow_jax.data.custom.reader import MAX_FILE_BYTES, RawDocument, Settings, WorkUnit

EXTENSIONS = (".tar",)

_BLOCK_BYTES = 512


class _SafeTarInfo(tarfile.TarInfo):
    """Refuses sizes below zero, which send Python's reader in circles (CVE-2025-8194)."""

    def _block(self, count: int) -> int:
        if count < 0:
            raise tarfile.ReadError("a size below zero")
        return super()._block(count)


class WebDatasetReader:
    """Tar files; see above."""

    def units(self, settings: Settings) -> list[WorkUnit]:
        """A tar file each."""
        files = settings.list_files(EXTENSIONS)
        if not files:
            raise errors.UserError(f"source.path={settings.path}: no file there ends in .tar")
        return [WorkUnit((name,)) for name in files]

    def read(self, settings: Settings, unit: WorkUnit) -> Iterator[RawDocument]:
        """A document a group of members; what is no plain file, or has a bad path, is told."""
        (name,) = unit.files
        with settings.folder.opened(name) as file:
            try:
                tar = tarfile.open(fileobj=file, mode="r:", tarinfo=_SafeTarInfo)  # noqa: SIM115 - closed with `file`
            except (tarfile.TarError, EOFError, ValueError) as error:
                raise DataError("unreadable file", f"{name}: {error}") from error
            found = _iter_members(tar)
            for key, group in itertools.groupby(
                found, key=lambda pair: pairs.split_key(pair[0])[0]
            ):
                members, faults = [], []
                for path, got in group:
                    if isinstance(got, DataError):
                        faults.append(got)
                    else:
                        members.append(pairs.GroupMember(path, pairs.split_key(path)[1], got))
                raw = pairs.make_document(f"{name}, {key}", members, settings.fields)
                yield RawDocument(raw.where, (*raw.parts, *faults), raw.fault)
            _check_archive_end(tar, name)


def _iter_members(tar: tarfile.TarFile) -> Iterator[tuple[str, "MemberLoader | DataError"]]:
    """Names, and what loads them or why it cannot be done."""
    last = -1
    while (member := _next_member(tar)) is not None:
        tar.members = []  # It would keep all of them.
        if member.offset_data <= last:
            raise DataError("unreadable file", f"at byte {last:,}: a header that leads back")
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
    except Exception as error:  # Hostile headers lead tarfile to errors of many kinds.
        message = f"at byte {tar.offset:,}: {type(error).__name__}: {error}"
        raise DataError("unreadable file", message) from error


class MemberLoader:
    """Gives the bytes of a member of a tar file that is open."""

    def __init__(self, tar: tarfile.TarFile, member: tarfile.TarInfo) -> None:
        """Reads nothing yet."""
        self._tar, self._member = tar, member

    def __call__(self) -> bytes:
        """All bytes; raises `Fault`."""
        if self._member.size > MAX_FILE_BYTES:
            raise DataError("too large", f"{self._member.size:,} bytes")
        try:
            return self._tar.extractfile(self._member).read()
        except Exception as error:  # As above.
            message = f"{self._member.name[:80]}: {type(error).__name__}: {error}"
            raise DataError("unreadable file", message) from error


def _check_archive_end(tar: tarfile.TarFile, name: str) -> None:
    """Tarfile takes a damaged header for the end of all."""
    tar.fileobj.seek(tar.offset)
    block = tar.fileobj.read(_BLOCK_BYTES)
    if block.strip(b"\0"):
        raise DataError("unreadable file", f"{name}, at byte {tar.offset:,}: a damaged header")
