"""A preparation as files, that any process can go on with.

<folder>/plan.json                                   settings, and the units there are
<folder>/own-train.array_record-00003-of-00010       documents of one unit
<folder>/unit-00003.json                             that unit is whole, and what came of it
<folder>/dataset_info.json, features.json            what makes them a data set of TFDS
<folder>/prepared.json                               all units are whole, and what came of them
"""

import dataclasses
import json
import os
import pathlib
from collections.abc import Mapping
from typing import Any

from oneflow_jax.data.custom.reader import Settings, WorkUnit
from oneflow_jax.data.custom.stats import DatasetStats

SPLITS = ("train", "heldout")
DATASET_NAME = "own"
MANIFEST_FILE = "plan.json"
COMPLETE_FILE = "prepared.json"
VERSION = 1
"""Raised whenever the same data would be read as other documents."""


@dataclasses.dataclass(frozen=True)
class Manifest:
    """What is to be made, and where.

    Attributes:
        folder: of the prepared data.
        settings: with their `kind` told.
        units: all of them, in order.
        stamp: of the files as they were when the plan was made.
    """

    folder: pathlib.Path
    settings: Settings
    units: tuple[WorkUnit, ...]
    stamp: str

    def shard(self, split: str, number: int) -> pathlib.Path:
        """The file of a unit's documents of one split."""
        count = len(self.units)
        return self.folder / f"{DATASET_NAME}-{split}.array_record-{number:05d}-of-{count:05d}"

    def told(self, number: int) -> pathlib.Path:
        """The file that says that a unit is whole."""
        return self.folder / f"unit-{number:05d}.json"

    def done(self, number: int) -> dict[str, Any] | None:
        """What is told of a unit, if all of it was written and is still there."""
        try:
            told = json.loads(self.told(number).read_text("utf-8"))
            sizes = {split: self.shard(split, number).stat().st_size for split in SPLITS}
        except (OSError, ValueError):  # The machine went down before the disk had all of it.
            return None
        return told if told["bytes"] == sizes else None

    def tell(self, number: int, tally: DatasetStats) -> None:
        """Says that a unit is whole."""
        sizes = {split: self.shard(split, number).stat().st_size for split in SPLITS}
        told = {"unit": str(self.units[number]), "bytes": sizes, "tally": tally.to_dict()}
        write_json(self.told(number), told)

    def save(self) -> None:
        """Writes the plan."""
        values = dataclasses.asdict(self) | {"folder": "", "version": VERSION}
        write_json(self.folder / MANIFEST_FILE, values)


def load(folder: pathlib.Path) -> Manifest | None:
    """The plan in a folder; None if there is none of this version."""
    try:
        values = json.loads((folder / MANIFEST_FILE).read_text("utf-8"))
    except (OSError, ValueError):
        return None
    if values.pop("version", None) != VERSION:
        return None
    settings = values["settings"]
    settings["fields"] = tuple(settings["fields"])
    units = tuple(
        WorkUnit(tuple(unit["files"]), unit["start"], unit["stop"]) for unit in values["units"]
    )
    return Manifest(folder, Settings(**settings), units, values["stamp"])


def write_json(path: pathlib.Path, values: Mapping[str, Any]) -> None:
    """Writes JSON that is never seen half written."""
    draft = path.with_name(path.name + ".draft")
    draft.write_text(json.dumps(values, indent=1) + "\n", "utf-8")
    os.replace(draft, path)
