"""Engine that writes the shards of own data by Apache Beam; see `prepare.Engine`."""

import contextlib
import dataclasses
import json
import os
import re
import shutil
import tempfile
import uuid
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import numpy as np
from etils import epath

from oneflow_jax.data import overflow, sources
from oneflow_jax.data.beam import runners
from oneflow_jax.data.custom import worker_pool
from oneflow_jax.data.custom.fingerprint import as_stat
from oneflow_jax.data.custom.manifest import Manifest
from oneflow_jax.data.custom.stats import DatasetStats
from oneflow_jax.data.layout import Layout
from oneflow_jax.errors import UserError, check_one_of
from oneflow_jax.runtime import storage

if TYPE_CHECKING:
    import apache_beam as beam
    from apache_beam.options.pipeline_options import PipelineOptions

_USER_ERROR = re.compile(rf"{re.escape(UserError.__module__)}\.UserError: (.*?)(?: \[while|\n|$)")


@dataclasses.dataclass(frozen=True)
class BeamEngine:
    """Engine that runs the preparation on a runner of Apache Beam.

    Attributes:
        runner: one of `runners.NAMES`.
        options: options of the runner, each as NAME=VALUE. If `temp_location` is a bucket, workers
            write shards there, and the engine then copies the shards to `data.dir`. Otherwise all
            workers must see `data.dir` at the same path.
        num_workers: number of processes of the DirectRunner.
        shard_bytes: size of a shard, in bytes of records.
        command: command that starts the process that reads units.
    """

    runner: str
    options: Sequence[str] = ()
    num_workers: int = 1
    shard_bytes: int = 256 * 10**6
    command: Sequence[str] = worker_pool.COMMAND

    def __post_init__(self) -> None:
        """Check that the runner can be used.

        Raises:
            UserError: the runner is unknown or not installed, or an option is wrong.
        """
        check_one_of("--runner", self.runner, runners.NAMES)
        runners.make_options(self.runner, self.options, self.num_workers)

    def __call__(self, plan: Manifest) -> Manifest:
        """Write all shards to a new folder in `plan.folder`, and return their plan.

        A run that was killed leaves files in `plan.folder` only. They are deleted, so nothing of an
        earlier run is used.

        Raises:
            UserError: a disk is full or cannot be written, or workers cannot read the source.
        """
        from oneflow_jax.data.beam import pipeline  # It imports Apache Beam.

        options = runners.make_options(self.runner, self.options, self.num_workers)
        if self.runner == runners.DATAFLOW and not storage.is_remote(plan.settings.path):
            raise UserError(
                f"source.path={plan.settings.path}: the workers of {self.runner} cannot read a "
                "folder of this machine. Copy the data to a bucket, and give gs://BUCKET/FOLDER."
            )
        shutil.rmtree(plan.folder, ignore_errors=True)
        # The folder has a new name, since workers of a killed run may still write to the earlier.
        folder, temp = plan.folder / uuid.uuid4().hex, plan.folder / "temp"
        folder.mkdir(parents=True)
        temp.mkdir()
        bucket = _find_bucket(options)
        job = pipeline.Job(
            settings=plan.settings,
            output=f"{bucket}/{folder.name}" if bucket else str(folder.resolve()),
            temp=None if bucket else str(temp.resolve()),
            shard_bytes=self.shard_bytes,
            command=self.command,
        )
        with _run(options) as steps:
            pipeline.build(steps, plan.units, job)
        if bucket:
            _fetch(epath.Path(job.output), epath.Path(folder))
        return _complete(dataclasses.replace(plan, folder=folder), pipeline.READING_FILE)

    def count_chunks(self, source: sources.RecordSource, layout: Layout, policy: str) -> np.ndarray:
        """Count the chunks of each document; see `overflow.count_chunks`.

        Workers that write shards to a bucket do not see `data.dir`. Then this process counts.

        Raises:
            UserError: as in `overflow.count_chunks`.
        """
        from oneflow_jax.data.beam import pipeline  # It imports Apache Beam.

        options = runners.make_options(self.runner, self.options, self.num_workers)
        if _find_bucket(options):
            return overflow.count_chunks(source, layout, policy)
        files = source.files
        with tempfile.TemporaryDirectory(dir=os.path.dirname(files.paths[0])) as folder:
            with _run(options) as steps:
                pipeline.build_counts(steps, files, layout, policy, os.path.abspath(folder))
            names = [pipeline.name_counts(number) for number in range(len(files.paths))]
            return np.concatenate([np.load(os.path.join(folder, name)) for name in names])


def _find_bucket(options: "PipelineOptions") -> str:
    """Return the option `temp_location` if it is a folder of a bucket, else ""."""
    place = (options.get_all_options().get("temp_location") or "").rstrip("/")
    return place if storage.is_remote(place) else ""


@contextlib.contextmanager
def _run(options: "PipelineOptions") -> Iterator["beam.Pipeline"]:
    """Yield a pipeline without steps, and run it when the block ends.

    Raises:
        UserError: a step raised a `UserError`.
    """
    import apache_beam as beam

    try:
        with beam.Pipeline(options=options) as pipeline:
            yield pipeline
    except Exception as error:  # Runners wrap an error of a step in errors of any type.
        if found := _USER_ERROR.search(str(error)):
            raise UserError(found[1]) from error
        raise


def _fetch(source: epath.Path, target: epath.Path) -> None:
    """Copy the files of a bucket to a local folder, and delete them in the bucket."""
    for path in source.iterdir():
        path.copy(target / path.name, overwrite=True)
    source.rmtree()


def _complete(plan: Manifest, reading_file: str) -> Manifest:
    """Save the plan, and add what was counted during reading to the marker of the first shard."""
    path = plan.folder / reading_file
    reading = json.loads(path.read_text("utf-8"))
    path.unlink()
    plan = dataclasses.replace(plan, num_hash_shards=reading["num_shards"])
    plan.save()
    stats = DatasetStats.from_dict(reading["tally"])
    stats.merge(DatasetStats.from_dict(plan.load_marker(0)["tally"]))
    plan.mark_done(0, stats, {name: as_stat(stat) for name, stat in reading["reads"].items()})
    return plan
