"""Preparation of one work unit of custom data: read, clean and write its documents."""

import hashlib
import itertools
from collections.abc import Callable, Iterator, Mapping

import numpy as np

from oneflow_jax.data import records, splits
from oneflow_jax.data.custom import formats, image_decode, sandbox, shard_writer, text_clean
from oneflow_jax.data.custom.errors import DataError
from oneflow_jax.data.custom.manifest import Manifest
from oneflow_jax.data.custom.reader import RawDocument, RawImage, Settings
from oneflow_jax.data.custom.stats import DatasetStats
from oneflow_jax.data.document import Document, Image, Part, Text

ReportProgress = Callable[[str, int], None]
"""Callback that gets the stage ("reading" or "making") and a document's index in the unit."""

_NUM_BUCKETS = 1_000_000


def write_shard(
    manifest: Manifest,
    number: int,
    skip: Mapping[int, str],
    stop: tuple[int, str],
    report: ReportProgress,
) -> None:
    """Write the documents of a unit, and then the file that marks the unit as complete.

    Args:
        manifest: manifest of the data.
        number: number of the unit.
        skip: documents to drop, because they crashed an earlier process. The keys are indices in
            the unit, and the values are reasons.
        stop: index of the document that crashed an earlier process during reading, and the reason.
            The unit ends before this document. The index is -1 if there was no such crash.
        report: callback that is called before each stage of each document. From these calls, the
            parent process knows which document caused a crash.
    """
    writer = shard_writer.ShardWriter(manifest, number)
    tally = DatasetStats()
    with sandbox.record_reads() as reads:
        for name in manifest.units[number].files:
            formats.open_root(manifest.settings).stat(name)
        for raw in _read_documents(manifest, number, skip, stop, report):
            tally.add_read(raw)
            document = clean_document(raw, manifest.settings, tally)
            if document is None:
                continue
            split = assign_split(document, manifest.settings.heldout_fraction)
            for piece in _split_document(document, raw.location, tally):
                writer.write(split, records.serialize(piece))
                tally.add_kept(piece, split, raw.location)
    writer.finish(tally, reads)


def _read_documents(
    manifest: Manifest,
    number: int,
    skip: Mapping[int, str],
    stop: tuple[int, str],
    report: ReportProgress,
) -> Iterator[RawDocument]:
    """Yield the documents of a unit. If the reader raises an exception, the last has an error."""
    unit = manifest.units[number]
    reading = iter(formats.get_reader(manifest.settings.format).read(manifest.settings, unit))
    for place in itertools.count():
        if place == stop[0]:
            yield RawDocument(
                f"{unit}, document {place} and all after it", error=DataError(stop[1])
            )
            return
        report("reading", place)
        try:
            raw = next(reading, None)
        except DataError as fault:
            raw, reading = RawDocument(str(unit), error=fault), iter(())
        except Exception as error:  # Libraries raise any type of exception on malicious bytes.
            unexpected = DataError("unexpected error", f"{type(error).__name__}: {error}")
            raw, reading = RawDocument(str(unit), error=unexpected), iter(())
        if raw is None:
            return
        report("making", place)
        yield RawDocument(raw.location, error=DataError(skip[place])) if place in skip else raw


def clean_document(raw: RawDocument, settings: Settings, stats: DatasetStats) -> Document | None:
    """Clean the parts of a document, and count dropped and repaired parts in `stats`.

    Return None if the document has an error, has lost all its images, or has no parts left.
    """
    if raw.error is not None:
        stats.add_dropped(raw.error, raw.location)
        return None
    parts: list[Part] = []
    for part in raw.parts:
        try:
            parts.append(_clean_part(part, raw.location, settings, stats))
        except DataError as fault:
            stats.add_dropped_part(fault, raw.location)
    pictured = any(isinstance(part, RawImage | DataError) for part in raw.parts)
    if pictured and not any(isinstance(part, Image) for part in parts):
        stats.add_dropped(DataError("no picture left"), raw.location)
    elif not parts:
        stats.add_dropped(DataError("empty document"), raw.location)
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
            part.load(),
            part.name,
            settings.pixels,
            settings.max_megapixels,
            settings.crop_sizes,
        )
        cleaned: Part = Image(pixels)
    else:
        text, repairs = text_clean.clean_text(part)
        cleaned = Text(text)
    for repair in sorted(repairs):
        stats.add_repair(repair, location)
    return cleaned


def assign_split(document: Document, heldout_fraction: float) -> str:
    """Return the split of a document, which depends only on its content."""
    return "heldout" if hash_position(document) < heldout_fraction else "train"


def hash_position(document: Document) -> float:
    """Return the hash of a document as a number from 0 to 1; smaller numbers are held out first.

    Documents with the same images have the same hash, even if their texts differ: an image with
    several captions in the data would otherwise be in both splits. Images of one color are ignored,
    since unrelated documents may have them. The hash of a document without other images is that of
    all its parts.
    """
    images = [
        part
        for part in document.parts
        if isinstance(part, Image) and np.ptp(part.pixels, axis=(0, 1)).any()
    ]
    digest = hashlib.blake2b(digest_size=16)
    for part in images or document.parts:
        content = part.text.encode() if isinstance(part, Text) else _content_bytes(part.pixels)
        digest.update(f"{type(part).__name__} {len(content)} ".encode() + content)
    return splits.hash_bucket(digest.hexdigest(), _NUM_BUCKETS) / _NUM_BUCKETS


def _content_bytes(pixels: np.ndarray) -> bytes:
    return np.ascontiguousarray(pixels).tobytes()


def _split_document(document: Document, location: str, stats: DatasetStats) -> Iterator[Document]:
    """Yield the document, divided into several sections if its text is too long."""
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
                stats.add_repair("cut into sections", location)
                yield Document(tuple(held))
                held, size, count = [], 0, 0
            held.append(part if text is None else Text(text))
            size, count = size + longer, count + more
    yield Document(tuple(held))
