"""Files of a data preparation. Any process can resume the preparation from these files.

<folder>/plan.json                                   settings, and the list of units
<folder>/own-train.array_record-00003-of-00010       documents of one shard
<folder>/unit-00003.json                             marks the shard as complete; its statistics,
                                                     and the files that it was made from
<folder>/dataset_info.json, features.json            TFDS metadata
<folder>/files.json                                  fingerprint; the source files and their hashes
<folder>/prepared.json                               marks all shards as complete; their statistics

The local engine writes one shard for each unit. Apache Beam divides the documents of all units
among shards by the hashes of their content, which also shuffles them (`data/beam`).
"""

import dataclasses
import json
import os
import pathlib
from collections.abc import Mapping
from typing import Any

from oneflow_jax.data.custom.reader import Settings, WorkUnit
from oneflow_jax.data.custom.sandbox import FileStat
from oneflow_jax.data.custom.stats import DatasetStats

SPLITS = ("train", "heldout")
DATASET_NAME = "own"
MANIFEST_FILE = "plan.json"
FILES_FILE = "files.json"
COMPLETE_FILE = "prepared.json"
VERSION = 6
"""Version of the format. Increase it with every code change that makes the same source give other
documents."""


@dataclasses.dataclass(frozen=True)
class Manifest:
    """Plan of a preparation: its settings, its work units and its shards.

    Attributes:
        folder: folder of the prepared data.
        settings: settings of the source; `format` is the detected format, not "auto".
        units: all units, in order.
        num_hash_shards: number of shards among which documents are divided by their hashes; 0 if
            each unit has a shard of its own.
    """

    folder: pathlib.Path
    settings: Settings
    units: tuple[WorkUnit, ...]
    num_hash_shards: int = 0

    @property
    def num_shards(self) -> int:
        """Number of shards. A shard has one file for each split."""
        return self.num_hash_shards or len(self.units)

    def shard_path(self, split: str, number: int) -> pathlib.Path:
        """Return the path of the file that holds the documents of a shard in one split."""
        count = self.num_shards
        return self.folder / f"{DATASET_NAME}-{split}.array_record-{number:05d}-of-{count:05d}"

    def marker_path(self, number: int) -> pathlib.Path:
        """Return the path of the file that marks a shard as complete."""
        return self.folder / f"unit-{number:05d}.json"

    def load_marker(self, number: int) -> dict[str, Any] | None:
        """Return the marker of a shard, or None if the shard is not complete."""
        try:
            marker = json.loads(self.marker_path(number).read_text("utf-8"))
            sizes = {split: self.shard_path(split, number).stat().st_size for split in SPLITS}
        except (OSError, ValueError):  # A file is missing, or a power failure truncated it.
            return None
        return marker if marker["bytes"] == sizes else None

    def mark_done(
        self, number: int, stats: DatasetStats, reads: Mapping[str, FileStat | None]
    ) -> None:
        """Write the marker of a shard: its statistics, and the files that were read for it."""
        sizes = {split: self.shard_path(split, number).stat().st_size for split in SPLITS}
        marker = {
            "unit": "" if self.num_hash_shards else str(self.units[number]),
            "bytes": sizes,
            "tally": stats.to_dict(),
            "reads": dict(sorted(reads.items())),
        }
        write_json(self.marker_path(number), marker)

    def is_complete(self) -> bool:
        """Return whether all shards are complete."""
        return all(self.load_marker(number) is not None for number in range(self.num_shards))

    def save(self) -> None:
        """Write the plan to its folder."""
        values = dataclasses.asdict(self) | {"folder": "", "version": VERSION}
        write_json(self.folder / MANIFEST_FILE, values)


def load(folder: pathlib.Path) -> Manifest | None:
    """Load the plan from a folder; return None if it is missing or of another version."""
    try:
        values = json.loads((folder / MANIFEST_FILE).read_text("utf-8"))
    except (OSError, ValueError):
        return None
    if values.pop("version", None) != VERSION:
        return None
    settings = values["settings"]
    settings["columns"] = tuple(settings["columns"])
    settings["crop_sizes"] = tuple(map(tuple, settings.get("crop_sizes", ())))
    units = tuple(
        WorkUnit(tuple(unit["files"]), unit["start"], unit["stop"]) for unit in values["units"]
    )
    return Manifest(folder, Settings(**settings), units, values.get("num_hash_shards", 0))


def write_json(path: pathlib.Path, values: Mapping[str, Any]) -> None:
    """Write a JSON file atomically."""
    draft = path.with_name(path.name + ".draft")
    draft.write_text(json.dumps(values, indent=1) + "\n", "utf-8")
    os.replace(draft, path)
