"""One unit of own data, read, put right, and written."""

import hashlib
import itertools
import pathlib
from collections.abc import Callable, Iterator, Mapping

import numpy as np
from array_record.python import array_record_module

from oneflow_jax.data import records, splits
from oneflow_jax.data.custom import formats, image_decode, text_clean
from oneflow_jax.data.custom.errors import DataError
from oneflow_jax.data.custom.manifest import SPLITS, Manifest
from oneflow_jax.data.custom.reader import RawDocument, RawImage, Settings
from oneflow_jax.data.custom.stats import DatasetStats
from oneflow_jax.data.document import Document, Image, Part, Text

ReportProgress = Callable[[str, int], None]
"""Told what is being done ("reading" or "making") to which document of the unit."""

_NUM_BUCKETS = 1_000_000


def write_shard(
    manifest: Manifest,
    number: int,
    skip: Mapping[int, str],
    stop: tuple[int, str],
    report: ReportProgress,
) -> None:
    """Writes the documents of a unit, and then what came of them.

    Args:
        manifest: of which unit `number` is made.
        number: of the unit.
        skip: documents, by their place in the unit, that cost an earlier process its life; and the
            reason to give.
        stop: the same of a document that could not even be read: none after it are; -1 for none.
        report: is told before each document, so that whoever listens knows what this one died of.
    """
    drafts = {split: _temp_path(manifest.shard(split, number)) for split in SPLITS}
    manifest.folder.mkdir(parents=True, exist_ok=True)
    writers = {
        split: array_record_module.ArrayRecordWriter(str(path), "group_size:1")
        for split, path in drafts.items()
    }
    tally = DatasetStats()
    for raw in _read_documents(manifest, number, skip, stop, report):
        tally.seen += 1
        document = clean_document(raw, manifest.settings, tally)
        if document is None:
            continue
        split = assign_split(document, manifest.settings.held_out)
        for piece in _split_document(document, raw.where, tally):
            writers[split].write(records.serialize(piece))
            tally.keep(piece, split)
    for split, writer in writers.items():
        writer.close()
        drafts[split].replace(manifest.shard(split, number))
    manifest.tell(number, tally)


def _read_documents(
    manifest: Manifest,
    number: int,
    skip: Mapping[int, str],
    stop: tuple[int, str],
    report: ReportProgress,
) -> Iterator[RawDocument]:
    """The unit's documents; whatever a reader stumbles over becomes one that cannot be used."""
    unit = manifest.units[number]
    reading = iter(formats.get_reader(manifest.settings.kind).read(manifest.settings, unit))
    for place in itertools.count():
        if place == stop[0]:
            yield RawDocument(
                f"{unit}, document {place} and what follows", fault=DataError(stop[1])
            )
            return
        report("reading", place)
        try:
            raw = next(reading, None)
        except DataError as fault:
            raw, reading = RawDocument(str(unit), fault=fault), iter(())
        except Exception as error:  # A reader's library, on hostile bytes.
            found = DataError("unexpected error", f"{type(error).__name__}: {error}")
            raw, reading = RawDocument(str(unit), fault=found), iter(())
        if raw is None:
            return
        report("making", place)
        yield RawDocument(raw.where, fault=DataError(skip[place])) if place in skip else raw


def clean_document(raw: RawDocument, settings: Settings, stats: DatasetStats) -> Document | None:
    """The document that is stored of what was found; None if nothing is left of it."""
    if raw.fault is not None:
        stats.drop(raw.fault, raw.where)
        return None
    parts: list[Part] = []
    for part in raw.parts:
        try:
            parts.append(_clean_part(part, raw.where, settings, stats))
        except DataError as fault:
            stats.lose(fault, raw.where)
    pictured = any(isinstance(part, RawImage | DataError) for part in raw.parts)
    if pictured and not any(isinstance(part, Image) for part in parts):
        stats.drop(DataError("no picture left"), raw.where)
    elif not parts:
        stats.drop(DataError("empty document"), raw.where)
    else:
        return Document(tuple(parts))
    return None


def _clean_part(
    part: str | bytes | RawImage | DataError, location: str, settings: Settings, stats: DatasetStats
) -> Part:
    if isinstance(part, DataError):
        raise part
    if isinstance(part, RawImage):
        pixels, repairs = image_decode.decode_image(
            part.load(), part.name, settings.pixels, settings.megapixels
        )
        made: Part = Image(pixels)
    else:
        text, repairs = text_clean.clean_text(part)
        made = Text(text)
    for repair in sorted(repairs):
        stats.repair(repair, location)
    return made


def assign_split(document: Document, heldout_fraction: float) -> str:
    """The split of a document: by what is in it alone, so that copies are on one side."""
    digest = hashlib.blake2b(digest_size=16)
    for part in document.parts:
        content = part.text.encode() if isinstance(part, Text) else _content_bytes(part.pixels)
        digest.update(f"{type(part).__name__} {len(content)} ".encode() + content)
    share = splits.hash_bucket(digest.hexdigest(), _NUM_BUCKETS) / _NUM_BUCKETS
    return "heldout" if share < heldout_fraction else "train"


def _content_bytes(pixels: np.ndarray) -> bytes:
    return np.ascontiguousarray(pixels).tobytes()


def _split_document(document: Document, location: str, stats: DatasetStats) -> Iterator[Document]:
    """The document, in pieces if its words are too many for one."""
    held: list[Part] = []
    size = count = 0
    for part in document.parts:
        texts = text_clean.split_long_text(part.text) if isinstance(part, Text) else (None,)
        for text in texts:
            more, longer = (0, 0) if text is None else (len(text.split(" ")), len(text))
            if held and (
                count + more > text_clean.SECTION_WORDS
                or size + longer > text_clean.SECTION_CHARACTERS
            ):
                stats.repair("cut into sections", location)
                yield Document(tuple(held))
                held, size, count = [], 0, 0
            held.append(part if text is None else Text(text))
            size, count = size + longer, count + more
    yield Document(tuple(held))


def _temp_path(path: pathlib.Path) -> pathlib.Path:
    return path.with_name(path.name + ".draft")
