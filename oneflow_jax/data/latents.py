"""Documents whose pictures a learned codec has encoded once: written and read in array_record.

    <folder>/latents.json                               what made them, and their mean and deviation
    <folder>/train-00003-of-00010.array_record          documents
    <folder>/train-00003-of-00010.json                  that shard's size, and sums over its latents

A shard's own JSON is written when the shard is whole. What was killed on the way is begun anew, one
shard at a time; a shard that was cut short since is told.
"""

import dataclasses
import io
import json
import math
import zipfile
from collections.abc import Iterable, Sequence

import numpy as np
from array_record.python import array_record_module
from etils import epath
from grain.sources import ArrayRecordDataSource

from oneflow_jax.data.document import Document, EncodedImage, Part, Text
from oneflow_jax.errors import UserError

INDEX_FILE = "latents.json"

SHARD_SIZE = 1_000
"""Documents in a shard: what is lost when a preparation is killed."""


@dataclasses.dataclass(frozen=True)
class LatentIndex:
    """What a folder of latents holds.

    Attributes:
        fingerprint: of the codec that made them.
        documents: in each split.
        mean, deviation: of the first split's latents, by channel.
    """

    fingerprint: str
    documents: dict[str, int]
    mean: tuple[float, ...]
    deviation: tuple[float, ...]

    def to_json(self) -> str:
        """What `read_index` reads."""
        return json.dumps(dataclasses.asdict(self), indent=2) + "\n"


@dataclasses.dataclass(frozen=True)
class Shard:
    """One file of documents, `number` of the split's `count`."""

    folder: epath.Path
    split: str
    number: int
    count: int

    @property
    def path(self) -> epath.Path:
        """The file of documents."""
        return self.folder / f"{self.split}-{self.number:05d}-of-{self.count:05d}.array_record"

    @property
    def told(self) -> epath.Path:
        """The file that says that the shard is whole, and what it holds."""
        return self.path.with_suffix(".json")

    @property
    def whole(self) -> bool:
        """Whether all of it was written, and is still there."""
        if not (self.told.exists() and self.path.exists()):
            return False
        try:
            return json.loads(self.told.read_text())["bytes"] == self.path.stat().length
        except ValueError:  # The machine went down before the disk had all of it.
            return False

    def write(self, documents: Iterable[Document]) -> None:
        """Writes the documents, all of whose pictures are encoded."""
        self.folder.mkdir(parents=True, exist_ok=True)
        self.told.unlink(missing_ok=True)
        draft = self.path.with_suffix(".draft")
        writer = array_record_module.ArrayRecordWriter(str(draft), "group_size:1")
        written, count, total, squares = 0, 0, np.float64(0), np.float64(0)
        for document in documents:
            writer.write(_to_record(document))
            written += 1
            for part in document.parts:
                if isinstance(part, EncodedImage):
                    values = part.latents.reshape(-1, part.latents.shape[-1]).astype(np.float64)
                    count += len(values)
                    total, squares = total + values.sum(0), squares + (values**2).sum(0)
        writer.close()
        draft.replace(self.path)
        told = {
            "documents": written,
            "bytes": self.path.stat().length,
            "latents": count,
            "total": np.atleast_1d(total).tolist(),
            "squares": np.atleast_1d(squares).tolist(),
        }
        draft = self.told.with_suffix(".draft")
        draft.write_text(json.dumps(told) + "\n")
        draft.replace(self.told)


def list_shards(folder: epath.Path, split: str, num_documents: int) -> list[Shard]:
    """The shards of a split of so many documents."""
    count = math.ceil(num_documents / SHARD_SIZE)
    return [Shard(folder, split, number, count) for number in range(count)]


def all_complete(folder: epath.Path, index: LatentIndex) -> bool:
    """Whether all shards of all splits are whole."""
    return all(
        shard.whole
        for split, count in index.documents.items()
        for shard in list_shards(folder, split, count)
    )


def write_index(folder: epath.Path, fingerprint: str, documents: dict[str, int]) -> LatentIndex:
    """Writes and returns the index of finished shards.

    Args:
        folder: of the shards.
        fingerprint: of the codec.
        documents: in each split; the first one's latents are measured.

    Raises:
        UserError: there is no picture in the first split.
    """
    first = next(iter(documents))
    told = [
        json.loads(shard.told.read_text()) for shard in list_shards(folder, first, documents[first])
    ]
    count = sum(each["latents"] for each in told)
    if count == 0:
        raise UserError(f"{folder}: the split {first!r} has no picture to make latents of.")
    mean = np.sum([each["total"] for each in told if each["latents"]], axis=0) / count
    square = np.sum([each["squares"] for each in told if each["latents"]], axis=0) / count
    deviation = np.sqrt(np.maximum(square - mean**2, 1e-12))
    index = LatentIndex(fingerprint, documents, tuple(mean.tolist()), tuple(deviation.tolist()))
    draft = (folder / INDEX_FILE).with_suffix(".draft")
    draft.write_text(index.to_json())
    draft.replace(folder / INDEX_FILE)
    return index


def read_index(path: epath.Path, fingerprint: str) -> LatentIndex:
    """An index, of latents that the codec with this fingerprint made.

    Raises:
        UserError: another codec made them, or the file is not one of ours.
    """
    try:
        values = json.loads(path.read_text())
        index = LatentIndex(
            values["fingerprint"],
            values["documents"],
            tuple(values["mean"]),
            tuple(values["deviation"]),
        )
    except (KeyError, TypeError, ValueError) as error:
        raise UserError(f"{path} is not an index of latents ({error!r}): delete it.") from error
    if index.fingerprint != fingerprint:
        raise UserError(
            f"{path}: its latents were made by the codec {index.fingerprint}, and codec.path holds "
            f"{fingerprint}. Give the codec that made them, or choose a folder of another name in "
            f"place of {path.parent}."
        )
    return index


@dataclasses.dataclass(frozen=True)
class LatentSource:
    """The documents of one split, in random access; picklable.

    Attributes:
        records: of all shards.
        paths: of the shards.
    """

    records: ArrayRecordDataSource
    paths: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.records)

    def __getitem__(self, index: int) -> Document:
        # Python ends a for loop on IndexError.
        if not 0 <= index < len(self):
            raise IndexError(f"{index=} of {len(self)} documents")
        try:
            return _to_document(self.records[index])
        except (RuntimeError, ValueError, KeyError, zipfile.BadZipFile) as error:
            raise _corrupt_error(self.paths[index // SHARD_SIZE], error) from error


def open_split(folder: epath.Path, split: str, num_documents: int) -> LatentSource:
    """The documents of a split.

    Raises:
        UserError: a shard is missing or was cut short; the message names it.
    """
    wanted: Sequence[Shard] = list_shards(folder, split, num_documents)
    for shard in wanted:
        if not shard.whole:
            raise UserError(
                f"{shard.path} is missing or was cut short: --mode=prepare makes it anew."
            )
    paths = tuple(str(shard.path) for shard in wanted)
    return LatentSource(_open_records(paths), paths)


def _open_records(paths: tuple[str, ...]) -> ArrayRecordDataSource:
    try:
        return ArrayRecordDataSource(paths)
    except (RuntimeError, ValueError) as error:
        if len(paths) > 1:  # One by one, to name it.
            for path in paths:
                _open_records((path,))
        raise _corrupt_error(paths[0], error) from error


def _corrupt_error(path: str, error: Exception) -> UserError:
    why = str(error).splitlines()[0][:120]
    return UserError(f"{path} is damaged: delete it, and the same command makes it anew ({why}).")


def _to_record(document: Document) -> bytes:
    """The words as JSON and the latents as they are, in one npz file."""
    parts: list[dict[str, str | int]] = []
    latents: list[np.ndarray] = []
    for part in document.parts:
        match part:
            case Text(text):
                parts.append({"text": text})
            case EncodedImage(values):
                parts.append({"image": len(latents)})
                latents.append(values.astype(np.float32))
            case _:
                raise TypeError(f"documents with latents are whole and encoded; here is {part!r}")
    file = io.BytesIO()
    words = np.frombuffer(json.dumps(parts).encode(), np.uint8)
    np.savez(file, parts=words, **{f"image_{n}": values for n, values in enumerate(latents)})
    return file.getvalue()


def _to_document(record: bytes) -> Document:
    with np.load(io.BytesIO(record), allow_pickle=False) as stored:
        parts: list[Part] = [
            Text(part["text"]) if "text" in part else EncodedImage(stored[f"image_{part['image']}"])
            for part in json.loads(stored["parts"].tobytes())
        ]
    return Document(tuple(parts))
