"""Access to the user's files, restricted to the given folder."""

import contextlib
import contextvars
import dataclasses
import errno
import os
import pathlib
import re
import stat
from collections.abc import Iterator, Sequence
from typing import BinaryIO

from oneflow_jax.data.custom.errors import DataError

FileStat = tuple[int, int, int, int]
"""Size, modification and status change times in ns, and inode of a file. Any write changes them."""

_URL = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+:|//")

_READS: contextvars.ContextVar[dict[str, FileStat | None] | None] = contextvars.ContextVar(
    "reads", default=None
)


@contextlib.contextmanager
def record_reads() -> Iterator[dict[str, FileStat | None]]:
    """Collect the relative paths that folders resolve in a `with` block, as in `stat` then."""
    found: dict[str, FileStat | None] = {}
    token = _READS.set(found)
    try:
        yield found
    finally:
        _READS.reset(token)


@dataclasses.dataclass(frozen=True)
class SandboxedFolder:
    """The only folder that readers may read from; `root` is absolute, with links resolved."""

    root: pathlib.Path

    @classmethod
    def from_path(cls, path: str | os.PathLike[str]) -> "SandboxedFolder":
        """Return the folder at a path, which may be a link."""
        return cls(pathlib.Path(path).expanduser().resolve())

    def list_files(self, extensions: Sequence[str]) -> list[str]:
        """List relative paths of the regular files with one of the extensions, sorted.

        Hidden files and folders are skipped, and links to folders are not followed.
        """
        found = []
        for folder, folders, names in os.walk(self.root, followlinks=False):
            folders[:] = [name for name in folders if not name.startswith(".")]
            for name in names:
                if name.startswith(".") or not name.lower().endswith(tuple(extensions)):
                    continue
                path = os.path.relpath(os.path.join(folder, name), self.root)
                with contextlib.suppress(DataError, OSError):  # Broken links, for example.
                    if stat.S_ISREG(os.stat(self.resolve(path)).st_mode):
                        found.append(path)
        return sorted(found)

    def resolve(self, path: object, referrer: str = "") -> str:
        """Return the absolute path, with links resolved, of a relative path in the data.

        Args:
            path: path as given in the data, relative to the folder of `referrer`.
            referrer: relative path of the file that contains it; "" for the root.

        Raises:
            DataError: the value is not a path, is a URL, or leads out of the folder.
        """
        if not isinstance(path, str) or not path.strip() or "\0" in path:
            raise DataError("bad path", repr(path)[:80])
        if _URL.match(path):
            raise DataError("address, not a file", path[:80])
        if os.path.isabs(path) or path.startswith(("~", "\\")):
            raise DataError("outside the folder", path[:80])
        try:
            real = os.path.realpath(self.root / os.path.dirname(referrer) / path)
        except (OSError, ValueError) as error:
            raise DataError("bad path", f"{path[:60]!r}: {error}") from error
        self._record(os.path.normpath(os.path.join(os.path.dirname(referrer), path)), real)
        if not pathlib.Path(real).is_relative_to(self.root):
            raise DataError("outside the folder", path[:80])
        return real

    def stat(self, path: str) -> FileStat | None:
        """Return what changes whenever a file changes; None if there is no such file in here."""
        with contextlib.suppress(DataError):
            return _stat(self.resolve(path))
        return None

    def _record(self, path: str, real: str) -> None:
        reads = _READS.get()
        if reads is not None and path not in reads:
            reads[path] = _stat(real) if pathlib.Path(real).is_relative_to(self.root) else None

    @contextlib.contextmanager
    def open(self, path: object, referrer: str = "") -> Iterator[BinaryIO]:
        """Open a regular file for reading.

        Raises:
            DataError: the path is not allowed (see `resolve`), or is not a regular file.
        """
        real = self.resolve(path, referrer)
        try:
            # O_NONBLOCK: do not wait for a pipe without a writer. O_NOFOLLOW: after the path was
            # resolved, the file may have been replaced by a link.
            number = os.open(real, os.O_RDONLY | os.O_NONBLOCK | os.O_NOFOLLOW | os.O_CLOEXEC)
        except OSError as error:
            raise DataError(_os_error_reason(error), str(path)[:80]) from error
        if not stat.S_ISREG(os.fstat(number).st_mode):
            os.close(number)
            raise DataError("not a file", str(path)[:80])
        with os.fdopen(number, "rb") as file:
            yield file

    def read_bytes(self, path: object, max_bytes: int, referrer: str = "") -> bytes:
        """Read a whole file of at most `max_bytes` bytes.

        Raises:
            DataError: the file cannot be opened (see `open`), is larger, or cannot be read.
        """
        with self.open(path, referrer) as file:
            try:
                data = file.read(max_bytes + 1)
            except OSError as error:
                raise DataError("unreadable file", f"{str(path)[:60]}: {error}") from error
        if len(data) > max_bytes:
            raise DataError("too large", f"{str(path)[:60]}: more than {max_bytes:,} bytes")
        return data


def _stat(real: str) -> FileStat | None:
    try:
        found = os.stat(real)
    except (OSError, ValueError):
        return None
    if not stat.S_ISREG(found.st_mode):
        return None
    return found.st_size, found.st_mtime_ns, found.st_ctime_ns, found.st_ino


def _os_error_reason(error: OSError) -> str:
    if error.errno in (errno.ENOENT, errno.ENOTDIR):
        return "missing file"
    if error.errno in (errno.ENAMETOOLONG, errno.EINVAL):
        return "bad path"
    if error.errno in (errno.EISDIR, errno.ENXIO, errno.ELOOP, errno.ENODEV):
        return "not a file"
    return "unreadable file"
