"""One unit of own data, read, put right, and written."""

import hashlib
import itertools
import pathlib
from collections.abc import Callable, Iterator, Mapping

import numpy as np
from array_record.python import array_record_module

from oneflow_jax.data import records, splits
from oneflow_jax.data.custom import formats, image_decode, text_clean
from oneflow_jax.data.custom.errors import Fault
from oneflow_jax.data.custom.manifest import SPLITS, Plan
from oneflow_jax.data.custom.reader import Picture, Raw, Settings
from oneflow_jax.data.custom.stats import Tally
from oneflow_jax.data.document import Document, Image, Part, Text

Say = Callable[[str, int], None]
"""Told what is being done ("reading" or "making") to which document of the unit."""

_SHARES = 1_000_000


def make(plan: Plan, number: int, skip: Mapping[int, str], stop: tuple[int, str], say: Say) -> None:
    """Writes the documents of a unit, and then what came of them.

    Args:
        plan: of which unit `number` is made.
        number: of the unit.
        skip: documents, by their place in the unit, that cost an earlier process its life; and the
            reason to give.
        stop: the same of a document that could not even be read: none after it are; -1 for none.
        say: is told before each document, so that whoever listens knows what this one died of.
    """
    drafts = {split: _draft(plan.shard(split, number)) for split in SPLITS}
    plan.folder.mkdir(parents=True, exist_ok=True)
    writers = {
        split: array_record_module.ArrayRecordWriter(str(path), "group_size:1")
        for split, path in drafts.items()
    }
    tally = Tally()
    for raw in _found(plan, number, skip, stop, say):
        tally.seen += 1
        document = built(raw, plan.settings, tally)
        if document is None:
            continue
        split = side(document, plan.settings.held_out)
        for piece in _sections(document, raw.where, tally):
            writers[split].write(records.serialize(piece))
            tally.keep(piece, split)
    for split, writer in writers.items():
        writer.close()
        drafts[split].replace(plan.shard(split, number))
    plan.tell(number, tally)


def _found(
    plan: Plan, number: int, skip: Mapping[int, str], stop: tuple[int, str], say: Say
) -> Iterator[Raw]:
    """The unit's documents; whatever a reader stumbles over becomes one that cannot be used."""
    unit = plan.units[number]
    reading = iter(formats.reader(plan.settings.kind).read(plan.settings, unit))
    for place in itertools.count():
        if place == stop[0]:
            yield Raw(f"{unit}, document {place} and what follows", fault=Fault(stop[1]))
            return
        say("reading", place)
        try:
            raw = next(reading, None)
        except Fault as fault:
            raw, reading = Raw(str(unit), fault=fault), iter(())
        except Exception as error:  # A reader's library, on hostile bytes.
            found = Fault("unexpected error", f"{type(error).__name__}: {error}")
            raw, reading = Raw(str(unit), fault=found), iter(())
        if raw is None:
            return
        say("making", place)
        yield Raw(raw.where, fault=Fault(skip[place])) if place in skip else raw


def built(raw: Raw, settings: Settings, tally: Tally) -> Document | None:
    """The document that is stored of what was found; None if nothing is left of it."""
    if raw.fault is not None:
        tally.drop(raw.fault, raw.where)
        return None
    parts: list[Part] = []
    for part in raw.parts:
        try:
            parts.append(_part(part, raw.where, settings, tally))
        except Fault as fault:
            tally.lose(fault, raw.where)
    pictured = any(isinstance(part, Picture | Fault) for part in raw.parts)
    if pictured and not any(isinstance(part, Image) for part in parts):
        tally.drop(Fault("no picture left"), raw.where)
    elif not parts:
        tally.drop(Fault("empty document"), raw.where)
    else:
        return Document(tuple(parts))
    return None


def _part(
    part: str | bytes | Picture | Fault, where: str, settings: Settings, tally: Tally
) -> Part:
    if isinstance(part, Fault):
        raise part
    if isinstance(part, Picture):
        pixels, repairs = image_decode.read(
            part.load(), part.name, settings.pixels, settings.megapixels
        )
        made: Part = Image(pixels)
    else:
        text, repairs = text_clean.cleaned(part)
        made = Text(text)
    for repair in sorted(repairs):
        tally.repair(repair, where)
    return made


def side(document: Document, held_out: float) -> str:
    """The split of a document: by what is in it alone, so that copies are on one side."""
    digest = hashlib.blake2b(digest_size=16)
    for part in document.parts:
        content = part.text.encode() if isinstance(part, Text) else _content(part.pixels)
        digest.update(f"{type(part).__name__} {len(content)} ".encode() + content)
    share = splits.bucket(digest.hexdigest(), _SHARES) / _SHARES
    return "heldout" if share < held_out else "train"


def _content(pixels: np.ndarray) -> bytes:
    return np.ascontiguousarray(pixels).tobytes()


def _sections(document: Document, where: str, tally: Tally) -> Iterator[Document]:
    """The document, in pieces if its words are too many for one."""
    held: list[Part] = []
    size = count = 0
    for part in document.parts:
        texts = text_clean.sections(part.text) if isinstance(part, Text) else (None,)
        for text in texts:
            more, longer = (0, 0) if text is None else (len(text.split(" ")), len(text))
            if held and (
                count + more > text_clean.SECTION_WORDS
                or size + longer > text_clean.SECTION_CHARACTERS
            ):
                tally.repair("cut into sections", where)
                yield Document(tuple(held))
                held, size, count = [], 0, 0
            held.append(part if text is None else Text(text))
            size, count = size + longer, count + more
    yield Document(tuple(held))


def _draft(path: pathlib.Path) -> pathlib.Path:
    return path.with_name(path.name + ".draft")
