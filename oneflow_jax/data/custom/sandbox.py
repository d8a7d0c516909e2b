"""Access to the user's files, restricted to the folder in `source.path`."""

import contextlib
import contextvars
import dataclasses
import errno
import os
import pathlib
import re
import stat
from collections.abc import Callable, Iterator, Sequence
from typing import BinaryIO

from oneflow_jax.data.custom.errors import DataError
from oneflow_jax.runtime import storage

FileStat = tuple[int, int, int, int]
"""Size in bytes, modification time and status change time in ns, and inode of a file.

Any write to the file changes at least one of them.
"""

# Not every name with a colon is a URL: "cat:1.png" is a file.
_URL = re.compile(r"[a-z][a-z0-9+.-]*://|//|(?:about|blob|cid|data|file|javascript|mailto):", re.I)
FILES_OF_OWN_FOLDERS = (
    (storage.MARKER,),
    ("config.json", "tokenizer.model", ".lock"),
    ("config.json", "tokenizer.model", "weights.safetensors"),
    ("config.json", "tokenizer.json", "weights.safetensors"),
)
"""Files that mark a folder of this program, of a run of an earlier version, or of an export."""

_CACHED_REPOSITORY = re.compile(r"(?:datasets|models|spaces)--.")

OWN_FOLDER = "run or prepared data"
"""Reason for not reading a folder that this program writes to."""

LINK_OUT = "link that leads out of the folder"
"""Reason for not reading a link whose target is outside the folder."""

_READS: contextvars.ContextVar[dict[str, FileStat | None] | None] = contextvars.ContextVar(
    "reads", default=None
)


@contextlib.contextmanager
def record_reads() -> Iterator[dict[str, FileStat | None]]:
    """Record all relative paths that a `SandboxedFolder` resolves within a `with` block.

    Yields:
        A dict from each path to the result of `SandboxedFolder.stat` at that time.
    """
    reads: dict[str, FileStat | None] = {}
    token = _READS.set(reads)
    try:
        yield reads
    finally:
        _READS.reset(token)


def record_read(path: str, stat_file: Callable[[], FileStat | None]) -> None:
    """Record a relative path that was resolved, if a `record_reads` block is open."""
    reads = _READS.get()
    if reads is not None and path not in reads:
        reads[path] = stat_file()


def check_relative(path: object) -> None:
    """Check that a value in the data is a relative path.

    Raises:
        DataError: the value is not a path, is a URL, or is absolute.
    """
    if not isinstance(path, str) or not path.strip() or "\0" in path:
        raise DataError("bad path", repr(path)[:80])
    if _URL.match(path):
        raise DataError("address, not a file", path[:80])
    if os.path.isabs(path) or path.startswith(("~", "\\")):
        raise DataError("outside the folder", path[:80])


@dataclasses.dataclass(frozen=True)
class SandboxedFolder:
    """The only folder that readers may read from.

    Attributes:
        root: absolute path, with links resolved.
        link_targets: files and folders outside of `root` to which links in `root` may lead.
    """

    root: pathlib.Path
    link_targets: tuple[pathlib.Path, ...] = ()

    @classmethod
    def from_path(
        cls, path: str | os.PathLike[str], link_targets: Sequence[pathlib.Path] = ()
    ) -> "SandboxedFolder":
        """Return the folder at a path. The path itself may be a link.

        In a snapshot of a Hugging Face cache, links may lead to the blobs of the same repository.
        """
        root = pathlib.Path(path).expanduser().resolve()
        return cls(root, (*link_targets, *_find_blobs(root)))

    def list_files(self, extensions: Sequence[str]) -> list[str]:
        """List relative paths of the regular files with one of the extensions, sorted.

        Hidden files, hidden folders and folders that this program wrote are skipped, and links to
        folders are not followed.
        """
        endings = tuple(extensions)
        return sorted(
            path for path, kind in self.walk() if not kind and path.lower().endswith(endings)
        )

    def walk(self) -> Iterator[tuple[str, str]]:
        """Yield the relative path of each file and the reason why it cannot be read, if any.

        A hidden folder, a link to a folder, and a folder that this program wrote are one entry
        each, without their content.
        """
        for folder, folders, names in os.walk(self.root, followlinks=False):
            base = os.path.relpath(folder, self.root)
            links = [name for name in folders if os.path.islink(os.path.join(folder, name))]
            hidden = [name for name in folders if name.startswith(".")]
            marked = [name for name in folders if _is_marked(os.path.join(folder, name))]
            for name in dict.fromkeys([*names, *links, *hidden, *marked]):
                path = os.path.normpath(os.path.join(base, name))
                if name in marked:
                    yield path, OWN_FOLDER
                else:
                    yield path, "hidden" if name.startswith(".") else self._find_obstacle(path)
            folders[:] = [name for name in folders if name not in {*hidden, *marked}]

    def _find_obstacle(self, path: str) -> str:
        """Return the reason why a file cannot be read, or "" if it can."""
        is_link = os.path.islink(self.root / path)
        try:
            mode = os.stat(self.resolve(path)).st_mode
        except DataError as error:
            return LINK_OUT if error.reason == "outside the folder" else "bad path"
        except OSError:
            return "broken link" if is_link else "unreadable file"
        if stat.S_ISDIR(mode):
            return "link to a folder"
        return "" if stat.S_ISREG(mode) else "not a file"

    def has_file(self, path: object, referrer: str = "") -> bool:
        """Return whether a path in the data leads to an existing file in the folder."""
        try:
            return os.path.isfile(self.resolve(path, referrer))
        except (DataError, OSError, ValueError):
            return False

    def relative_paths(self, path: object, referrer: str = "") -> tuple[str, ...]:
        """Return two paths relative to the root: the path as given, and with links resolved.

        If both are equal, only one is returned.

        Raises:
            DataError: the path is not allowed (see `resolve`).
        """
        real = self.resolve(path, referrer)
        unresolved = os.path.normpath(os.path.join(os.path.dirname(referrer), str(path)))
        return tuple(dict.fromkeys((unresolved, os.path.relpath(real, self.root))))

    def resolve(self, path: object, referrer: str = "") -> str:
        """Return the absolute path, with links resolved, of a relative path in the data.

        Args:
            path: path in the data, relative to the folder of `referrer`.
            referrer: relative path of the file that contains `path`; "" for the root.

        Raises:
            DataError: the value is not a path, is a URL, or leads out of the folder. Links to one
                of `link_targets` are allowed.
        """
        check_relative(path)
        try:
            real = os.path.realpath(self.root / os.path.dirname(referrer) / path)
        except (OSError, ValueError) as error:
            raise DataError("bad path", f"{path[:60]!r}: {error}") from error
        self._record(os.path.normpath(os.path.join(os.path.dirname(referrer), path)), real)
        if pathlib.Path(real).is_relative_to(self.root):
            return real
        place = os.path.normpath(os.path.join(os.path.dirname(referrer), path))
        if place.split(os.sep, 1)[0] == "..":
            raise DataError("outside the folder", path[:80])
        if any(pathlib.Path(real).is_relative_to(target) for target in self.link_targets):
            return real
        raise DataError("outside the folder", f"{path[:80]}: a link that leads out of it")

    def stat(self, path: str) -> FileStat | None:
        """Return the size, times and inode of a file; None if the folder has no such file."""
        with contextlib.suppress(DataError):
            return _stat(self.resolve(path))
        return None

    def checksum(self, path: str) -> str | None:
        """Return the hash of a file if it is known without reading the file, else None."""
        del path
        return None

    def refresh(self) -> None:
        """Forget what is known about files, which may have changed."""

    def _record(self, path: str, real: str) -> None:
        places = (self.root, *self.link_targets)
        allowed = any(pathlib.Path(real).is_relative_to(place) for place in places)
        record_read(path, lambda: _stat(real) if allowed else None)

    @contextlib.contextmanager
    def open(self, path: object, referrer: str = "") -> Iterator[BinaryIO]:
        """Open a regular file for reading.

        Raises:
            DataError: the path is not allowed (see `resolve`), or is not a regular file.
        """
        real = self.resolve(path, referrer)
        try:
            # O_NONBLOCK avoids waiting for a pipe without a writer. O_NOFOLLOW is needed because a
            # link may have replaced the file after its path was resolved.
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


def _is_marked(folder: str) -> bool:
    """Return whether this program wrote a folder: a run, an export, samples or prepared data."""
    return any(
        all(os.path.lexists(os.path.join(folder, name)) for name in names)
        for names in FILES_OF_OWN_FOLDERS
    )


def _find_blobs(root: pathlib.Path) -> Iterator[pathlib.Path]:
    """Yield the repository's folder of blobs if `root` is in a snapshot of a Hugging Face cache.

    The files of `datasets--NAME/snapshots/REVISION` are links to `datasets--NAME/blobs`.
    """
    for folder in (root, *root.parents):
        blobs = folder.parent / "blobs"
        is_snapshot = folder.name == "snapshots" and _CACHED_REPOSITORY.match(folder.parent.name)
        if is_snapshot and blobs.is_dir() and not blobs.is_symlink():
            yield blobs


def _stat(real: str) -> FileStat | None:
    try:
        status = os.stat(real)
    except (OSError, ValueError):
        return None
    if not stat.S_ISREG(status.st_mode):
        return None
    return status.st_size, status.st_mtime_ns, status.st_ctime_ns, status.st_ino


def _os_error_reason(error: OSError) -> str:
    if error.errno in (errno.ENOENT, errno.ENOTDIR):
        return "missing file"
    if error.errno in (errno.ENAMETOOLONG, errno.EINVAL):
        return "bad path"
    if error.errno in (errno.EISDIR, errno.ENXIO, errno.ELOOP, errno.ENODEV):
        return "not a file"
    return "unreadable file"
