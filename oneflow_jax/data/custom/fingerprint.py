"""Records of the source files of prepared data, which show whether these files have changed."""

import dataclasses
import hashlib
import json
import pathlib
from collections.abc import Iterable, Mapping, Sequence

from oneflow_jax.data.custom import manifest
from oneflow_jax.data.custom.errors import DataError
from oneflow_jax.data.custom.manifest import Manifest
from oneflow_jax.data.custom.reader import Settings
from oneflow_jax.data.custom.sandbox import FileStat, SandboxedFolder

UNREADABLE = "unreadable"
"""Value that replaces the hash of a file that exists but cannot be read."""


class SourceChanged(Exception):
    """A source file changed while the program read it."""


@dataclasses.dataclass(frozen=True)
class FileRecord:
    """State of a source file when it was read.

    Attributes:
        stat: size, times and inode; None if the file did not exist.
        digest: hash of the content; "" if the file did not exist.
    """

    stat: FileStat | None
    digest: str


Records = Mapping[str, FileRecord]
"""Records of files by relative path."""


class SourceFiles:
    """The current files of a source. Each file is inspected and hashed at most once."""

    def __init__(self, folder: SandboxedFolder, known: Iterable[Records] = ()) -> None:
        """Initialize without reading. A file with the same `stat` in `known` is not hashed."""
        folder.refresh()
        self._folder = folder
        self._known = {
            (name, record.stat): record.digest
            for records in known
            for name, record in records.items()
        }
        self._stats: dict[str, FileStat | None] = {}
        self._digests: dict[str, str] = {}

    def stat(self, name: str) -> FileStat | None:
        """Return the size, times and inode of a file, or None if it does not exist.

        Any change of the file changes this value.
        """
        if name not in self._stats:
            self._stats[name] = self._folder.stat(name)
        return self._stats[name]

    def digest(self, name: str) -> str:
        """Return the hash of the content of a file.

        Raises:
            SourceChanged: the file changes while it is read.
        """
        if name not in self._digests:
            known = self._known.get((name, self.stat(name)))
            self._digests[name] = self._hash(name) if known is None else known
        return self._digests[name]

    def record(self, names: Iterable[str]) -> dict[str, FileRecord]:
        """Return a dict from the name of each file to its record, sorted by name."""
        return {name: FileRecord(self.stat(name), self.digest(name)) for name in sorted(names)}

    def is_unchanged(self, name: str, stat: FileStat | None, digest: str | None) -> bool:
        """Return whether a file still has this `stat`, or at least still has the hash `digest`."""
        if self.stat(name) == stat:
            return True
        return digest is not None and self.digest(name) == digest

    def _hash(self, name: str) -> str:
        known = self._folder.checksum(name)
        if known is not None:
            return known
        before = self.stat(name)
        if before is None:
            return ""
        try:
            with self._folder.open(name) as file:
                digest = hashlib.file_digest(file, _new_hash).hexdigest()
        except (DataError, OSError):
            digest = UNREADABLE
        if self._folder.stat(name) != before:
            raise SourceChanged(name)
        return digest


@dataclasses.dataclass(frozen=True)
class Difference:
    """Numbers of source files that were added, changed and deleted."""

    new: int
    changed: int
    gone: int

    def __str__(self) -> str:
        """Describe the numbers in one line, for messages."""
        return f"{self.new:,} new, {self.changed:,} changed, {self.gone:,} gone"


def compare(before: Records, now: Records) -> Difference:
    """Count the files that were added, changed in content, or deleted."""
    old = {name: record.digest for name, record in before.items() if record.digest}
    new = {name: record.digest for name, record in now.items() if record.digest}
    changed = sum(old[name] != new[name] for name in old.keys() & new.keys())
    return Difference(len(new.keys() - old.keys()), changed, len(old.keys() - new.keys()))


def hash_source(plan: Manifest, records: Records) -> str:
    """Return the fingerprint of prepared data: a hash of what determines its documents and order.

    The fingerprint depends on the names and contents of the files, but not on the path of their
    folder.
    """
    digest = _new_hash()
    settings = make_portable(plan.settings)
    digest.update(repr((manifest.VERSION, settings, *plan.units)).encode())
    digest.update(settings.later_fields.encode())
    if plan.num_hash_shards:  # The order by hashes does not depend on the number of shards.
        digest.update(b"in the order of hashes")
    for name, record in sorted(records.items()):
        digest.update(repr((name, record.digest)).encode())
    return digest.hexdigest()


def make_portable(settings: Settings) -> Settings:
    """Replace the path in the settings by a constant, since equal data may be in another folder."""
    return dataclasses.replace(settings, path="any")


def save(folder: pathlib.Path, fingerprint: str, records: Records) -> None:
    """Write the fingerprint of prepared data and the records of its source files to `folder`."""
    files = {name: [record.digest, record.stat] for name, record in sorted(records.items())}
    manifest.write_json(folder / manifest.FILES_FILE, {"fingerprint": fingerprint, "files": files})


def load(folder: pathlib.Path) -> tuple[str, dict[str, FileRecord]] | None:
    """Load the fingerprint and the records that `save` wrote; return None if they are missing."""
    try:
        values = json.loads((folder / manifest.FILES_FILE).read_text("utf-8"))
    except (OSError, ValueError):
        return None
    records = {
        name: FileRecord(as_stat(stat), digest) for name, (digest, stat) in values["files"].items()
    }
    return values["fingerprint"], records


def as_stat(values: Sequence[int] | None) -> FileStat | None:
    """Convert a list from JSON to the tuple that `SourceFiles.stat` returns."""
    return None if values is None else tuple(values)


def _new_hash() -> "hashlib.blake2b":
    return hashlib.blake2b(digest_size=16)
