"""Own data prepared once: planned, made unit by unit, and sealed as a data set of TFDS."""

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
from oneflow_jax.data.custom import formats, worker_pool
from oneflow_jax.data.custom import manifest as manifest_lib
from oneflow_jax.data.custom.manifest import Manifest
from oneflow_jax.data.custom.reader import Settings, WorkUnit
from oneflow_jax.data.custom.stats import DatasetStats
from oneflow_jax.errors import UserError
from oneflow_jax.runtime import metric_writer

_LOCK_FILE = ".lock"
_LOG_INTERVAL_S = 5.0  # seconds between reports


def parse_config(source_config: Mapping[str, object]) -> Settings:
    """The settings that `config.source` gives.

    Raises:
        UserError: an unknown setting, or a value that cannot be.
    """
    known = list(inspect.signature(Settings).parameters)
    for key in source_config:
        if key not in (*known, "name"):
            raise UserError(f"data set 'own' has no setting {key!r}; it has: {', '.join(known)}")
    chosen = {key: value for key, value in source_config.items() if key != "name"}
    chosen["fields"] = tuple(chosen.get("fields", ()))
    return Settings(**chosen)


def open_split(settings: Settings, data_dir: str, split: str, num_workers: int) -> sources.Source:
    """The documents of one split, prepared if need be.

    Raises:
        UserError: there are no such data, or nothing is left of them; or they changed since.
    """
    if split not in manifest_lib.SPLITS:
        known = ", ".join(manifest_lib.SPLITS)
        raise UserError(f"data set 'own' has no split {split!r}; choose from {known}")
    folder = prepare(settings, data_dir, num_workers)
    return sources.RecordSource(tfds.builder_from_directory(folder).as_data_source(split))


def dataset_dir(settings: Settings, data_dir: str) -> pathlib.Path:
    """Where the prepared data of these settings are, or will be."""
    path = pathlib.Path(settings.path).expanduser()
    if settings.kind != "tfds":  # Which may be a name.
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
    """The folder of the prepared data, made now as far as something is missing.

    Args:
        settings: what to read, and how.
        data_dir: where prepared data sets live.
        num_workers: processes; their number has no say in what comes out.
        command: starts one of them.

    Raises:
        UserError: as for `open_split`.
    """
    if num_workers < 1:
        raise UserError(f"data.preparing={num_workers}: give 1 process or more")
    folder = dataset_dir(settings, data_dir)
    if (folder / manifest_lib.COMPLETE_FILE).exists():
        _check_unchanged(folder, settings)
        return folder
    folder.mkdir(parents=True, exist_ok=True)
    with _lock(folder) as lock:
        if not (folder / manifest_lib.COMPLETE_FILE).exists():  # Another process was faster.
            plan = _load_or_create_manifest(folder, settings)
            _run_workers(plan, num_workers, lock, command)
            _write_tfds_metadata(plan)
    return folder


def load_stats(folder: pathlib.Path) -> DatasetStats:
    """What came of all units of prepared data, in their order."""
    return DatasetStats.from_dict(
        json.loads((folder / manifest_lib.COMPLETE_FILE).read_text("utf-8"))
    )


@contextlib.contextmanager
def _lock(folder: pathlib.Path) -> Iterator[int]:
    """Holds the folder, as do the processes that are started meanwhile."""
    with (folder / _LOCK_FILE).open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield lock.fileno()


def _load_or_create_manifest(folder: pathlib.Path, settings: Settings) -> Manifest:
    """The plan to go on with; what was made by another one is deleted."""
    known = formats.detect_format(settings)
    if settings.kind == "auto":
        logging.info("source.kind=auto: %s holds data of kind %r.", settings.path, known)
    settings = dataclasses.replace(settings, kind=known)
    units = tuple(formats.get_reader(known).units(settings))
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
    missing = [number for number in range(len(manifest.units)) if manifest.done(number) is None]
    count = len(manifest.units)
    if len(missing) < count:
        logging.info("%d of %d units are there already.", count - len(missing), count)
    progress = metric_writer.ProgressBar("preparing", count, count - len(missing), unit="unit")
    kept, dropped, told = 0, 0, time.monotonic()
    with worker_pool.WorkerPool(manifest, num_workers, (lock_fd,), command) as making:
        for done, number in enumerate(making.made(missing), count - len(missing) + 1):
            came = DatasetStats.from_dict(manifest.done(number)["tally"])
            kept, dropped = kept + came.documents.total(), dropped + came.dropped.total()
            progress.advance(done)
            if time.monotonic() - told > _LOG_INTERVAL_S or done == count:
                told = time.monotonic()
                progress.report(done, f"{kept:,} documents, {dropped:,} dropped")
    progress.close()


def _write_tfds_metadata(manifest: Manifest) -> None:
    """Writes what makes the files a data set of TFDS.

    Raises:
        UserError: nothing is left of the data, or of one split.
    """
    told = [manifest.done(number) for number in range(len(manifest.units))]
    total = DatasetStats()
    for each in told:
        total.add(DatasetStats.from_dict(each["tally"]))
    empty = [split for split in manifest_lib.SPLITS if not total.documents[split]]
    if empty:
        reasons = ", ".join(f"{count} {reason}" for reason, count in total.dropped.most_common())
        raise UserError(
            f"source.path={manifest.settings.path}: {total.documents.total()} documents, and none "
            "of "
            f"them in {' and '.join(map(repr, empty))} with source.held_out="
            f"{manifest.settings.held_out} (dropped: {reasons or 'none'}). Give more documents, or "
            "another share."
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
    """Data that have gone away since are no matter; others than were prepared are."""
    plan = manifest_lib.load(folder)
    if plan is None:
        raise UserError(f"{folder} was prepared by another version: delete it.")
    try:
        now = _fingerprint(plan.settings, plan.units)
    except OSError:
        return
    if now != plan.stamp:
        raise UserError(
            f"source.path={settings.path} has changed since it was prepared: delete {folder} to "
            "prepare it anew, or give another folder."
        )


def _fingerprint(settings: Settings, units: Sequence[WorkUnit]) -> str:
    """Of the files that units are read from: names, sizes, times."""
    digest = hashlib.blake2b(digest_size=16)
    root = settings.folder.root
    for name in dict.fromkeys(name for unit in units for name in unit.files):
        state = (root / name).stat()
        digest.update(repr((name, state.st_size, state.st_mtime_ns)).encode())
    return digest.hexdigest()
