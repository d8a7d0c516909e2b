"""Storage of documents in array_record files, with the latents of an autoencoder for each image.

    <folder>/latents.json                       codec fingerprint; mean and std of the latents
    <folder>/train-00003-of-00010.array_record  documents of a shard
    <folder>/train-00003-of-00010.json          size of the shard, sums over its latents, and
                                                hashes of the images of each document

The JSON file of a shard is written when the shard is complete. If the program is interrupted while
it writes a shard, only this shard is written again. If a shard was truncated after its completion,
`open_split` raises an error.
"""

import dataclasses
import io
import json
import math
import threading
import zipfile
from collections.abc import Iterable, Iterator, Sequence

import numpy as np
from array_record.python import array_record_module
from etils import epath

from oneflow_jax.data import record_files
from oneflow_jax.data.document import Document, EncodedImage, Part, Text
from oneflow_jax.errors import UserError

INDEX_FILE = "latents.json"

SHARD_SIZE = 1_000
"""Number of documents in a shard. A process that is killed loses at most one shard of work."""

_PARSER_LOCK = threading.Lock()
"""Held while NumPy parses headers of arrays by `ast.literal_eval`.

Threads of CPython 3.11 that parse at the same time now and then raise SystemError, "AST
constructor recursion depth mismatch" (https://github.com/python/cpython/issues/106905).
"""


@dataclasses.dataclass(frozen=True)
class LatentIndex:
    """Index of a folder of latents.

    Attributes:
        fingerprint: hash of the codec that encoded the latents.
        documents: number of documents in each split.
        mean, deviation: mean and standard deviation of the latents of the first split, per channel;
            () if this split has no images.
    """

    fingerprint: str
    documents: dict[str, int]
    mean: tuple[float, ...]
    deviation: tuple[float, ...]

    def to_json(self) -> str:
        """Return the index as JSON for `read_index`."""
        return json.dumps(dataclasses.asdict(self), indent=2) + "\n"


@dataclasses.dataclass(frozen=True)
class Shard:
    """One file of documents: shard `number` of a split that has `count` shards."""

    folder: epath.Path
    split: str
    number: int
    count: int

    @property
    def path(self) -> epath.Path:
        """Path of the file of documents."""
        return self.folder / f"{self.split}-{self.number:05d}-of-{self.count:05d}.array_record"

    @property
    def manifest(self) -> epath.Path:
        """Path of the JSON file that marks the shard as complete and holds its statistics."""
        return self.path.with_suffix(".json")

    @property
    def is_complete(self) -> bool:
        """Whether the shard was fully written and still has its full size."""
        if not (self.manifest.exists() and self.path.exists()):
            return False
        try:
            return json.loads(self.manifest.read_text())["bytes"] == self.path.stat().length
        except ValueError:  # The file is truncated, for example after a power failure.
            return False

    def write(self, documents: Iterable[Document]) -> None:
        """Write the documents of the shard. All their images must be encoded."""
        self.folder.mkdir(parents=True, exist_ok=True)
        self.manifest.unlink(missing_ok=True)
        draft = self.path.with_suffix(".draft")
        writer = array_record_module.ArrayRecordWriter(str(draft), "group_size:1")
        hashes: list[list[str]] = []
        count, total, squares = 0, np.float64(0), np.float64(0)
        for document in documents:
            writer.write(_to_record(document))
            hashes.append([x.image_hash for x in document.parts if isinstance(x, EncodedImage)])
            for part in document.parts:
                if isinstance(part, EncodedImage):
                    values = part.latents.reshape(-1, part.latents.shape[-1]).astype(np.float64)
                    count += len(values)
                    total, squares = total + values.sum(0), squares + (values**2).sum(0)
        writer.close()
        draft.replace(self.path)
        statistics = {
            "documents": len(hashes),
            "bytes": self.path.stat().length,
            "latents": count,
            "total": np.atleast_1d(total).tolist(),
            "squares": np.atleast_1d(squares).tolist(),
            "images": hashes,
        }
        draft = self.manifest.with_suffix(".draft")
        draft.write_text(json.dumps(statistics) + "\n")
        draft.replace(self.manifest)


def list_shards(folder: epath.Path, split: str, num_documents: int) -> list[Shard]:
    """Return the shards of a split of `num_documents` documents."""
    count = math.ceil(num_documents / SHARD_SIZE)
    return [Shard(folder, split, number, count) for number in range(count)]


def all_complete(folder: epath.Path, index: LatentIndex) -> bool:
    """Return whether all shards of all splits are complete."""
    return all(
        shard.is_complete
        for split, count in index.documents.items()
        for shard in list_shards(folder, split, count)
    )


def write_index(folder: epath.Path, fingerprint: str, documents: dict[str, int]) -> LatentIndex:
    """Write the index of a folder of complete shards, and return the index.

    Args:
        folder: folder of the shards.
        fingerprint: fingerprint of the codec.
        documents: number of documents in each split. The mean and std are computed on the first
            split.
    """
    first = next(iter(documents))
    shard_stats = [
        json.loads(shard.manifest.read_text())
        for shard in list_shards(folder, first, documents[first])
    ]
    count = sum(each["latents"] for each in shard_stats)
    mean = deviation = np.zeros(0)
    if count:
        sums = [each["total"] for each in shard_stats if each["latents"]]
        squares = [each["squares"] for each in shard_stats if each["latents"]]
        mean = np.sum(sums, axis=0) / count
        deviation = np.sqrt(np.maximum(np.sum(squares, axis=0) / count - mean**2, 1e-12))
    index = LatentIndex(fingerprint, documents, tuple(mean.tolist()), tuple(deviation.tolist()))
    draft = (folder / INDEX_FILE).with_suffix(".draft")
    draft.write_text(index.to_json())
    draft.replace(folder / INDEX_FILE)
    return index


def read_index(path: epath.Path, fingerprint: str) -> LatentIndex:
    """Read an index and check that its latents belong to the codec with this fingerprint.

    Raises:
        UserError: the latents belong to another codec, or the file is not an index of latents.
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
        raise UserError(
            f"{path} is not an index of latents ({error!r}). Delete the file."
        ) from error
    if index.fingerprint != fingerprint:
        raise UserError(
            f"{path}: the latents were encoded by codec {index.fingerprint}, but codec.path holds "
            f"codec {fingerprint}. Use the codec that encoded the latents, or a folder other than "
            f"{path.parent}."
        )
    return index


@dataclasses.dataclass(frozen=True)
class LatentSource:
    """Random access to the documents of one split; picklable.

    Attributes:
        records: records of all shards.
        paths: paths of the shards.
    """

    records: record_files.RecordFiles
    paths: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.records)

    def __getitem__(self, index: int) -> Document:
        try:
            return _to_document(self.records[index])
        except (RuntimeError, ValueError, KeyError, zipfile.BadZipFile) as error:
            raise _corrupt_error(self.paths[index // SHARD_SIZE], error) from error


def open_split(folder: epath.Path, split: str, num_documents: int) -> LatentSource:
    """Open the documents of a split.

    Raises:
        UserError: a shard is missing or truncated. The message names its path.
    """
    wanted: Sequence[Shard] = list_shards(folder, split, num_documents)
    for shard in wanted:
        if not shard.is_complete:
            raise UserError(
                f"{shard.path} is missing or truncated. Write it again with --mode=prepare."
            )
    paths = tuple(str(shard.path) for shard in wanted)
    return LatentSource(_open_records(paths), paths)


def list_hashes(folder: epath.Path) -> Iterator[tuple[str, list[list[str]]]]:
    """Yield the path of each complete shard in a folder, with the image hashes of its documents.

    Shards that earlier versions of this program wrote have no hashes, and are left out.
    """
    for path in sorted(folder.iterdir()):
        file = path.with_suffix(".array_record")
        if path.suffix == ".json" and file.exists():
            try:
                values = json.loads(path.read_text())
                complete = values["bytes"] == file.stat().length
            except (KeyError, TypeError, ValueError):  # The file is truncated or of another kind.
                continue
            if complete and "images" in values:
                yield str(file), values["images"]


def read_latents(path: str, document: int) -> list[np.ndarray]:
    """Return the latents of one document of a shard.

    Raises:
        UserError: the shard is damaged.
    """
    try:
        decoded = _to_document(_open_records((path,))[document])
    except (RuntimeError, ValueError, KeyError, zipfile.BadZipFile) as error:
        raise _corrupt_error(path, error) from error
    return [part.latents for part in decoded.parts if isinstance(part, EncodedImage)]


def _open_records(paths: tuple[str, ...]) -> record_files.RecordFiles:
    try:
        return record_files.RecordFiles(paths)
    except (RuntimeError, ValueError) as error:
        if len(paths) > 1:  # Open the files one by one to find the damaged file.
            for path in paths:
                _open_records((path,))
        raise _corrupt_error(paths[0], error) from error


def _corrupt_error(path: str, error: Exception) -> UserError:
    why = str(error).splitlines()[0][:120]
    return UserError(f"{path} is damaged. Delete the file and run the same command again ({why}).")


def _to_record(document: Document) -> bytes:
    """Encode a document as an npz file, with its parts as JSON and its latents as arrays."""
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
                raise TypeError(f"only text and encoded images can be stored, not {part!r}")
    file = io.BytesIO()
    words = np.frombuffer(json.dumps(parts).encode(), np.uint8)
    np.savez(file, parts=words, **{f"image_{n}": values for n, values in enumerate(latents)})
    return file.getvalue()


def _to_document(record: bytes) -> Document:
    with _PARSER_LOCK, np.load(io.BytesIO(record), allow_pickle=False) as stored:
        parts: list[Part] = [
            Text(part["text"]) if "text" in part else EncodedImage(stored[f"image_{part['image']}"])
            for part in json.loads(stored["parts"].tobytes())
        ]
    return Document(tuple(parts))
