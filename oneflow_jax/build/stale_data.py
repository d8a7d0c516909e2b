"""Prepared data that is no longer used: `--mode=clean` lists it, and `--delete` deletes it."""

import dataclasses
import os
import pathlib
import shutil
from collections.abc import Iterator, Sequence

from oneflow_jax.data.custom import manifest, store

LATENTS_DIR = "latents"
CHUNK_COUNTS_DIR = "fitted"


@dataclasses.dataclass(frozen=True)
class StaleItem:
    """A folder or file of prepared data, and the reason why it is no longer used."""

    path: pathlib.Path
    reason: str

    @property
    def size(self) -> int:
        """Bytes that deletion would free. Files with hard links in other data do not count."""
        files = [self.path] if self.path.is_file() else self.path.rglob("*")
        stats = [file.lstat() for file in files if file.is_file()]
        return sum(stat.st_size for stat in stats if stat.st_nlink == 1)

    def __str__(self) -> str:
        """Return the line that `--mode=clean` prints for this item."""
        return f"{self.size / 2**20:10,.1f} MiB  {self.path}  ({self.reason})"


def list_stale(data_dir: str) -> list[StaleItem]:
    """List everything in `data.dir` that was made from custom data and is no longer used.

    The list leaves out data that a process is using, and the newest data of each source (even if
    that source no longer exists).
    """
    root = store.store_root(data_dir)
    live = _list_live(root)
    items = list(_list_prepared(root, live))
    for folder in (LATENTS_DIR, CHUNK_COUNTS_DIR):
        items += _list_derived(root.parent / folder, live)
    return items


def delete(items: Sequence[StaleItem]) -> int:
    """Delete each item that no process is using now; return the number of deleted items."""
    for item in items:
        if item.path.is_file():
            item.path.unlink(missing_ok=True)
        elif not store.is_in_use(item.path):
            shutil.rmtree(item.path, ignore_errors=True)
    return sum(not item.path.exists() for item in items)


def _list_live(root: pathlib.Path) -> dict[pathlib.Path, str]:
    """Return the fingerprint of each folder that is in use or has the newest data of a source."""
    pointers = [path for path in _list_folder(root) if path.suffix == ".json"]
    last = {root / store.read_pointer(path).get("folder", "") for path in pointers}
    live = {}
    for folder in _list_folder(root):
        prepared = store.open_prepared(folder)
        if prepared is not None and (folder in last or store.is_in_use(folder)):
            live[folder] = prepared.fingerprint
    return live


def _list_prepared(root: pathlib.Path, live: dict[pathlib.Path, str]) -> Iterator[StaleItem]:
    outdated = store.list_outdated(root)
    for folder in _list_folder(root):
        if not folder.is_dir() or folder in live:
            continue
        if folder in outdated:
            yield StaleItem(folder, "prepared by an earlier version of the program")
        elif folder.suffix in (store.PARTIAL, ".new"):
            if not store.is_in_progress(folder):
                yield StaleItem(folder, "interrupted preparation; it can be continued")
        else:
            yield StaleItem(folder, "the files of its source have changed since")


def _list_derived(folder: pathlib.Path, live: dict[pathlib.Path, str]) -> Iterator[StaleItem]:
    """List latents or chunk counts in a folder that were made from data that is not in `live`."""
    marks = {f"{manifest.DATASET_NAME}_{fingerprint[:16]}" for fingerprint in live.values()}
    for path in _list_folder(folder):
        source = "_".join(path.name.split("_")[:2])
        if path.name.startswith(f"{manifest.DATASET_NAME}_") and source not in marks:
            yield StaleItem(path, "made from data that has changed since")


def _list_folder(folder: pathlib.Path) -> list[pathlib.Path]:
    return sorted(pathlib.Path(entry) for entry in os.scandir(folder)) if folder.is_dir() else []
