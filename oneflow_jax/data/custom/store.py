"""The folder of all prepared custom data: `<data.dir>/own`.

own/<name>_<fingerprint>/      prepared data; never changes after it is complete
own/<name>_<mark>.partial/     a preparation in progress; the mark is a hash of path and settings
own/<name>_<mark>.json         name of the newest prepared data of this path and these settings
own/<name>_<mark>.lock         a process holds this lock while it prepares the data
"""

import contextlib
import dataclasses
import fcntl
import functools
import json
import pathlib
from collections.abc import Iterator
from typing import Any, BinaryIO

from oneflow_jax.data import splits
from oneflow_jax.data.custom import fingerprint, manifest
from oneflow_jax.data.custom.fingerprint import FileRecord
from oneflow_jax.data.custom.manifest import Manifest
from oneflow_jax.data.custom.reader import Settings
from oneflow_jax.data.custom.stats import DatasetStats
from oneflow_jax.runtime import storage

PARTIAL = ".partial"
MAX_NAME_LENGTH = 50


@dataclasses.dataclass(frozen=True)
class PreparedData:
    """Prepared data: its plan, its fingerprint, and the records of its source files."""

    plan: Manifest
    fingerprint: str
    records: dict[str, FileRecord]

    @property
    def folder(self) -> pathlib.Path:
        """Folder of the data."""
        return self.plan.folder

    @functools.cached_property
    def stats(self) -> DatasetStats:
        """Statistics of the preparation, merged over all shards."""
        path = self.folder / manifest.COMPLETE_FILE
        return DatasetStats.from_dict(json.loads(path.read_text("utf-8")))


def open_prepared(folder: pathlib.Path) -> PreparedData | None:
    """Open prepared data; return None if it is incomplete or of an earlier version.

    This function does not detect shards that were damaged later; `Manifest.is_complete` does.
    """
    plan, files = manifest.load(folder), fingerprint.load(folder)
    if plan is None or files is None or not (folder / manifest.COMPLETE_FILE).exists():
        return None
    return PreparedData(plan, *files)


@dataclasses.dataclass(frozen=True)
class SourceEntry:
    """Files of one source (a path with settings) in the folder of prepared data.

    Attributes:
        root: folder of all prepared data.
        settings: settings with an absolute path.
    """

    root: pathlib.Path
    settings: Settings

    @property
    def staging(self) -> pathlib.Path:
        """Folder of the preparation in progress."""
        return self.root / f"{self._name}{PARTIAL}"

    @property
    def pointer(self) -> pathlib.Path:
        """JSON file with the name of the newest prepared data of the source."""
        return self.root / f"{self._name}.json"

    @property
    def _name(self) -> str:
        key = f"{self.settings!r}{self.settings.later_fields}"
        return f"{self._stem}_{splits.hash_bucket(key, 16**8):08x}"

    @property
    def _stem(self) -> str:
        return pathlib.Path(self.settings.path).name[:MAX_NAME_LENGTH]

    def target(self, fingerprint: str) -> pathlib.Path:
        """Return the folder of prepared data with this fingerprint."""
        return self.root / f"{self._stem}_{fingerprint[:16]}"

    def load_last(self) -> PreparedData | None:
        """Open the newest prepared data of the source; return None if it no longer exists."""
        name = read_pointer(self.pointer).get("folder")
        return open_prepared(self.root / name) if name else None

    def remember(self, prepared: PreparedData) -> None:
        """Store the name of `prepared` as the newest prepared data of the source."""
        values = {"path": self.settings.path, "folder": prepared.folder.name}
        if read_pointer(self.pointer) != values:
            with contextlib.suppress(OSError):  # Data that another user prepared may be read-only.
                manifest.write_json(self.pointer, values)

    def iter_equal(self, detected: Settings) -> Iterator[PreparedData]:
        """Yield prepared data with these settings and any path, the newest of this source first."""
        last = read_pointer(self.pointer).get("folder")
        folders = sorted(self.root.iterdir()) if self.root.is_dir() else []
        for folder in sorted(folders, key=lambda folder: folder.name != last):
            plan = None if folder.suffix == PARTIAL else manifest.load(folder)
            if plan is None:
                continue
            if fingerprint.make_portable(plan.settings) != fingerprint.make_portable(detected):
                continue
            prepared = open_prepared(folder)
            if prepared is not None:
                yield prepared

    @contextlib.contextmanager
    def lock(self) -> Iterator[int]:
        """Lock the source, and yield the file descriptor of the lock.

        Processes that inherit the descriptor hold the lock until they end.
        """
        self.root.parent.mkdir(parents=True, exist_ok=True)
        storage.mark_folder(self.root.parent)
        self.root.mkdir(exist_ok=True)
        with (self.root / f"{self._name}.lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield lock.fileno()


def read_pointer(path: pathlib.Path) -> dict[str, Any]:
    """Read the JSON file at a path; return {} if it is missing or damaged."""
    try:
        return json.loads(path.read_text("utf-8"))
    except (OSError, ValueError):
        return {}


def list_outdated(root: pathlib.Path, path: str | None = None) -> list[pathlib.Path]:
    """List the folders of earlier versions: those of the source `path`, or all if it is None."""
    outdated = []
    for folder in sorted(root.iterdir()) if root.is_dir() else []:
        values = read_pointer(folder / manifest.MANIFEST_FILE)
        if not values or values.get("version") == manifest.VERSION:
            continue
        was = values["settings"]["path"]
        if not storage.is_remote(was):
            was = str(pathlib.Path(was).expanduser().resolve())
        if path is None or was == path:
            outdated.append(folder)
    return outdated


def lock_in_use(folder: pathlib.Path) -> BinaryIO:
    """Lock prepared data, so that `--mode=clean` keeps it until the returned file is closed."""
    file = (folder / manifest.FILES_FILE).open("rb")
    with contextlib.suppress(OSError):  # Not all file systems have locks.
        fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    return file


def is_in_use(folder: pathlib.Path) -> bool:
    """Return whether a process holds the lock of `lock_in_use`."""
    return _is_locked(folder / manifest.FILES_FILE)


def is_in_progress(staging: pathlib.Path) -> bool:
    """Return whether a process is preparing data in this folder."""
    return _is_locked(staging.with_suffix(".lock"))


def _is_locked(path: pathlib.Path) -> bool:
    try:
        with path.open("rb") as file:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:  # The file does not exist.
        return False
    return False


def store_root(data_dir: str) -> pathlib.Path:
    """Return the folder of all prepared custom data."""
    return pathlib.Path(data_dir).expanduser() / manifest.DATASET_NAME
