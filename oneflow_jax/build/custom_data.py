"""Access to the prepared custom data of a run, and comparison of a run's data with that of today.

A process keeps the version of custom data that it opened first.
"""

import dataclasses
import json
import logging
import pathlib
from collections.abc import Sequence
from typing import Any

import jax
import ml_collections
from etils import epath

from oneflow_jax.build import image_codec
from oneflow_jax.data import sources, splits
from oneflow_jax.data.beam import engine
from oneflow_jax.data.custom import fingerprint, manifest, prepare, store
from oneflow_jax.data.custom.reader import Settings
from oneflow_jax.data.custom.store import PreparedData
from oneflow_jax.errors import UserError
from oneflow_jax.runtime import distributed, workdir

_OPENED: dict[tuple[Settings, str], PreparedData] = {}
"""Prepared data that this process uses; a key is the settings and `data.dir`.

A process keeps the data that it opened first, so training and evaluation read the same documents
even if the user's files change while the process runs. Only `update` reads the files again.
"""

_LOCKS: list[object] = []
"""Locks on all prepared data that this process has opened; the process never releases them."""


def is_custom(config: ml_collections.ConfigDict) -> bool:
    """Return whether the run uses the user's own data."""
    return config.source.name == manifest.DATASET_NAME


def make_settings(config: ml_collections.ConfigDict) -> Settings:
    """Return the settings for reading the data, with the sizes of images.

    Raises:
        UserError: a setting is unknown or out of range, or the aspect ratios cannot be used.
    """
    settings = prepare.parse_config(config.source)
    return dataclasses.replace(settings, crop_sizes=image_codec.compute_crop_sizes(config))


def open_prepared(config: ml_collections.ConfigDict) -> PreparedData:
    """Return the prepared data of this process; the first call brings the data up to date.

    Raises:
        UserError: the data does not exist or cannot be used, or a split has no documents.
    """
    prepared = open_unchecked(config)
    prepare.check_splits(prepared)
    return prepared


def open_unchecked(config: ml_collections.ConfigDict) -> PreparedData:
    """Return the prepared data in the same way as `open_prepared`; a split may be empty.

    Raises:
        UserError: the data does not exist or cannot be used.
    """
    settings = make_settings(config)
    key = settings, config.data.dir
    if key not in _OPENED:
        folder = prepare.prepare(settings, config.data.dir, config.data.num_prepare_workers)
        _OPENED[key] = store.open_prepared(folder)
        _LOCKS.append(store.lock_in_use(folder))
    return _OPENED[key]


def prepare_on_runner(
    config: ml_collections.ConfigDict, runner: str, options: Sequence[str]
) -> engine.BeamEngine:
    """Bring prepared data up to date with its source, by a runner of Apache Beam.

    Args:
        config: the run's configuration.
        runner: name of the runner, one of `runners.NAMES`.
        options: options of the runner, each as NAME=VALUE.

    Returns:
        The engine, which can also count chunks.

    Raises:
        UserError: the run has no own data, the data cannot be used, or the runner is not installed.
    """
    if not is_custom(config):
        raise UserError(
            f"--runner={runner}: only own data can be prepared on a runner, and this configuration "
            f"has source.name={config.source.name}. Leave out --runner, or give --config=own."
        )
    with distributed.primary_first():
        beam_engine = engine.BeamEngine(
            runner,
            tuple(options),
            config.data.num_prepare_workers,
            config.data.shard_megabytes * 10**6,
        )
        prepare.prepare(
            make_settings(config),
            config.data.dir,
            config.data.num_prepare_workers,
            engine=beam_engine,
        )
    return beam_engine


def source_id(config: ml_collections.ConfigDict) -> str:
    """Return a name for files that are derived from the source; a changed source has another name.

    For custom data the name contains the fingerprint of all files. For any other data set the name
    contains a hash of the settings and packages that determine the documents.
    """
    if is_custom(config):
        return f"{config.source.name}_{open_prepared(config).fingerprint[:16]}"
    values = config.source.to_dict()
    name = values.pop("name")
    key = sorted(values.items()), _describe_packages(config)
    return f"{name}_{splits.hash_bucket(repr(key), 16**8):08x}"


def _describe_packages(config: ml_collections.ConfigDict) -> str:
    values = config.source.to_dict()
    return sources.describe_packages(values.pop("name"), values)


def update(
    config: ml_collections.ConfigDict,
    folder: epath.Path,
    mode: str,
    *,
    accept_changes: bool = False,
) -> None:
    """Bring prepared data up to date with its source, and compare its fingerprint with the run's.

    For data that is not custom, the function compares the versions of the packages that the data is
    made from. Before the run's first checkpoint, the function deletes a tokenizer and statistics of
    latents that were made from other data. After the first checkpoint, changed data is an error in
    the modes "evaluate" and "train" unless `accept_changes` is True. In the mode "prepare" the
    function only logs a warning.

    Raises:
        UserError: the data cannot be used, differs from the data that the run was trained on, or
            differs between hosts.
    """
    accepted = accept_changes or mode == "prepare"
    if not is_custom(config):
        with distributed.primary_first():
            packages = _describe_packages(config)
            _check_packages(folder, packages, accepted)
            if packages and (mode == "train" or not workdir.has_checkpoints(folder)):
                _record(folder, {"packages": packages})
        return
    source = pathlib.Path(config.source.path).expanduser().resolve()
    if config.source.get("format") != "tfds" and pathlib.Path(folder).resolve() == source:
        raise UserError(
            f"--workdir={folder}: this is also source.path, so the files of the run would be read "
            "as documents. Give another folder, such as --workdir=runs/own."
        )
    with distributed.primary_first():
        _OPENED.pop((make_settings(config), config.data.dir), None)
        prepared = open_prepared(config)
    by_process = distributed.all_gather_json({str(jax.process_index()): prepared.fingerprint})
    if len(set(by_process.values())) > 1:
        raise UserError(
            f"source.path={config.source.path}: the files differ between the hosts of the run "
            f"(fingerprints {', '.join(sorted(set(by_process.values())))}). Give all hosts the "
            "same files.",
            in_all_processes=True,
        )
    with distributed.primary_first():
        _check_run(config, folder, prepared, accepted)
        if mode == "train" or not workdir.has_checkpoints(folder):
            values = {
                "fingerprint": prepared.fingerprint,
                "path": prepared.plan.settings.path,
                "files": len(prepared.records),
            }
            _record(folder, values)


def _check_packages(folder: epath.Path, packages: str, accepted: bool) -> None:
    """Compare the packages of the data with the record in the run's folder, if it has one."""
    before = _read_record(folder).get("packages", packages)
    if before == packages:
        return
    if not workdir.has_checkpoints(folder):
        _delete_derived(folder)
        return
    message = (
        f"--workdir={folder}: the run was trained on data of {before}, but the data is now made "
        f"from {packages}."
    )
    if not accepted:
        raise UserError(
            f"{message} Install the earlier versions, give --accept_changed_data to continue with "
            "the present data, or choose another --workdir."
        )
    logging.warning("%s", message)


def _delete_derived(folder: epath.Path) -> None:
    """Delete the files of a run without checkpoints that were made from other documents."""
    if distributed.is_primary():
        workdir.delete_derived(folder)


def _check_run(
    config: ml_collections.ConfigDict, folder: epath.Path, prepared: PreparedData, accepted: bool
) -> None:
    """Compare the prepared data with the record in the run's folder, if the folder has one."""
    before = _read_record(folder)
    if before.get("fingerprint") == prepared.fingerprint:
        return
    if not workdir.has_checkpoints(folder):
        _delete_derived(folder)
        return
    if not before and _same_path(config, folder):
        logging.warning(
            "--workdir=%s: the folder does not record which data the run was trained on. If the "
            "files in source.path=%s have changed since that training, the run continues with the "
            "changed data.",
            folder,
            config.source.path,
        )
        return
    message = (
        f"--workdir={folder}: the run was trained on other data than source.path="
        f"{config.source.path} now has ({_describe_changes(config, before, prepared)})."
    )
    if not accepted:
        raise UserError(
            f"{message} The prepared data is up to date. Give --accept_changed_data to continue "
            "with this data, or choose another --workdir."
        )
    logging.warning("%s", message)


def _describe_changes(
    config: ml_collections.ConfigDict, before: dict[str, Any], prepared: PreparedData
) -> str:
    if not before:
        return "the run did not record its data, and its source.path was another one"
    for folder in store.store_root(config.data.dir).glob(f"*_{before['fingerprint'][:16]}"):
        old = fingerprint.load(folder)
        if old is not None:
            difference = fingerprint.compare(old[1], prepared.records)
            if difference == fingerprint.Difference(0, 0, 0):
                return (
                    "the same files, but read by another version of the program, or divided among "
                    "its worker processes in another way"
                )
            return f"files: {difference}"
    return f"{before['files']:,} files at that time, {len(prepared.records):,} now"


def _same_path(config: ml_collections.ConfigDict, folder: epath.Path) -> bool:
    if not (folder / workdir.CONFIG).exists():
        return True
    paths = [workdir.load_config(folder).source.get("path", ""), config.source.path]
    was, now = (pathlib.Path(path).expanduser().resolve() for path in paths)
    return was == now


def _read_record(folder: epath.Path) -> dict[str, Any]:
    path = folder / workdir.SOURCE
    try:
        return json.loads(path.read_text()) if path.exists() else {}
    except ValueError:
        return {}


def _record(folder: epath.Path, values: dict[str, Any]) -> None:
    """Write the fingerprint, the path and the number of files of the data, or its packages.

    If they have changed, the layouts of the documents are deleted, and counted again.
    """
    if _read_record(folder) != values:
        if distributed.is_primary():
            (folder / workdir.LAYOUTS).unlink(missing_ok=True)
        workdir.write_atomically(folder / workdir.SOURCE, json.dumps(values, indent=2) + "\n")
