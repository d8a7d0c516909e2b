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

from oneflow_jax.data.custom.reader import Settings, Unit
from oneflow_jax.data.custom.stats import Tally

SPLITS = ("train", "heldout")
NAME = "own"
PLAN = "plan.json"
SEAL = "prepared.json"
VERSION = 1
"""Raised whenever the same data would be read as other documents."""


@dataclasses.dataclass(frozen=True)
class Plan:
    """What is to be made, and where.

    Attributes:
        folder: of the prepared data.
        settings: with their `kind` told.
        units: all of them, in order.
        stamp: of the files as they were when the plan was made.
    """

    folder: pathlib.Path
    settings: Settings
    units: tuple[Unit, ...]
    stamp: str

    def shard(self, split: str, number: int) -> pathlib.Path:
        """The file of a unit's documents of one split."""
        count = len(self.units)
        return self.folder / f"{NAME}-{split}.array_record-{number:05d}-of-{count:05d}"

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

    def tell(self, number: int, tally: Tally) -> None:
        """Says that a unit is whole."""
        sizes = {split: self.shard(split, number).stat().st_size for split in SPLITS}
        told = {"unit": str(self.units[number]), "bytes": sizes, "tally": tally.to_dict()}
        write(self.told(number), told)

    def save(self) -> None:
        """Writes the plan."""
        values = dataclasses.asdict(self) | {"folder": "", "version": VERSION}
        write(self.folder / PLAN, values)


def load(folder: pathlib.Path) -> Plan | None:
    """The plan in a folder; None if there is none of this version."""
    try:
        values = json.loads((folder / PLAN).read_text("utf-8"))
    except (OSError, ValueError):
        return None
    if values.pop("version", None) != VERSION:
        return None
    settings = values["settings"]
    settings["fields"] = tuple(settings["fields"])
    units = tuple(
        Unit(tuple(unit["files"]), unit["start"], unit["stop"]) for unit in values["units"]
    )
    return Plan(folder, Settings(**settings), units, values["stamp"])


def write(path: pathlib.Path, values: Mapping[str, Any]) -> None:
    """Writes JSON that is never seen half written."""
    draft = path.with_name(path.name + ".draft")
    draft.write_text(json.dumps(values, indent=1) + "\n", "utf-8")
    os.replace(draft, path)
