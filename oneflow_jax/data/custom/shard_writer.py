"""Writer of one shard of prepared data: a file of records for each split, and a marker."""

import pathlib
from collections.abc import Mapping

from array_record.python import array_record_module

from oneflow_jax.data.custom.manifest import SPLITS, Manifest
from oneflow_jax.data.custom.sandbox import FileStat
from oneflow_jax.data.custom.stats import DatasetStats


class ShardWriter:
    """Writes the records of a shard to drafts, which `finish` renames.

    So a shard that a killed process began is not taken for a complete one.
    """

    def __init__(self, manifest: Manifest, number: int) -> None:
        """Create the drafts of shard `number`."""
        self._manifest, self._number = manifest, number
        manifest.folder.mkdir(parents=True, exist_ok=True)
        self._drafts = {split: self._draft(split) for split in SPLITS}
        self._writers = {
            split: array_record_module.ArrayRecordWriter(str(path), "group_size:1")
            for split, path in self._drafts.items()
        }

    def _draft(self, split: str) -> pathlib.Path:
        path = self._manifest.shard_path(split, self._number)
        return path.with_name(path.name + ".draft")

    def write(self, split: str, record: bytes) -> None:
        """Append a record to a split."""
        self._writers[split].write(record)

    def finish(self, stats: DatasetStats, reads: Mapping[str, FileStat | None]) -> None:
        """Complete the files of the shard, and then write its marker."""
        for split, writer in self._writers.items():
            writer.close()
            self._drafts[split].replace(self._manifest.shard_path(split, self._number))
        self._manifest.mark_done(self._number, stats, reads)
