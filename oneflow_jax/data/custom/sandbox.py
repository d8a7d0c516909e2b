"""The one gate to the user's files: nothing outside the given folder is ever opened."""

import contextlib
import dataclasses
import errno
import os
import pathlib
import re
import stat
from collections.abc import Iterator, Sequence
from typing import BinaryIO

from oneflow_jax.data.custom.errors import DataError

_URL = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+:|//")


@dataclasses.dataclass(frozen=True)
class SandboxedFolder:
    """A folder that readers may read in, and nowhere else; `root` is absolute, without links."""

    root: pathlib.Path

    @classmethod
    def at(cls, path: str | os.PathLike[str]) -> "SandboxedFolder":
        """The folder at a path, which may itself be a link."""
        return cls(pathlib.Path(path).expanduser().resolve())

    def files(self, endings: Sequence[str]) -> list[str]:
        """Paths of the regular files below whose names end so, relative and sorted.

        Hidden files and folders are passed over, and links to folders are not followed.
        """
        found = []
        for folder, folders, names in os.walk(self.root, followlinks=False):
            folders[:] = [name for name in folders if not name.startswith(".")]
            for name in names:
                if name.startswith(".") or not name.lower().endswith(tuple(endings)):
                    continue
                path = os.path.relpath(os.path.join(folder, name), self.root)
                with contextlib.suppress(DataError, OSError):  # Links that lead nowhere, say.
                    if stat.S_ISREG(os.stat(self.resolve(path)).st_mode):
                        found.append(path)
        return sorted(found)

    def resolve(self, path: object, beside: str = "") -> str:
        """The absolute path, without links, of a relative one that data names.

        Args:
            path: what stands in the data, relative to the folder of `beside`.
            beside: the relative path of the file that names it; "" for the root.

        Raises:
            Fault: no path, an address, or one that leads out of the folder.
        """
        if not isinstance(path, str) or not path.strip() or "\0" in path:
            raise DataError("bad path", repr(path)[:80])
        if _URL.match(path):
            raise DataError("address, not a file", path[:80])
        if os.path.isabs(path) or path.startswith(("~", "\\")):
            raise DataError("outside the folder", path[:80])
        try:
            real = os.path.realpath(self.root / os.path.dirname(beside) / path)
        except (OSError, ValueError) as error:
            raise DataError("bad path", f"{path[:60]!r}: {error}") from error
        if not pathlib.Path(real).is_relative_to(self.root):
            raise DataError("outside the folder", path[:80])
        return real

    @contextlib.contextmanager
    def opened(self, path: object, beside: str = "") -> Iterator[BinaryIO]:
        """A regular file, open for reading.

        Raises:
            Fault: as for `located`; or there is none, or it is no regular file.
        """
        real = self.resolve(path, beside)
        try:
            # A pipe that nobody writes to would be waited for; a link may be new here.
            number = os.open(real, os.O_RDONLY | os.O_NONBLOCK | os.O_NOFOLLOW | os.O_CLOEXEC)
        except OSError as error:
            raise DataError(_os_error_reason(error), str(path)[:80]) from error
        if not stat.S_ISREG(os.fstat(number).st_mode):
            os.close(number)
            raise DataError("not a file", str(path)[:80])
        with os.fdopen(number, "rb") as file:
            yield file

    def bytes(self, path: object, most: int, beside: str = "") -> bytes:
        """All of a file of at most so many bytes.

        Raises:
            Fault: as for `opened`; or it is larger, or cannot be read.
        """
        with self.opened(path, beside) as file:
            try:
                data = file.read(most + 1)
            except OSError as error:
                raise DataError("unreadable file", f"{str(path)[:60]}: {error}") from error
        if len(data) > most:
            raise DataError("too large", f"{str(path)[:60]}: above {most:,} bytes")
        return data


def _os_error_reason(error: OSError) -> str:
    if error.errno in (errno.ENOENT, errno.ENOTDIR):
        return "missing file"
    if error.errno in (errno.ENAMETOOLONG, errno.EINVAL):
        return "bad path"
    if error.errno in (errno.EISDIR, errno.ENXIO, errno.ELOOP, errno.ENODEV):
        return "not a file"
    return "unreadable file"
