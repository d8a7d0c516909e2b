"""Exact deduplication: of documents with equal records, only the first is kept.

Both engines call `write_distinct`. The local engine calls it in the order of the units, for units
that have duplicates. Apache Beam calls it for each shard; all duplicates of a document are in one.
"""

import dataclasses
import hashlib
from collections.abc import Iterable, Iterator, Mapping

from oneflow_jax.data import record_files, records
from oneflow_jax.data.custom.errors import DataError
from oneflow_jax.data.custom.fingerprint import as_stat
from oneflow_jax.data.custom.manifest import SPLITS, Manifest
from oneflow_jax.data.custom.sandbox import FileStat
from oneflow_jax.data.custom.shard_writer import ShardWriter
from oneflow_jax.data.custom.stats import DatasetStats

REASON = "duplicate"
"""Key of `errors.DROP_REASONS`."""

DIGEST_BYTES = 16


@dataclasses.dataclass(frozen=True)
class StoredDocument:
    """A document of a shard.

    Attributes:
        split: split of the document.
        record: the document, as `records.serialize` returns it.
        location: description of where the document comes from, for messages.
        digest: hash of the document, as `hash_record` returns it.
    """

    split: str
    record: bytes
    location: str
    digest: bytes


def hash_record(record: bytes) -> bytes:
    """Return the hash of a document, `DIGEST_BYTES` bytes; equal documents have equal hashes."""
    return hashlib.blake2b(record, digest_size=DIGEST_BYTES).digest()


def iter_shard(manifest: Manifest, number: int) -> Iterator[StoredDocument]:
    """Yield the documents of a complete shard, split by split, in their order."""
    for split in SPLITS:
        stored = record_files.RecordFiles([str(manifest.shard_path(split, number))])
        for index in range(len(stored)):
            location = f"{manifest.units[number]}, document {index} of {split!r}"
            record = stored[index]
            yield StoredDocument(split, record, location, hash_record(record))


def write_distinct(
    manifest: Manifest,
    number: int,
    documents: Iterable[StoredDocument],
    seen: set[bytes],
    stats: DatasetStats,
    reads: Mapping[str, FileStat | None],
) -> None:
    """Write a shard, and drop duplicates if `settings.deduplicate` is True.

    Args:
        manifest: manifest of the data.
        number: number of the shard.
        documents: documents of the shard, and duplicates.
        seen: hashes of the documents that are already written; the function adds the new ones.
        stats: statistics of reading. The function adds what it writes and drops.
        reads: files that were read for the shard.
    """
    writer = ShardWriter(manifest, number)
    for document in documents:
        if manifest.settings.deduplicate and document.digest in seen:
            stats.add_dropped(DataError(REASON), document.location)
            continue
        seen.add(document.digest)
        writer.write(document.split, document.record)
        stats.add_kept(records.deserialize_outline(document.record), document.split)
    writer.finish(stats, reads)


def drop_duplicates(manifest: Manifest) -> None:
    """Drop the duplicates from the shards of all units, in their order."""
    seen: set[bytes] = set()
    for number in range(len(manifest.units)):
        documents = list(iter_shard(manifest, number))
        digests = [document.digest for document in documents]
        if len({*digests}) == len(digests) and seen.isdisjoint(digests):
            seen.update(digests)
            continue
        marker = manifest.load_marker(number)
        stats = DatasetStats.from_dict(marker["tally"]).without_kept()
        reads = {name: as_stat(stat) for name, stat in marker["reads"].items()}
        write_distinct(manifest, number, documents, seen, stats, reads)
