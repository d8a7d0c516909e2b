"""Choice of the lengths of text gaps and rows from the lengths of the documents.

A run that fine-tunes gets at least the lengths of its start model, because it also reads documents
of that model. No parameter depends on these lengths: positions are rotary angles.
"""

import dataclasses
from collections.abc import Sequence

import ml_collections
import numpy as np

from oneflow_jax.build import data, finetune
from oneflow_jax.build.choice_record import Choice
from oneflow_jax.data import layout as layouts
from oneflow_jax.data import overflow

QUANTILE = 0.95
"""Fraction of the texts that fit a gap, and of the documents that fit a row."""

MAX_MEASURED_DOCUMENTS = 2_000
"""Maximum number of documents whose lengths are measured, spread evenly over the split."""

TEXT_SLOT_UNIT, MAX_TEXT_SLOTS = 4, 64
ROW_UNIT, MIN_ROW, MAX_ROW = 16, 128, 512
DOCUMENTS_PER_ROW = 3
"""Documents of median length that a row should hold, so that few of its slots stay empty."""


def choose_text_slots(config: ml_collections.ConfigDict, layout: layouts.Layout) -> Choice:
    """Choose the number of slots of a gap `<text>` that most texts fit.

    Args:
        config: the run's configuration.
        layout: layout with the run's tokenizer.
    """
    return _choose_text_slots(config, _measure_texts(config, layout))


def _choose_text_slots(config: ml_collections.ConfigDict, lengths: Sequence[int]) -> Choice:
    """Choose the number of slots of a gap `<text>` from the lengths of the texts in tokens."""
    longest = _quantile(lengths)
    slots = min(_round_up(longest, TEXT_SLOT_UNIT), MAX_TEXT_SLOTS)
    limit = f" (at most {MAX_TEXT_SLOTS} slots are chosen)" if longest > MAX_TEXT_SLOTS else ""
    return Choice(
        max(slots, _start_value(config, "text_slot_multiple")),
        f"because {QUANTILE:.0%} of your texts have at most {longest - 1} tokens{limit}"
        f"{_describe_start(config, 'text_slot_multiple')}",
    )


def choose_sequence_length(config: ml_collections.ConfigDict, layout: layouts.Layout) -> Choice:
    """Choose the length of a row that most documents fit whole, in slots.

    Args:
        config: the run's configuration, with the number of slots of a text gap.
        layout: layout with the run's tokenizer.
    """
    layout = dataclasses.replace(layout, text_slots=config.data.text_slot_multiple)
    lengths = _measure_documents(config, layout)
    most = f"{QUANTILE:.0%} of"
    usual = DOCUMENTS_PER_ROW * int(np.median(lengths))
    needs = [
        (_quantile(lengths), f"{most} your documents need at most"),
        (usual, "three of your documents of median length need"),
    ]
    if finetune.keeps_data(config):
        kept = _measure_documents(finetune.start_data_config(config), layout)
        needs.append((_quantile(kept), f"{most} the start model's documents need at most"))
    needed, documents = max(needs)
    slots = int(np.clip(_round_up(needed, ROW_UNIT), MIN_ROW, MAX_ROW))
    below = f" (at least {MIN_ROW} are chosen)" if needed <= MIN_ROW else ""
    limits = f" (at most {MAX_ROW} are chosen)" if needed > MAX_ROW else below
    return Choice(
        max(slots, _start_value(config, "sequence_length")),
        f"because {documents} {needed} slots{limits}{_describe_start(config, 'sequence_length')}",
    )


def describe(config: ml_collections.ConfigDict, layout: layouts.Layout) -> str:
    """Return lines about the lengths of a run that fine-tunes, and about what exceeds them.

    Args:
        config: the run's configuration.
        layout: layout of the run.
    """
    lines, too_long = [], []
    if not layout.variable_length:
        lengths = _measure_texts(config, layout)
        texts = _explain(layout.text_slots, _choose_text_slots(config, lengths))
        lines.append(f"  text slots   {texts}")
        longer = sum(length > layout.text_slots for length in lengths)
        too_long.append(f"{longer:,} of {len(lengths):,} texts exceed a gap")
    rows = _explain(layout.length, choose_sequence_length(config, layout))
    lines.append(f"  row slots    {rows}")
    too_long.append(f"of {_describe_chunks(config, layout, 'documents')}")
    if finetune.keeps_data(config):
        start_config = finetune.start_data_config(config)
        kept = _describe_chunks(start_config, layout, "documents of the start model")
        too_long.append(f"of {kept}")
    lines.append(f"  too long     {'; '.join(too_long)}")
    return "\n".join(lines)


def _explain(slots: int, choice: Choice) -> str:
    """Return a number of slots with the reason for it, or with the facts if it was given."""
    if slots == choice.value:
        return f"{slots}, {choice.reason}"
    return f"{slots}, as given; {choice.reason.removeprefix('because ')}"


def _describe_chunks(config: ml_collections.ConfigDict, layout: layouts.Layout, noun: str) -> str:
    """Return how many training documents do not fit a row, and what happens to them."""
    counts = data.chunk_counts(config, layout, "train")
    split, dropped = int((counts > 1).sum()), int((counts == 0).sum())
    return f"{len(counts):,} {noun}, {split:,} are split and {dropped:,} dropped"


def _describe_start(config: ml_collections.ConfigDict, key: str) -> str:
    start = _start_value(config, key)
    return f"; the start model had {start}" if start else ""


def _start_value(config: ml_collections.ConfigDict, key: str) -> int:
    """Return the value of a key of `data` in the start model, or 0 without a start model."""
    if not finetune.is_finetuning(config):
        return 0
    return finetune.load_start_config(config).data[key]


def _measure_texts(config: ml_collections.ConfigDict, layout: layouts.Layout) -> list[int]:
    """Return the lengths of the user's texts in tokens, with the end token."""
    source = data.open_split(config, "train")
    return overflow.list_text_lengths(source, layout, MAX_MEASURED_DOCUMENTS) or [1]


def _measure_documents(config: ml_collections.ConfigDict, layout: layouts.Layout) -> list[int]:
    source = data.open_split(config, "train")
    return overflow.list_document_lengths(source, layout, MAX_MEASURED_DOCUMENTS)


def _quantile(lengths: Sequence[int]) -> int:
    """Return the smallest of the lengths that this fraction of them does not exceed."""
    return int(np.quantile(lengths, QUANTILE, method="inverted_cdf"))


def _round_up(number: float, unit: int) -> int:
    return -(-int(np.ceil(number)) // unit) * unit
