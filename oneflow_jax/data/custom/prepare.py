"""Preparation of custom data: plan the units, process each, and write TFDS metadata."""

import contextlib
import dataclasses
import fcntl
import hashlib
import inspect
import json
import logging
import pathlib
import shutil
import time
from collections.abc import Iterator, Mapping, Sequence

import tensorflow_datasets as tfds

from oneflow_jax.data import records, sources, splits
from oneflow_jax.data.custom import formats, unused_files, worker_pool
from oneflow_jax.data.custom import manifest as manifest_lib
from oneflow_jax.data.custom.manifest import Manifest
from oneflow_jax.data.custom.reader import Settings, WorkUnit
from oneflow_jax.data.custom.stats import DatasetStats
from oneflow_jax.errors import UserError, check_at_least, check_one_of
from oneflow_jax.runtime import metric_writer

_LOCK_FILE = ".lock"
_LOG_INTERVAL_S = 5.0  # seconds between progress reports


def parse_config(source_config: Mapping[str, object]) -> Settings:
    """Return the settings from `config.source`.

    Raises:
        UserError: a setting is unknown or out of range.
    """
    known = list(inspect.signature(Settings).parameters)
    for key in source_config:
        if key not in (*known, "name"):
            raise UserError(f"data set 'own' has no setting {key!r}. It has: {', '.join(known)}.")
    chosen = {key: value for key, value in source_config.items() if key != "name"}
    chosen["columns"] = tuple(chosen.get("columns", ()))
    return Settings(**chosen)


def open_split(settings: Settings, data_dir: str, split: str, num_workers: int) -> sources.Source:
    """Open one split, and prepare the data first if necessary.

    Raises:
        UserError: the data do not exist, no usable document is left, or the data have changed since
            they were prepared.
    """
    check_one_of("data set 'own': split", split, manifest_lib.SPLITS)
    folder = prepare(settings, data_dir, num_workers)
    return sources.RecordSource(tfds.builder_from_directory(folder).as_data_source(split))


def dataset_dir(settings: Settings, data_dir: str) -> pathlib.Path:
    """Return the folder of the prepared data for these settings."""
    path = pathlib.Path(settings.path).expanduser()
    if settings.format != "tfds":  # A TFDS path may be a name.
        path = path.absolute()
    named = dataclasses.replace(settings, path=str(path))
    mark = splits.hash_bucket(repr(named), 16**8)
    return (
        pathlib.Path(data_dir).expanduser() / manifest_lib.DATASET_NAME / f"{path.name}_{mark:08x}"
    )


def prepare(
    settings: Settings,
    data_dir: str,
    num_workers: int,
    command: Sequence[str] = worker_pool.COMMAND,
) -> pathlib.Path:
    """Prepare what is missing of the data, and return the folder of the prepared data.

    Args:
        settings: path of the data, and how to read them.
        data_dir: folder of prepared data sets.
        num_workers: number of worker processes; the output does not depend on it.
        command: command that starts a worker process.

    Raises:
        UserError: the data do not exist, no usable document is left, or the data have changed since
            they were prepared.
    """
    check_at_least("data.num_prepare_workers", num_workers, 1)
    folder = dataset_dir(settings, data_dir)
    if (folder / manifest_lib.COMPLETE_FILE).exists():
        _check_unchanged(folder, settings)
        return folder
    folder.mkdir(parents=True, exist_ok=True)
    with _lock(folder) as lock:
        if not (folder / manifest_lib.COMPLETE_FILE).exists():  # Check again under the lock.
            plan = _load_or_create_manifest(folder, settings)
            _run_workers(plan, num_workers, lock, command)
            _write_tfds_metadata(plan)
    return folder


def load_stats(folder: pathlib.Path) -> DatasetStats:
    """Return the merged statistics of all units of prepared data."""
    return DatasetStats.from_dict(
        json.loads((folder / manifest_lib.COMPLETE_FILE).read_text("utf-8"))
    )


@contextlib.contextmanager
def _lock(folder: pathlib.Path) -> Iterator[int]:
    """Lock the folder. Processes that inherit the descriptor keep the lock until they end."""
    with (folder / _LOCK_FILE).open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield lock.fileno()


def _load_or_create_manifest(folder: pathlib.Path, settings: Settings) -> Manifest:
    """Return the plan to resume, or make a new one and delete the files of another plan."""
    known = formats.detect_format(settings)
    if settings.format == "auto":
        logging.info("source.format=auto: the format of %s is %r.", settings.path, known)
    settings = dataclasses.replace(settings, format=known)
    units = tuple(formats.get_reader(known).list_units(settings))
    plan = Manifest(folder, settings, units, _fingerprint(settings, units))
    before = manifest_lib.load(folder)
    if before == plan:
        return plan
    for path in folder.iterdir():
        if path.name != _LOCK_FILE:
            shutil.rmtree(path) if path.is_dir() else path.unlink()
    plan.save()
    return plan


def _run_workers(
    manifest: Manifest, num_workers: int, lock_fd: int, command: Sequence[str]
) -> None:
    missing = [
        number for number in range(len(manifest.units)) if manifest.load_marker(number) is None
    ]
    count = len(manifest.units)
    if len(missing) < count:
        logging.info("%d of %d units are already prepared.", count - len(missing), count)
    progress = metric_writer.ProgressBar("preparing", count, count - len(missing), unit="unit")
    kept, dropped, told = 0, 0, time.monotonic()
    with worker_pool.WorkerPool(manifest, num_workers, (lock_fd,), command) as making:
        for done, number in enumerate(making.run(missing), count - len(missing) + 1):
            came = DatasetStats.from_dict(manifest.load_marker(number)["tally"])
            kept, dropped = kept + came.documents.total(), dropped + came.dropped.total()
            progress.advance(done)
            if time.monotonic() - told > _LOG_INTERVAL_S or done == count:
                told = time.monotonic()
                progress.report(done, f"{kept:,} documents, {dropped:,} dropped")
    progress.close()


def _write_tfds_metadata(manifest: Manifest) -> None:
    """Write the TFDS metadata and the file that marks the data as complete.

    Raises:
        UserError: a split has no documents.
    """
    told = [manifest.load_marker(number) for number in range(len(manifest.units))]
    total = DatasetStats()
    for each in told:
        total.merge(DatasetStats.from_dict(each["tally"]))
    unused_files.count_unused(manifest, total)
    empty = [split for split in manifest_lib.SPLITS if not total.documents[split]]
    if empty:
        counts = total.dropped + total.lost
        reasons = ", ".join(f"{count} {reason}" for reason, count in counts.most_common())
        raise UserError(
            f"source.path={manifest.settings.path}: {total.documents.total()} documents, none of "
            f"which is in {' and '.join(map(repr, empty))} with source.heldout_fraction="
            f"{manifest.settings.heldout_fraction} (dropped: {reasons or 'none'}). Give more "
            "documents, or another fraction."
        )
    infos = [
        tfds.core.SplitInfo(
            name=split,
            shard_lengths=[each["tally"]["documents"].get(split, 0) for each in told],
            num_bytes=sum(each["bytes"][split] for each in told),
            filename_template=tfds.core.ShardedFileTemplate(
                data_dir=manifest.folder,
                dataset_name=manifest_lib.DATASET_NAME,
                split=split,
                filetype_suffix="array_record",
                template="{DATASET}-{SPLIT}.{FILEFORMAT}-{SHARD_X_OF_Y}",
            ),
        )
        for split in manifest_lib.SPLITS
    ]
    tfds.folder_dataset.write_metadata(
        data_dir=manifest.folder,
        features=records.features(),
        split_infos=infos,
        description=f"Documents of {manifest.settings.path}, prepared by oneflow_jax.",
        check_data=False,
    )
    manifest_lib.write_json(manifest.folder / manifest_lib.COMPLETE_FILE, total.to_dict())


def _check_unchanged(folder: pathlib.Path, settings: Settings) -> None:
    """Check that the source files have not changed. It is not an error if they no longer exist."""
    plan = manifest_lib.load(folder)
    if plan is None:
        raise UserError(f"{folder} was prepared by another version. Delete it.")
    try:
        now = _fingerprint(plan.settings, plan.units)
    except OSError:
        return
    if now != plan.stamp:
        raise UserError(
            f"source.path={settings.path} has changed since it was prepared. Delete {folder} to "
            "prepare it again, or give another folder."
        )


def _fingerprint(settings: Settings, units: Sequence[WorkUnit]) -> str:
    """Hash the names, sizes and modification times of the source files."""
    digest = hashlib.blake2b(digest_size=16)
    root = settings.folder.root
    for name in dict.fromkeys(name for unit in units for name in unit.files):
        state = (root / name).stat()
        digest.update(repr((name, state.st_size, state.st_mtime_ns)).encode())
    return digest.hexdigest()
