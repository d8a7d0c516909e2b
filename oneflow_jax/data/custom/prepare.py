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
from oneflow_jax.data.custom import formats, manifest, worker_pool
from oneflow_jax.data.custom.manifest import Plan
from oneflow_jax.data.custom.reader import Settings, Unit
from oneflow_jax.data.custom.stats import Tally
from oneflow_jax.errors import UserError
from oneflow_jax.runtime import metric_writer

_LOCK = ".lock"
_TELL = 5.0  # seconds between reports


def settings_of(given: Mapping[str, object]) -> Settings:
    """The settings that `config.source` gives.

    Raises:
        UserError: an unknown setting, or a value that cannot be.
    """
    known = list(inspect.signature(Settings).parameters)
    for key in given:
        if key not in (*known, "name"):
            raise UserError(f"data set 'own' has no setting {key!r}; it has: {', '.join(known)}")
    chosen = {key: value for key, value in given.items() if key != "name"}
    chosen["fields"] = tuple(chosen.get("fields", ()))
    return Settings(**chosen)


def source(settings: Settings, data_dir: str, split: str, workers: int) -> sources.Source:
    """The documents of one split, prepared if need be.

    Raises:
        UserError: there are no such data, or nothing is left of them; or they changed since.
    """
    if split not in manifest.SPLITS:
        known = ", ".join(manifest.SPLITS)
        raise UserError(f"data set 'own' has no split {split!r}; choose from {known}")
    folder = prepared(settings, data_dir, workers)
    return sources.Records(tfds.builder_from_directory(folder).as_data_source(split))


def folder_of(settings: Settings, data_dir: str) -> pathlib.Path:
    """Where the prepared data of these settings are, or will be."""
    path = pathlib.Path(settings.path).expanduser()
    if settings.kind != "tfds":  # Which may be a name.
        path = path.absolute()
    named = dataclasses.replace(settings, path=str(path))
    mark = splits.bucket(repr(named), 16**8)
    return pathlib.Path(data_dir).expanduser() / manifest.NAME / f"{path.name}_{mark:08x}"


def prepared(
    settings: Settings, data_dir: str, workers: int, command: Sequence[str] = worker_pool.COMMAND
) -> pathlib.Path:
    """The folder of the prepared data, made now as far as something is missing.

    Args:
        settings: what to read, and how.
        data_dir: where prepared data sets live.
        workers: processes; their number has no say in what comes out.
        command: starts one of them.

    Raises:
        UserError: as for `source`.
    """
    if workers < 1:
        raise UserError(f"data.preparing={workers}: give 1 process or more")
    folder = folder_of(settings, data_dir)
    if (folder / manifest.SEAL).exists():
        _check_unchanged(folder, settings)
        return folder
    folder.mkdir(parents=True, exist_ok=True)
    with _locked(folder) as lock:
        if not (folder / manifest.SEAL).exists():  # Another process was faster.
            plan = _planned(folder, settings)
            _make(plan, workers, lock, command)
            _seal(plan)
    return folder


def tally(folder: pathlib.Path) -> Tally:
    """What came of all units of prepared data, in their order."""
    return Tally.from_dict(json.loads((folder / manifest.SEAL).read_text("utf-8")))


@contextlib.contextmanager
def _locked(folder: pathlib.Path) -> Iterator[int]:
    """Holds the folder, as do the processes that are started meanwhile."""
    with (folder / _LOCK).open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield lock.fileno()


def _planned(folder: pathlib.Path, settings: Settings) -> Plan:
    """The plan to go on with; what was made by another one is deleted."""
    known = formats.kind(settings)
    if settings.kind == "auto":
        logging.info("source.kind=auto: %s holds data of kind %r.", settings.path, known)
    settings = dataclasses.replace(settings, kind=known)
    units = tuple(formats.reader(known).units(settings))
    plan = Plan(folder, settings, units, _stamp(settings, units))
    before = manifest.load(folder)
    if before == plan:
        return plan
    for path in folder.iterdir():
        if path.name != _LOCK:
            shutil.rmtree(path) if path.is_dir() else path.unlink()
    plan.save()
    return plan


def _make(plan: Plan, workers: int, lock: int, command: Sequence[str]) -> None:
    missing = [number for number in range(len(plan.units)) if plan.done(number) is None]
    count = len(plan.units)
    if len(missing) < count:
        logging.info("%d of %d units are there already.", count - len(missing), count)
    progress = metric_writer.Progress("preparing", count, count - len(missing), unit="unit")
    kept, dropped, told = 0, 0, time.monotonic()
    with worker_pool.Pool(plan, workers, (lock,), command) as making:
        for done, number in enumerate(making.made(missing), count - len(missing) + 1):
            came = Tally.from_dict(plan.done(number)["tally"])
            kept, dropped = kept + came.documents.total(), dropped + came.dropped.total()
            progress.advance(done)
            if time.monotonic() - told > _TELL or done == count:
                told = time.monotonic()
                progress.report(done, f"{kept:,} documents, {dropped:,} dropped")
    progress.close()


def _seal(plan: Plan) -> None:
    """Writes what makes the files a data set of TFDS.

    Raises:
        UserError: nothing is left of the data, or of one split.
    """
    told = [plan.done(number) for number in range(len(plan.units))]
    total = Tally()
    for each in told:
        total.add(Tally.from_dict(each["tally"]))
    empty = [split for split in manifest.SPLITS if not total.documents[split]]
    if empty:
        reasons = ", ".join(f"{count} {reason}" for reason, count in total.dropped.most_common())
        raise UserError(
            f"source.path={plan.settings.path}: {total.documents.total()} documents, and none of "
            f"them in {' and '.join(map(repr, empty))} with source.held_out="
            f"{plan.settings.held_out} (dropped: {reasons or 'none'}). Give more documents, or "
            "another share."
        )
    infos = [
        tfds.core.SplitInfo(
            name=split,
            shard_lengths=[each["tally"]["documents"].get(split, 0) for each in told],
            num_bytes=sum(each["bytes"][split] for each in told),
            filename_template=tfds.core.ShardedFileTemplate(
                data_dir=plan.folder,
                dataset_name=manifest.NAME,
                split=split,
                filetype_suffix="array_record",
                template="{DATASET}-{SPLIT}.{FILEFORMAT}-{SHARD_X_OF_Y}",
            ),
        )
        for split in manifest.SPLITS
    ]
    tfds.folder_dataset.write_metadata(
        data_dir=plan.folder,
        features=records.features(),
        split_infos=infos,
        description=f"Documents of {plan.settings.path}, prepared by oneflow_jax.",
        check_data=False,
    )
    manifest.write(plan.folder / manifest.SEAL, total.to_dict())


def _check_unchanged(folder: pathlib.Path, settings: Settings) -> None:
    """Data that have gone away since are no matter; others than were prepared are."""
    plan = manifest.load(folder)
    if plan is None:
        raise UserError(f"{folder} was prepared by another version: delete it.")
    try:
        now = _stamp(plan.settings, plan.units)
    except OSError:
        return
    if now != plan.stamp:
        raise UserError(
            f"source.path={settings.path} has changed since it was prepared: delete {folder} to "
            "prepare it anew, or give another folder."
        )


def _stamp(settings: Settings, units: Sequence[Unit]) -> str:
    """Of the files that units are read from: names, sizes, times."""
    digest = hashlib.blake2b(digest_size=16)
    root = settings.folder.root
    for name in dict.fromkeys(name for unit in units for name in unit.files):
        state = (root / name).stat()
        digest.update(repr((name, state.st_size, state.st_mtime_ns)).encode())
    return digest.hexdigest()
