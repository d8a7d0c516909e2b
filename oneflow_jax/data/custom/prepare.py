"""Preparation of custom data: plan the work units, process each unit, and write TFDS metadata."""

import dataclasses
import inspect
import logging
import pathlib
import shutil
import time
from collections.abc import Callable, Mapping, Sequence

import tensorflow_datasets as tfds

from oneflow_jax.data import records, sources
from oneflow_jax.data.custom import (
    deduplicate,
    fingerprint,
    formats,
    notices,
    reuse,
    store,
    unused_files,
    worker_pool,
)
from oneflow_jax.data.custom import manifest as manifest_lib
from oneflow_jax.data.custom.errors import format_reason
from oneflow_jax.data.custom.fingerprint import SourceChanged, SourceFiles
from oneflow_jax.data.custom.manifest import Manifest
from oneflow_jax.data.custom.reader import Settings, WorkUnit
from oneflow_jax.data.custom.sandbox import FileStat
from oneflow_jax.data.custom.stats import DatasetStats
from oneflow_jax.errors import UserError, check_at_least, check_one_of
from oneflow_jax.runtime import metric_writer, plurals, storage

MAX_ATTEMPTS = 3
"""Maximum number of attempts to prepare data if files change during the preparation."""

Engine = Callable[[Manifest], Manifest]
"""Writes the shards of all units below the folder of a plan, and returns the plan of the shards."""

_NO_SPLIT_ADVICE = (
    "Give more documents, or another fraction, for example --config.source.heldout_fraction=0.2."
)
_LOG_INTERVAL_S = 5.0  # seconds between progress reports


def parse_config(source_config: Mapping[str, object]) -> Settings:
    """Return the settings that `config.source` contains.

    Raises:
        UserError: a setting is unknown or out of range.
    """
    # The sizes of images follow from keys of other sections.
    known = [name for name in inspect.signature(Settings).parameters if name != "crop_sizes"]
    for key in source_config:
        if key not in (*known, "name"):
            raise UserError(f"data set 'own' has no setting {key!r}. It has: {', '.join(known)}.")
    chosen = {key: value for key, value in source_config.items() if key != "name"}
    chosen["columns"] = tuple(chosen.get("columns", ()))
    return Settings(**chosen)


def open_folder(folder: pathlib.Path, split: str) -> sources.Source:
    """Open one split of prepared data.

    Raises:
        UserError: the split does not exist.
    """
    check_one_of("data set 'own': split", split, manifest_lib.SPLITS)
    builder = tfds.builder_from_directory(storage.escape_local(str(folder)))
    return sources.RecordSource.open(builder, split)


def open_entry(settings: Settings, data_dir: str) -> store.SourceEntry:
    """Return the entry of a source in the folder of prepared data, with an absolute path."""
    if storage.is_remote(settings.path):
        return store.SourceEntry(store.store_root(data_dir), settings)
    path = pathlib.Path(settings.path).expanduser()
    if settings.format != "tfds" or path.exists():  # A TFDS path may be the name of a data set.
        path = path.resolve()
    return store.SourceEntry(
        store.store_root(data_dir), dataclasses.replace(settings, path=str(path))
    )


def prepare(
    settings: Settings,
    data_dir: str,
    num_workers: int,
    command: Sequence[str] = worker_pool.COMMAND,
    engine: Engine | None = None,
) -> pathlib.Path:
    """Bring prepared data up to date with its source, and return its folder.

    Only units whose files have changed are prepared. If the source no longer exists, the
    function uses the data that was last prepared from this source. A split may be empty;
    `check_splits` reports it.

    Args:
        settings: path of the data, and settings for reading.
        data_dir: folder of prepared data sets.
        num_workers: number of worker processes; the output does not depend on it.
        command: command that starts a worker process.
        engine: what writes the shards, in place of the worker processes of this machine.

    Raises:
        UserError: the data do not exist or cannot be used, or files keep changing.
    """
    check_at_least("data.num_prepare_workers", num_workers, 1)
    entry = open_entry(settings, data_dir)
    _mark(entry)
    for _ in range(MAX_ATTEMPTS):
        try:
            return _update(entry, num_workers, command, engine)
        except SourceChanged as error:
            logging.warning(
                "source.path=%s: the file %s changed while it was read. Reading the source again.",
                settings.path,
                error,
            )
    raise UserError(
        f"source.path={settings.path}: files change while they are read. Run the same command "
        "again when no program writes to the files any more."
    )


def _mark(entry: store.SourceEntry) -> None:
    """Mark `data.dir`, so that it is skipped when a source contains it.

    Raises:
        UserError: `data.dir` is the folder of the source.
    """
    folder = entry.root.parent
    if folder.resolve() == pathlib.Path(entry.settings.path):
        raise UserError(
            f"data.dir={folder}: this is also source.path, so the prepared data would be read as "
            "documents. Give another folder for data.dir."
        )
    if entry.root.is_dir():
        storage.mark_folder(folder, is_ours=True)


def _update(
    entry: store.SourceEntry, num_workers: int, command: Sequence[str], engine: Engine | None
) -> pathlib.Path:
    """Prepare what has changed, and return the folder of the prepared data.

    Raises:
        SourceChanged: a file changed during the preparation.
    """
    listed = _list_source(entry)
    if isinstance(listed, pathlib.Path):
        return listed
    settings, units = listed
    root = formats.open_root(settings)
    if (folder := _find_current(entry, settings, units, SourceFiles(root))) is not None:
        return folder
    with entry.lock() as lock:
        donors = list(entry.iter_equal(settings))
        files = SourceFiles(root, [donor.records for donor in donors])
        # Another process may have prepared the data while this one waited for the lock.
        if (folder := _find_current(entry, settings, units, files)) is not None:
            return folder
        _explain(entry, donors)
        plan = Manifest(entry.staging, settings, units)
        if engine is not None:
            plan = engine(plan)
        else:
            reuse.stage(entry, plan, donors, files)
            _run_workers(plan, num_workers, lock, command)
            if settings.deduplicate:
                deduplicate.drop_duplicates(plan)
        _write_tfds_metadata(plan)
        return _seal(entry, plan, SourceFiles(root, [donor.records for donor in donors]))


def _list_source(
    entry: store.SourceEntry,
) -> tuple[Settings, tuple[WorkUnit, ...]] | pathlib.Path:
    """List the units of a source.

    If the source does not exist, return the folder of the data that was last prepared from it.
    """
    settings = entry.settings
    exists = settings.location.exists()
    try:
        known = formats.detect_format(settings)
        detected = dataclasses.replace(settings, format=known)
        units = tuple(formats.get_reader(known).list_units(detected))
    except UserError:
        last = None if exists else entry.load_last()
        if last is None:
            raise
        logging.warning(
            "source.path=%s does not exist. The program uses the data that it last prepared from "
            "this path: %s",
            settings.path,
            last.folder,
        )
        return last.folder
    if settings.format == "auto":
        metric_writer.log_once("source.format=auto: the format of %s is %r.", settings.path, known)
    return detected, units


def _find_current(
    entry: store.SourceEntry, settings: Settings, units: Sequence[WorkUnit], files: SourceFiles
) -> pathlib.Path | None:
    """Return the folder of prepared data that matches the current source, or None."""
    for prepared in entry.iter_equal(settings):
        if reuse.is_current(prepared, units, files):
            reuse.refresh_records(prepared, files)
            entry.remember(prepared)
            return prepared.folder
    return None


def _explain(entry: store.SourceEntry, donors: Sequence[store.PreparedData]) -> None:
    """Log why existing prepared data is not used."""
    path = entry.settings.path
    if any(donor.plan.settings.path == path for donor in donors):
        logging.info(
            "source.path=%s: the files have changed since they were prepared. The program prepares "
            "the new and changed files.",
            path,
        )
    for folder in store.list_outdated(entry.root, path):
        logging.warning(
            "%s was prepared by an earlier version of the program. This folder is not used. The "
            "data is prepared again.",
            folder,
        )


def _seal(entry: store.SourceEntry, plan: Manifest, files: SourceFiles) -> pathlib.Path:
    """Finish a preparation: check that no file changed, and name the folder by its fingerprint.

    Raises:
        SourceChanged: a file changed during the preparation.
    """
    reads: dict[str, FileStat | None] = {}
    for number in range(plan.num_shards):
        for name, stat in plan.load_marker(number)["reads"].items():
            reads[name] = fingerprint.as_stat(stat)
            if files.stat(name) != reads[name]:
                raise SourceChanged(name)
    records = files.record(reads)
    made_from = fingerprint.hash_source(plan, records)
    fingerprint.save(plan.folder, made_from, records)
    last, target = entry.load_last(), entry.target(made_from)
    if last is not None:
        difference = fingerprint.compare(last.records, records)
        logging.info(
            "source.path=%s: files since the last preparation: %s.", entry.settings.path, difference
        )
    same = store.open_prepared(target)
    if same is None or not same.plan.is_complete():
        shutil.rmtree(target, ignore_errors=True)
        plan.folder.rename(target)
    else:  # Another source with the same files was prepared at the same time.
        shutil.rmtree(plan.folder)
    shutil.rmtree(entry.staging, ignore_errors=True)  # An engine may leave temporary files there.
    entry.remember(store.open_prepared(target))
    return target


def _run_workers(
    manifest: Manifest, num_workers: int, lock_fd: int, command: Sequence[str]
) -> None:
    missing = [
        number for number in range(len(manifest.units)) if manifest.load_marker(number) is None
    ]
    count = len(manifest.units)
    if len(missing) < count:
        logging.info(
            "%d of %d units are already prepared, and are reused.", count - len(missing), count
        )
    progress = metric_writer.ProgressBar("preparing", count, count - len(missing), unit="unit")
    num_kept, num_dropped, last_report_time = 0, 0, time.monotonic()
    with worker_pool.WorkerPool(manifest, num_workers, (lock_fd,), command) as pool:
        for done, number in enumerate(pool.run(missing), count - len(missing) + 1):
            unit_stats = DatasetStats.from_dict(manifest.load_marker(number)["tally"])
            num_kept, num_dropped = (
                num_kept + unit_stats.documents.total(),
                num_dropped + unit_stats.dropped.total(),
            )
            progress.advance(done)
            if time.monotonic() - last_report_time > _LOG_INTERVAL_S or done == count:
                last_report_time = time.monotonic()
                progress.report(
                    done, f"{plurals.format_count(num_kept, 'document')}, {num_dropped:,} dropped"
                )
    progress.close()


def _write_tfds_metadata(manifest: Manifest) -> None:
    """Write the TFDS metadata and the file that marks the data as complete."""
    markers = [manifest.load_marker(number) for number in range(manifest.num_shards)]
    total = DatasetStats()
    for each in markers:
        total.merge(DatasetStats.from_dict(each["tally"]))
    unused_files.count_unused(manifest, total)
    infos = [
        tfds.core.SplitInfo(
            name=split,
            shard_lengths=[each["tally"]["documents"].get(split, 0) for each in markers],
            num_bytes=sum(each["bytes"][split] for each in markers),
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


def check_splits(prepared: store.PreparedData) -> None:
    """Check that both splits of prepared data have documents.

    Raises:
        UserError: a split has none.
    """
    settings, total = prepared.plan.settings, prepared.stats
    empty = [split for split in manifest_lib.SPLITS if not total.documents[split]]
    if empty:
        counts = total.dropped + total.lost
        reasons = ", ".join(
            f"{count} {format_reason(reason)}" for reason, count in counts.most_common()
        )
        stored = plurals.format_count(total.documents.total(), "document")
        raise UserError(
            f"source.path={settings.path}: {stored}, none of which is in "
            f"{' and '.join(map(repr, empty))} with source.heldout_fraction="
            f"{settings.heldout_fraction} (dropped: {reasons or 'none'}"
            f"{_describe_left_out(settings, total)}). "
            f"{notices.describe_unread(total) or _NO_SPLIT_ADVICE}"
        )


def _describe_left_out(settings: Settings, stats: DatasetStats) -> str:
    """Return a clause that names what `source.columns` leaves out; "" if it leaves out nothing."""
    if not settings.columns or not stats.unused:
        return ""
    return f"; source.columns={settings.columns} leaves out {', '.join(sorted(stats.unused))}"
