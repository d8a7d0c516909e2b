"""What came of own data, for people: intake.json, intake.html and intake.png in a run's folder."""

import base64
import html
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
from oneflow_jax.viewer import data_plots, fonts

MAX_IMAGES = 48
"""On the contact sheet."""


def write_report(
    source_path: str,
    prepared: pathlib.Path,
    source: Sequence[Document],
    slot_usage: Mapping[str, Any],
    folder: epath.Path,
) -> epath.Path:
    """Write the three files; return the path of the page.

    Args:
        source_path: `source.path` as the user gave it.
        prepared: folder of the prepared data set.
        source: its training documents.
        slot_usage: the result of `summarize_slots`.
        folder: the run's folder.
    """
    tally = prepare.load_stats(prepared)
    figures = summarize(tally) | {
        "path": source_path,
        "kind": manifest.load(prepared).settings.kind,
        "prepared": str(prepared),
        "canvas": dict(slot_usage),
    }
    step = max(1, len(source) // MAX_IMAGES)
    shown = [
        picture for index in range(0, len(source), step) for picture in source[index].pictures()[:1]
    ][:MAX_IMAGES]
    picture = data_plots.plot_overview(figures, shown)
    base = folder / workdir.DATA_REPORT
    workdir.write_atomically(base, json.dumps(figures, indent=2) + "\n")
    workdir.write_atomically(base.with_suffix(".png"), picture)
    workdir.write_atomically(base.with_suffix(".html"), render_page(figures, picture))
    return base.with_suffix(".html")


def summarize(stats: DatasetStats) -> dict[str, Any]:
    """The counts, and the shares that people ask for."""
    counted = stats.to_dict()
    places = counted.pop("places")
    told = stats.dropped.keys() | stats.lost.keys() | stats.repaired.keys()
    return {
        **counted,
        "reasons": {
            name: {
                "documents dropped": stats.dropped[name],
                "parts dropped": stats.lost[name],
                "put right": stats.repaired[name],
                "what": (errors.DROP_REASONS | errors.REPAIRS)[name],
                "first": places.get(name, []),
            }
            for name in sorted(told)
        },
    }


def summarize_slots(
    row_length: int, overflow: str, chunk_counts: Mapping[str, np.ndarray]
) -> dict[str, Any]:
    """Count how the documents of each split fit the rows of slots.

    Args:
        row_length: slots of a row, `data.length`.
        overflow: what happens to longer documents, `data.long`.
        chunk_counts: by split, in how many pieces each document is used; 0 for dropped ones.
    """
    usage: dict[str, Any] = {"data.length": row_length, "data.long": overflow}
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
    """The report as one HTML page; all that comes from the data is escaped."""
    kept = sum(stats["documents"].values())
    rows = {
        "read": f"{html.escape(stats['path'])} (kind {html.escape(stats['kind'])})",
        "documents found": f"{stats['seen']:,}",
        "documents kept": f"{kept:,} ("
        + ", ".join(f"{n:,} {split}" for split, n in stats["documents"].items())
        + ")",
        "documents dropped": f"{sum(stats['dropped'].values()):,}",
        "words": f"{stats['words']:,}",
        "pictures kept": f"{stats['pictures']:,}",
        "pictures and texts dropped": f"{sum(stats['lost'].values()):,}",
    }
    canvas = stats["canvas"]
    for split in manifest.SPLITS:
        told = ", ".join(f"{value:,} {name}" for name, value in canvas[split].items())
        rows[f"{split}, rows of {canvas['data.length']} slots"] = told
    summary = "".join(f"<tr><th>{name}</th><td>{value}</td></tr>" for name, value in rows.items())
    reasons = "".join(_reason_row(name, told) for name, told in stats["reasons"].items())
    image = base64.b64encode(overview_png).decode()
    return _PAGE.format(
        paper=fonts.BACKGROUND_COLOR,
        ink=fonts.TEXT_COLOR,
        line=fonts.LINE_COLOR,
        muted=fonts.MUTED_COLOR,
        summary=summary, reasons=reasons or "<tr><td>nothing</td></tr>", image=image,
    )  # fmt: skip


def _reason_row(name: str, entry: Mapping[str, Any]) -> str:
    counts = "".join(
        f"<td>{entry[key] or ''}</td>"
        for key in ("documents dropped", "parts dropped", "put right")
    )
    first = "<br>".join(html.escape(place) for place in entry["first"])
    return f"<tr><th>{name}<br><small>{entry['what']}</small></th>{counts}<td>{first}</td></tr>"


_PAGE = """<!doctype html>
<html lang="en"><meta charset="utf-8"><title>Intake</title>
<meta name="viewport" content="width=device-width">
<style>
body {{ background: {paper}; color: {ink}; font: 16px/1.45 sans-serif; max-width: 70rem;
        margin: 2rem auto; padding: 0 1rem }}
table {{ border-collapse: collapse; margin: 1rem 0 2rem; width: 100% }}
th, td {{ border-top: 1px solid {line}; padding: .4rem .8rem .4rem 0; text-align: left;
          vertical-align: top; overflow-wrap: anywhere }}
th {{ font-weight: 600; min-width: 12rem }} small {{ color: {muted}; font-weight: 400 }}
img {{ max-width: 100% }}
</style>
<h1>What came of your data</h1>
<table>{summary}</table>
<img alt="Lengths of documents, numbers of pictures, and some of the pictures"
     src="data:image/png;base64,{image}">
<h2>What was dropped or put right, and where it came first</h2>
<table><tr><th>what</th><th>documents dropped</th><th>parts dropped</th><th>put right</th>
<th>first places</th></tr>{reasons}</table>
</html>
"""
