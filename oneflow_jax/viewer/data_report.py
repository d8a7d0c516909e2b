"""Report on a user's prepared data: the files data_report.json, .html and .png of a run."""

import json
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from etils import epath

from oneflow_jax.data.custom import errors, manifest, prepare
from oneflow_jax.data.custom.stats import DatasetStats
from oneflow_jax.data.document import Document
from oneflow_jax.runtime import workdir
from oneflow_jax.viewer import data_plots, templates

MAX_IMAGES = 48
"""Maximum number of images in the overview plot."""

MAX_MEASURED_DOCUMENTS = 1_000
"""Maximum number of documents whose texts are measured."""


def write_report(
    source_path: str,
    prepared: pathlib.Path,
    source: Sequence[Document],
    slot_usage: Mapping[str, Any],
    notices: Sequence[str],
    folder: epath.Path,
) -> epath.Path:
    """Write the JSON file, the page and the plot; return the path of the page.

    Args:
        source_path: value of `source.path`.
        prepared: folder of the prepared data set.
        source: training documents of the data set.
        slot_usage: result of `summarize_slots`, and "texts" as `fitting.measure_texts` returns it.
        notices: sentences for the head of the page.
        folder: folder of the run.
    """
    tally = prepare.load_stats(prepared)
    figures = summarize(tally) | {
        "path": source_path,
        "kind": manifest.load(prepared).settings.format,
        "prepared": str(prepared),
        "canvas": dict(slot_usage),
        "notices": list(notices),
    }
    step = max(1, len(source) // MAX_IMAGES)
    images = [
        overview_png
        for index in range(0, len(source), step)
        for overview_png in source[index].images()[:1]
    ][:MAX_IMAGES]
    overview_png = data_plots.plot_overview(figures, images)
    base = folder / workdir.DATA_REPORT
    workdir.write_atomically(base, json.dumps(figures, indent=2) + "\n")
    workdir.write_atomically(base.with_suffix(".png"), overview_png)
    workdir.write_atomically(base.with_suffix(".html"), render_page(figures, overview_png))
    return base.with_suffix(".html")


def summarize(stats: DatasetStats) -> dict[str, Any]:
    """Convert statistics to the content of the report, with an entry per drop or repair reason."""
    counted = stats.to_dict()
    places = counted.pop("places")
    files = counted.pop("unused_files")
    counted.pop("opened")  # Only the statistics of a unit have it.
    reasons = stats.dropped.keys() | stats.lost.keys() | stats.repaired.keys()
    return {
        **counted,
        "unused files": {
            kind: {"count": count, "first": places.get(kind, [])} for kind, count in files.items()
        },
        "reasons": {
            name: {
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
        overflow: what happens to documents that are longer than a row, `data.overflow`.
        chunk_counts: by split, the number of chunks that each document is cut into: 1 for a
            document that fits, 0 for a dropped one.
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


def render_page(stats: Mapping[str, Any], overview_png: bytes) -> str:
    """Render the report as a self-contained HTML page; text from the data is escaped."""
    num_kept = sum(stats["documents"].values())
    rows = {
        "source": f"{stats['path']} (format {stats['kind']})",
        "documents found": f"{stats['seen']:,}",
        "documents kept": f"{num_kept:,} ("
        + ", ".join(f"{n:,} {split}" for split, n in stats["documents"].items())
        + ")",
        "documents dropped": f"{sum(stats['dropped'].values()):,}",
        "words": f"{stats['words']:,}",
        "images kept": f"{stats['pictures']:,}",
        "images and texts dropped": f"{sum(stats['lost'].values()):,}",
    }
    rows["documents by content"] = ", ".join(
        f"{count:,} {kind}" for kind, count in stats["contents"].items()
    )
    canvas = stats["canvas"]
    for split in manifest.SPLITS:
        counts = ", ".join(f"{value:,} {name}" for name, value in canvas[split].items())
        rows[f"{split}, rows of {canvas['data.sequence_length']} slots"] = counts
    return templates.render(
        "data_report.html",
        summary=rows,
        notices=stats["notices"],
        fields={"used": stats["used"], "not used": stats["unused"]},
        files=stats["unused files"],
        reasons=stats["reasons"],
        overview_png=overview_png,
    )
