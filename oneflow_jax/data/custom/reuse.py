"""Reuse of units that an earlier preparation completed and whose source files have not changed."""

import contextlib
import os
import pathlib
import shutil
from collections.abc import Mapping, Sequence

from oneflow_jax.data.custom import deduplicate, fingerprint, manifest
from oneflow_jax.data.custom.fingerprint import FileRecord, SourceFiles
from oneflow_jax.data.custom.manifest import Manifest
from oneflow_jax.data.custom.reader import WorkUnit
from oneflow_jax.data.custom.store import PreparedData, SourceEntry

_Donor = tuple[Manifest, int, Mapping[str, FileRecord]]


def is_current(prepared: PreparedData, units: Sequence[WorkUnit], files: SourceFiles) -> bool:
    """Return whether prepared data is complete, has these units, and its source is unchanged."""
    return (
        tuple(units) == prepared.plan.units
        and all(
            files.is_unchanged(name, record.stat, record.digest)
            for name, record in prepared.records.items()
        )
        and prepared.plan.is_complete()
    )


def refresh_records(prepared: PreparedData, files: SourceFiles) -> None:
    """Store the new times of files with the same content, so that later runs need not hash them."""
    if any(files.stat(name) != record.stat for name, record in prepared.records.items()):
        with contextlib.suppress(OSError):  # Data that another user prepared may be read-only.
            fingerprint.save(prepared.folder, prepared.fingerprint, files.record(prepared.records))


def stage(
    entry: SourceEntry, plan: Manifest, donors: Sequence[PreparedData], files: SourceFiles
) -> None:
    """Create the folder of a new preparation, and fill it with reusable units of earlier ones."""
    available = _list_units(entry, plan, donors)
    new = entry.staging.with_suffix(".new")
    shutil.rmtree(new, ignore_errors=True)
    new.mkdir(parents=True)
    draft = Manifest(new, plan.settings, plan.units)
    draft.save()
    for number, unit in enumerate(plan.units):
        for donor in available.get(unit, ()):
            if _take_over(donor, draft, number, files):
                break
    shutil.rmtree(entry.staging, ignore_errors=True)
    new.rename(entry.staging)


def _list_units(
    entry: SourceEntry, plan: Manifest, donors: Sequence[PreparedData]
) -> dict[WorkUnit, list[_Donor]]:
    donors_by_unit: dict[WorkUnit, list[_Donor]] = {}
    sources = [(donor.plan, donor.records) for donor in donors]
    before = manifest.load(entry.staging)
    if before is not None and before.settings == plan.settings:
        sources.insert(0, (before, {}))
    for donor, records in sources:
        if donor.num_hash_shards:  # Its shards hold documents of all units.
            continue
        for number, unit in enumerate(donor.units):
            donors_by_unit.setdefault(unit, []).append((donor, number, records))
    return donors_by_unit


def _take_over(donor: _Donor, draft: Manifest, number: int, files: SourceFiles) -> bool:
    """Link the files of a unit if it is complete and its source files have not changed.

    Returns:
        Whether the files were linked.
    """
    before, old_number, records = donor
    marker = before.load_marker(old_number)
    if marker is None or deduplicate.REASON in marker["tally"]["dropped"]:
        return False  # A unit without its duplicates depends on the units before it.
    for name, stat in marker["reads"].items():
        digest = records[name].digest if name in records else None
        if not files.is_unchanged(name, fingerprint.as_stat(stat), digest):
            return False
    for split in manifest.SPLITS:
        _link(before.shard_path(split, old_number), draft.shard_path(split, number))
    marker["reads"] = {name: files.stat(name) for name in marker["reads"]}
    manifest.write_json(draft.marker_path(number), marker)
    return True


def _link(old: pathlib.Path, new: pathlib.Path) -> None:
    try:
        os.link(old, new)
    except OSError:  # Not all file systems have hard links.
        shutil.copyfile(old, new)
