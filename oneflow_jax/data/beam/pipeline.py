"""The pipeline: read the units, divide their documents by hash, and write the shards.

    batches of units -> ReadUnits -> documents -> group by shard -> WriteShard -> files of shards
                            |
                            +-> statistics of reading -> READING_FILE

A shard holds the documents whose hashes are in its range, in the order of the hashes. So one
grouping brings duplicates together, shuffles all documents, and gives each shard its size. The
result depends on the source alone: not on the workers, nor on what was interrupted and run again.

Apache Beam is optional, so only functions of `engine` import this module.
"""

import dataclasses
import os
import pathlib
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import apache_beam as beam
import numpy as np
from apache_beam.metrics import Metrics
from etils import epath

from oneflow_jax.data import overflow, record_files, sources
from oneflow_jax.data.custom import deduplicate, manifest, worker_pool
from oneflow_jax.data.custom.deduplicate import StoredDocument
from oneflow_jax.data.custom.manifest import Manifest
from oneflow_jax.data.custom.reader import Settings, WorkUnit
from oneflow_jax.data.custom.stats import DatasetStats
from oneflow_jax.data.layout import Layout
from oneflow_jax.runtime import storage

READING_FILE = "reading.json"
"""File with the number of shards, and the statistics and the source files of all units."""

BATCH_UNITS = 16
"""Number of units that a worker reads in one process. Starting a process takes seconds."""

_NUMBER_BYTES = 8  # leading bytes of a hash that decide the shard

_Element = tuple[bytes, int, int, str, bytes, str]
"""A document: its hash, the number of its unit, its number in the unit, and the other fields of
`StoredDocument`. Sorting elements puts equal documents together, the first of the source first."""


@dataclasses.dataclass(frozen=True)
class Job:
    """What the steps have in common.

    Attributes:
        settings: settings of the source.
        output: folder for the shards: local to all workers, or in a bucket.
        temp: folder for the temporary files of workers; None for that of the system.
        shard_bytes: size of a shard, in bytes of records.
        command: command that starts the process that reads units.
    """

    settings: Settings
    output: str
    temp: str | None
    shard_bytes: int
    command: Sequence[str]

    def make_temp_folder(self) -> tempfile.TemporaryDirectory:
        """Create a folder of one step, which is deleted after the step."""
        return tempfile.TemporaryDirectory(dir=self.temp)


class ReadUnits(beam.DoFn):
    """Reads units in a process of their own, which may crash or hang on bad data.

    The output "reading" has the statistics, with documents dropped by reason.
    """

    def __init__(self, job: Job) -> None:
        self._job = job

    def process(self, batch: tuple[int, tuple[WorkUnit, ...]]) -> Iterator[Any]:
        """Yield the documents of the units, and their statistics as the output "reading".

        Args:
            batch: number of the first unit, and the units.
        """
        first, units = batch
        with self._job.make_temp_folder() as folder:
            plan = Manifest(pathlib.Path(folder), self._job.settings, tuple(units))
            plan.save()
            with worker_pool.WorkerPool(plan, 1, (), self._job.command) as pool:
                for _ in pool.run(range(len(units))):
                    pass
            for number in range(len(units)):
                for index, document in enumerate(deduplicate.iter_shard(plan, number)):
                    split, record, location, digest = dataclasses.astuple(document)
                    yield digest, first + number, index, split, record, location
                marker = plan.load_marker(number)
                stats = DatasetStats.from_dict(marker["tally"]).without_kept()
                for reason, count in stats.dropped.items():
                    Metrics.counter("documents dropped", reason).inc(count)
                yield beam.pvalue.TaggedOutput(
                    "reading", (first + number, stats.to_dict(), marker["reads"])
                )


class WriteShard(beam.DoFn):
    """Writes a shard in the order of hashes, without duplicates."""

    def __init__(self, job: Job) -> None:
        self._job = job

    def process(
        self, shard: tuple[int, Iterable[_Element | None]], num_shards: int
    ) -> Iterator[None]:
        """Write the files of a shard and its marker.

        Args:
            shard: number of the shard, and its documents; None stands for no document.
            num_shards: number of all shards.
        """
        number, elements = shard
        documents = sorted(element for element in elements if element is not None)
        with self._job.make_temp_folder() as folder:
            plan = Manifest(pathlib.Path(folder), self._job.settings, (), num_shards)
            deduplicate.write_distinct(
                plan,
                number,
                (StoredDocument(*element[3:], digest=element[0]) for element in documents),
                seen=set(),
                stats=DatasetStats(),
                reads={},
            )
            for split in manifest.SPLITS:
                _publish(plan.shard_path(split, number), self._job.output)
            _publish(plan.marker_path(number), self._job.output)
        yield from ()


def build(pipeline: beam.Pipeline, units: Sequence[WorkUnit], job: Job) -> None:
    """Add all steps to a pipeline. They write the shards and `READING_FILE` to `job.output`."""
    batches = [(n, tuple(units[n : n + BATCH_UNITS])) for n in range(0, len(units), BATCH_UNITS)]
    read = (
        pipeline
        | "list units" >> beam.Create(batches)
        | "spread units" >> beam.Reshuffle()
        | "read units" >> beam.ParDo(ReadUnits(job)).with_outputs("reading", main="documents")
    )
    num_shards = beam.pvalue.AsSingleton(
        read.documents
        | "size of a document" >> beam.Map(_record_size)
        | "size of all" >> beam.CombineGlobally(sum)
        | "number of shards" >> beam.Map(_count_shards, job.shard_bytes)
    )
    numbers = (  # Each shard is written, even if no document falls into its range.
        pipeline
        | "begin" >> beam.Create([None])
        | "list shards" >> beam.FlatMap(_list_shards, num_shards)
    )
    keyed = read.documents | "shard of a document" >> beam.Map(_assign_shard, num_shards)
    (
        (numbers, keyed)
        | "shards and documents" >> beam.Flatten()
        | "group by shard" >> beam.GroupByKey()
        | "write shards" >> beam.ParDo(WriteShard(job), num_shards)
    )
    (
        read.reading
        | "one key" >> beam.Map(lambda reading: (None, reading))
        | "group statistics" >> beam.GroupByKey()
        | "write statistics" >> beam.Map(_write_reading, num_shards, job)
    )


class CountChunks(beam.DoFn):
    """Counts the chunks of the documents of a file; see `overflow.count_chunks`."""

    def __init__(self, layout: Layout, policy: str, output: str) -> None:
        self._layout, self._policy, self._output = layout, policy, output

    def process(self, shard: tuple[int, str, int]) -> Iterator[None]:
        """Write the numbers of chunks to a file of the output folder.

        Args:
            shard: number of the file, its path, and the number of its documents.
        """
        number, path, count = shard
        source = sources.RecordSource(record_files.RecordFiles([path], [count]))
        counts = overflow.count_chunks(source, self._layout, self._policy)
        with tempfile.TemporaryDirectory(dir=self._output) as folder:
            draft = pathlib.Path(folder, name_counts(number))
            np.save(draft, counts)
            _publish(draft, self._output)
        yield from ()


def name_counts(number: int) -> str:
    """Return the name of the file that `CountChunks` writes."""
    return f"chunks-{number:05d}.npy"


def build_counts(
    pipeline: beam.Pipeline,
    files: record_files.RecordFiles,
    layout: Layout,
    policy: str,
    output: str,
) -> None:
    """Add steps that write the numbers of chunks of each file of `files` to `output`."""
    shards = [
        (number, os.path.abspath(path), count)
        for number, (path, count) in enumerate(zip(files.paths, files.counts, strict=True))
    ]
    (
        pipeline
        | "list files" >> beam.Create(shards)
        | "spread files" >> beam.Reshuffle()
        | "count chunks" >> beam.ParDo(CountChunks(layout, policy, output))
    )


def _record_size(element: _Element) -> int:
    return len(element[4])


def _count_shards(num_bytes: int, shard_bytes: int) -> int:
    return max(1, -(-num_bytes // shard_bytes))


def _list_shards(_: None, num_shards: int) -> Iterator[tuple[int, None]]:
    yield from ((number, None) for number in range(num_shards))


def _assign_shard(element: _Element, num_shards: int) -> tuple[int, _Element]:
    """Return a document with the number of the shard whose range contains its hash."""
    position = int.from_bytes(element[0][:_NUMBER_BYTES], "big")
    return position * num_shards >> 8 * _NUMBER_BYTES, element


def _write_reading(
    grouped: tuple[None, Iterable[tuple[int, dict[str, Any], dict[str, Any]]]],
    num_shards: int,
    job: Job,
) -> None:
    """Merge the statistics of all units in their order, and write them."""
    total, reads = DatasetStats(), {}
    for _, stats, unit_reads in sorted(grouped[1], key=lambda reading: reading[0]):
        total.merge(DatasetStats.from_dict(stats))
        reads |= unit_reads
    with job.make_temp_folder() as folder:
        path = pathlib.Path(folder, READING_FILE)
        values = {"num_shards": num_shards, "tally": total.to_dict(), "reads": reads}
        manifest.write_json(path, values)
        _publish(path, job.output)


def _publish(path: pathlib.Path, output: str) -> None:
    """Move a complete file to the output folder, atomically."""
    if storage.is_remote(output):
        epath.Path(path).copy(epath.Path(output) / path.name, overwrite=True)
    else:
        os.replace(path, os.path.join(output, path.name))
