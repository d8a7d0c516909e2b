"""Content of the report on a user's prepared data: counts, drops, repairs, and slot usage."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from oneflow_jax.data.custom import errors
from oneflow_jax.data.custom.stats import DatasetStats
from oneflow_jax.data.custom.store import PreparedData

MAX_MEASURED_DOCUMENTS = 1_000
"""Maximum number of documents whose texts are measured in tokens."""


def summarize_data(
    source_path: str,
    prepared: PreparedData,
    slot_usage: Mapping[str, Any],
    notices: Sequence[str],
) -> dict[str, Any]:
    """Return the content of the report, as values for JSON.

    Args:
        source_path: value of `source.path`.
        prepared: the prepared data set.
        slot_usage: result of `summarize_slots`, with the result of `overflow.measure_texts` under
            the key "texts", and that of `overflow.count_shapes` under the key "shapes".
        notices: sentences to show at the top of the report.
    """
    return summarize_stats(prepared.stats) | {
        "path": source_path,
        "kind": prepared.plan.settings.format,
        "prepared": str(prepared.folder),
        "canvas": dict(slot_usage),
        "notices": list(notices),
    }


def summarize_stats(stats: DatasetStats) -> dict[str, Any]:
    """Convert statistics to the content of the report, with an entry per kind of drop or repair."""
    counted = stats.to_dict()
    places = counted.pop("places")
    files = counted.pop("unused_files")
    counted.pop("opened")  # `count_unused` has cleared this field.
    reasons = stats.dropped.keys() | stats.lost.keys() | stats.repaired.keys()
    return {
        **counted,
        "unused files": {
            kind: {"count": count, "first": places.get(kind, [])} for kind, count in files.items()
        },
        "reasons": {
            errors.format_reason(name): {
                "documents dropped": stats.dropped[name],
                "parts dropped": stats.lost[name],
                "put right": stats.repaired[name],
                "what": (errors.DROP_REASONS | errors.REPAIRS)[name],
                "first": places.get(name, []),
            }
            for name in sorted(reasons)
        },
    }


def summarize_slots(
    row_length: int, overflow: str, chunk_counts: Mapping[str, np.ndarray]
) -> dict[str, Any]:
    """Count how many documents of each split fit a row, are cut, or are dropped.

    Args:
        row_length: number of slots in a row, `data.sequence_length`.
        overflow: value of `data.overflow`, the handling of documents that are longer than a row.
        chunk_counts: number of chunks of each document, by split: 1 for a document that fits a row,
            and 0 for a dropped document.
    """
    usage: dict[str, Any] = {"data.sequence_length": row_length, "data.overflow": overflow}
    for split, counts in chunk_counts.items():
        usage[split] = {
            "documents": len(counts),
            "laid out whole": int((counts == 1).sum()),
            "cut": int((counts > 1).sum()),
            "pieces of those": int(counts[counts > 1].sum()),
            "dropped": int((counts == 0).sum()),
        }
    return usage
