"""Notices about prepared data, for the user to read before training."""

from collections.abc import Mapping
from typing import Any

from oneflow_jax.data.custom.errors import SEPARATED, format_reason
from oneflow_jax.data.custom.stats import DatasetStats
from oneflow_jax.runtime import plurals

MAX_LISTED = 8
"""Maximum number of fields, or of kinds of files, that a notice lists."""

MAJORITY = 0.5
"""A notice appears if more than this fraction of the texts or documents is too long."""

_ADDRESS_NAMES = ("url", "urls", "image_url", "image_urls", "img_url", "coco_url", "flickr_url")


def list_notices(stats: DatasetStats, slot_usage: Mapping[str, Any]) -> list[str]:
    """Return notices about unusual properties of the data; each is one or more sentences.

    Args:
        stats: statistics of the prepared data.
        slot_usage: result of `summary.summarize_slots`, with the result of
            `overflow.measure_texts` under the key "texts".
    """
    sentences = [
        _describe_contents(stats),
        _describe_incomplete(stats, "only images", "text"),
        _describe_incomplete(stats, "only text", "an image"),
        _list_reasons(stats.dropped, f"Documents dropped, of {stats.seen:,}, by reason"),
        _list_reasons(stats.lost, "Images and texts dropped, by reason"),
        _describe_texts(slot_usage.get("texts", {})),
        _describe_documents(slot_usage),
        describe_unread(stats),
        _describe_encoding(stats),
        *(_describe_note(note, count, stats) for note, count in stats.notes.most_common()),
        _list_counts(stats.unused, "Unused fields, with the number of documents that have each"),
        _list_counts(stats.unused_files, "Files that were not used"),
    ]
    return [sentence for sentence in sentences if sentence]


def _describe_contents(stats: DatasetStats) -> str:
    """Return a notice if no document has both text and an image, and otherwise ""."""
    total = stats.contents.total()
    if not total or stats.contents["text and image"]:
        return ""
    kinds = " and ".join(f"{count:,} have {kind}" for kind, count in stats.contents.items())
    sentence = f"None of the {total:,} documents has both text and an image: {kinds}."
    names = {name.rpartition(": ")[2].casefold() for name in stats.unused}
    if stats.lost["address, not a file"] or not names.isdisjoint(_ADDRESS_NAMES):
        sentence += (
            " The data gives images as URLs, and nothing is downloaded. Download the images first."
        )
    return sentence + (
        " If other fields hold the missing text or images, set source.columns or source.format."
    )


def _describe_incomplete(stats: DatasetStats, content: str, missing: str) -> str:
    """Return a notice if some documents have only `content` and others are whole, else ""."""
    count = stats.contents[content]
    if not count or not stats.contents["text and image"]:
        return ""
    first = stats.places.get(content, [])  # Data of earlier versions has no locations.
    example = f", such as {first[0]}" if first else ""
    return f"Documents without {missing}: {count:,} of {stats.contents.total():,}{example}."


def _describe_texts(texts: Mapping[str, int]) -> str:
    """Return a notice if most texts are longer than a `<text>` gap, and otherwise ""."""
    count, room = texts.get("measured", 0), texts.get("data.text_slot_multiple", 0)
    if not room or texts.get("longer", 0) <= MAJORITY * count:
        return ""
    return (
        f"{texts['longer']:,} of {count:,} texts are longer than data.text_slot_multiple={room}, "
        f"the room for `<text>` in a prompt (the median text has {texts['median']:,} tokens, with "
        f"the end token). Raise data.text_slot_multiple, or write `<text:{texts['median']}>`."
    )


def _describe_documents(slot_usage: Mapping[str, Any]) -> str:
    """Return a notice if most documents are longer than the sequence length, and otherwise ""."""
    train = slot_usage.get("train", {})
    longer = train.get("cut", 0) + train.get("dropped", 0)
    if longer <= MAJORITY * train.get("documents", 0):
        return ""
    done = "dropped" if slot_usage["data.overflow"] == "drop" else "cut into pieces"
    return (
        f"{longer:,} of {train['documents']:,} training documents are longer than "
        f"data.sequence_length={slot_usage['data.sequence_length']} and are {done}. Raise "
        "data.sequence_length to keep them whole."
    )


def describe_unread(stats: DatasetStats) -> str:
    """Return a notice if the data has images in formats that are not read, and otherwise ""."""
    count = stats.lost["unread format"]
    if not count:
        return ""
    return (
        f"The format of {plurals.format_count(count, 'image')} is not read, such as that of "
        f"{stats.places['unread format'][0]}."
    )


def _describe_encoding(stats: DatasetStats) -> str:
    """Return a notice if the data has texts that are not UTF-8, and otherwise ""."""
    count = stats.repaired["invalid UTF-8"] + stats.lost["not UTF-8"]
    if not count:
        return ""
    first = [*stats.places.get("invalid UTF-8", ()), *stats.places.get("not UTF-8", ())][0]
    return (
        f"Texts that are not UTF-8: {count:,}, such as that of {first}. Bytes that are not UTF-8 "
        "were replaced with U+FFFD, and texts without a readable character were dropped. Save the "
        "texts as UTF-8, for example with iconv -f WINDOWS-1252 -t UTF-8."
    )


def _describe_note(note: str, count: int, stats: DatasetStats) -> str:
    advice = (
        ", so they are separate documents. Write the files of a document one after another, for "
        "example with tar --sort=name, or unpack the tar file."
        if note == SEPARATED
        else ". To use other fields, set source.columns."
    )
    return f"In {count:,} of {stats.seen:,} documents: {note}{advice}"


def _list_reasons(counts: Mapping[str, int], title: str) -> str:
    return _list_counts({format_reason(name): count for name, count in counts.items()}, title)


def _list_counts(counts: Mapping[str, int], title: str) -> str:
    ranked = sorted(counts.items(), key=lambda pair: (-pair[1], pair[0]))
    listed = ", ".join(f"{name} ({count:,})" for name, count in ranked[:MAX_LISTED])
    more = f", and {len(ranked) - MAX_LISTED} more" if len(ranked) > MAX_LISTED else ""
    return f"{title}: {listed}{more}." if ranked else ""
