"""Access to the user's files in a bucket: `source.path` may be gs:// or s3://."""

import contextlib
import dataclasses
import functools
import importlib.util
import io
import posixpath
from collections.abc import Collection, Iterator, Mapping
from typing import Any, BinaryIO

import fsspec

from oneflow_jax.data import splits
from oneflow_jax.data.custom import sandbox
from oneflow_jax.data.custom.errors import DataError
from oneflow_jax.data.custom.sandbox import FileStat, SandboxedFolder
from oneflow_jax.errors import UserError

PACKAGES = {"gs": "gcsfs", "s3": "s3fs"}
"""Package that reads each kind of bucket."""

_VERSION_KEYS = ("md5Hash", "crc32c", "ETag", "etag")
"""Names under which stores give a hash of the content of an object, the best first."""

_BUFFER_BYTES = 2**20


def check_readable(path: str) -> None:
    """Check that the package for a kind of bucket is installed.

    Raises:
        UserError: the package is missing, or the kind is unknown.
    """
    kind = path.partition("://")[0]
    if kind not in PACKAGES:
        raise UserError(
            f"source.path={path}: unsupported kind of storage. Give a folder, or a folder of a "
            f"bucket: {' or '.join(f'{name}://' for name in PACKAGES)}."
        )
    if importlib.util.find_spec(PACKAGES[kind]) is None:
        raise UserError(
            f"source.path={path}: {kind}:// needs {PACKAGES[kind]}, which is not installed. Run "
            f"pip install {PACKAGES[kind]}."
        )


@dataclasses.dataclass(frozen=True)
class BucketFolder(SandboxedFolder):
    """A folder of a bucket. Buckets have no links, and paths are keys of objects.

    Attributes:
        url: address of the folder, such as gs://bucket/folder.
    """

    url: str = ""

    @functools.cached_property
    def _store(self) -> tuple[fsspec.AbstractFileSystem, str]:
        return fsspec.core.url_to_fs(self.url)

    @functools.cached_property
    def _folders(self) -> dict[str, Collection[str]]:
        return {}

    @functools.cached_property
    def _listing(self) -> Mapping[str, Mapping[str, Any]]:
        """What the store says about each object, by relative path."""
        store, base = self._store
        store.invalidate_cache()
        found = store.find(base, detail=True)
        return {posixpath.relpath(name, base): info for name, info in found.items()}

    def refresh(self) -> None:
        """Forget the listing. The next call of `stat` lists the folder again."""
        self.__dict__.pop("_listing", None)
        self.__dict__["_lists"] = True

    def walk(self) -> Iterator[tuple[str, str]]:
        """Yield the relative path of each object and the reason why it cannot be read, if any.

        A hidden folder and a folder that this program wrote are one entry each.
        """
        names = self._listing.keys()
        marked = {
            folder
            for folder in map(posixpath.dirname, names)
            for marks in sandbox.FILES_OF_OWN_FOLDERS
            if folder and all(posixpath.join(folder, mark) in names for mark in marks)
        }
        entries = {}
        for name in names:
            parts = name.split("/")
            for count in range(1, len(parts) + 1):
                place = "/".join(parts[:count])
                hidden = "hidden" if parts[count - 1].startswith(".") else ""
                obstacle = sandbox.OWN_FOLDER if place in marked else hidden
                if obstacle or place == name:
                    entries[place] = obstacle
                    break
        yield from entries.items()

    def resolve(self, path: object, referrer: str = "") -> str:
        """Return the relative path of an object; see `SandboxedFolder.resolve`.

        Raises:
            DataError: the value is not a path, is a URL, or leads out of the folder.
        """
        sandbox.check_relative(path)
        place = posixpath.normpath(posixpath.join(posixpath.dirname(referrer), str(path)))
        if place.split("/", 1)[0] == "..":
            raise DataError("outside the folder", str(path)[:80])
        sandbox.record_read(place, lambda: self._stat_object(place))
        return place

    def relative_paths(self, path: object, referrer: str = "") -> tuple[str, ...]:
        """Return the path relative to the root, as the only element.

        Raises:
            DataError: the path is not allowed (see `resolve`).
        """
        return (self.resolve(path, referrer),)

    def has_file(self, path: object, referrer: str = "") -> bool:
        """Return whether a path in the data leads to an object of the folder."""
        with contextlib.suppress(DataError):
            place = self.resolve(path, referrer)
            return place in self._list_folder(posixpath.dirname(place))
        return False

    def _list_folder(self, folder: str) -> Collection[str]:
        """List the objects of a folder once: a record may name its image in many ways."""
        if folder not in self._folders:
            store, base = self._store
            found = []
            with contextlib.suppress(FileNotFoundError):
                found = store.ls(posixpath.join(base, folder), detail=True)
            names = (info["name"] for info in found if info["type"] == "file")
            self._folders[folder] = {posixpath.relpath(name, base) for name in names}
        return self._folders[folder]

    def stat(self, path: str) -> FileStat | None:
        """Return the size of an object and a hash of its version; None if there is no object."""
        with contextlib.suppress(DataError):
            return self._stat_object(self.resolve(path))
        return None

    def checksum(self, path: str) -> str | None:
        """Return the hash of an object as the store gives it, "" if there is no object."""
        info = self._info(path)
        return "" if info is None else f"{info['size']} {_version(info)}"

    @contextlib.contextmanager
    def open(self, path: object, referrer: str = "") -> Iterator[BinaryIO]:
        """Open an object for reading.

        Raises:
            DataError: the path is not allowed (see `resolve`), or there is no object.
        """
        place = self.resolve(path, referrer)
        if self._info(place) is None:
            raise DataError("missing file", str(path)[:80])
        store, base = self._store
        raw = store.open(posixpath.join(base, place), "rb")
        # The reader adds what raw files lack, such as a size limit of `readline`.
        with io.BufferedReader(raw, _BUFFER_BYTES) as file:
            yield file

    def _stat_object(self, place: str) -> FileStat | None:
        info = self._info(place)
        if info is None:
            return None
        return info["size"], splits.hash_bucket(_version(info), 2**62), 0, 0

    def _info(self, place: str) -> Mapping[str, Any] | None:
        """Return what the store says about an object, or None.

        One listing answers for all objects if the folder was listed or will be used for many.
        """
        if "_listing" in self.__dict__ or "_lists" in self.__dict__:
            return self._listing.get(place)
        store, base = self._store
        with contextlib.suppress(FileNotFoundError):
            info = store.info(posixpath.join(base, place))
            return info if info["type"] == "file" else None
        return None


def _version(info: Mapping[str, Any]) -> str:
    return next((str(info[key]) for key in _VERSION_KEYS if info.get(key)), "")
