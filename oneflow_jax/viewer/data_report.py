"""What came of own data, for people: intake.json, intake.html and intake.png in a run's folder."""

import base64
import html
import json
from collections.abc import Mapping
from typing import Any

import ml_collections
from etils import epath

from oneflow_jax.build import data
from oneflow_jax.data import layout as layouts
from oneflow_jax.data.custom import errors, manifest, prepare
from oneflow_jax.data.custom.stats import Tally
from oneflow_jax.runtime import workdir
from oneflow_jax.viewer import data_plots, fonts

PICTURES = 48
"""On the contact sheet."""


def write(
    config: ml_collections.ConfigDict, layout: layouts.Layout, folder: epath.Path
) -> epath.Path:
    """Writes the three files; returns the path of the page.

    Args:
        config: whose source is own data, prepared.
        layout: of the run.
        folder: of the run.
    """
    source = data.source(config, "train")  # Prepared now, if need be.
    settings = prepare.settings_of(config.source)
    prepared = prepare.folder_of(settings, config.data.dir)
    tally = prepare.tally(prepared)
    figures = figures_of(tally) | {
        "path": settings.path,
        "kind": manifest.load(prepared).settings.kind,
        "prepared": str(prepared),
        "canvas": _canvas(config, layout),
    }
    step = max(1, len(source) // PICTURES)
    shown = [
        picture for index in range(0, len(source), step) for picture in source[index].pictures()[:1]
    ][:PICTURES]
    picture = data_plots.overview(figures, shown)
    base = folder / workdir.INTAKE
    workdir.write_atomically(base, json.dumps(figures, indent=2) + "\n")
    workdir.write_atomically(base.with_suffix(".png"), picture)
    workdir.write_atomically(base.with_suffix(".html"), page(figures, picture))
    return base.with_suffix(".html")


def figures_of(tally: Tally) -> dict[str, Any]:
    """The counts, and the shares that people ask for."""
    counted = tally.to_dict()
    places = counted.pop("places")
    told = tally.dropped.keys() | tally.lost.keys() | tally.repaired.keys()
    return {
        **counted,
        "reasons": {
            name: {
                "documents dropped": tally.dropped[name],
                "parts dropped": tally.lost[name],
                "put right": tally.repaired[name],
                "what": (errors.DROPPED | errors.REPAIRED)[name],
                "first": places.get(name, []),
            }
            for name in sorted(told)
        },
    }


def _canvas(config: ml_collections.ConfigDict, layout: layouts.Layout) -> dict[str, Any]:
    """How the documents of each split fit the rows of slots."""
    found: dict[str, Any] = {"data.length": layout.length, "data.long": config.data.long}
    for split in manifest.SPLITS:
        counts = data.pieces(config, layout, split)
        found[split] = {
            "documents": len(counts),
            "laid out whole": int((counts == 1).sum()),
            "cut": int((counts > 1).sum()),
            "pieces of those": int(counts[counts > 1].sum()),
            "dropped": int((counts == 0).sum()),
        }
    return found


def page(figures: Mapping[str, Any], picture: bytes) -> str:
    """The report as one HTML page; all that comes from the data is escaped."""
    kept = sum(figures["documents"].values())
    rows = {
        "read": f"{html.escape(figures['path'])} (kind {html.escape(figures['kind'])})",
        "documents found": f"{figures['seen']:,}",
        "documents kept": f"{kept:,} ("
        + ", ".join(f"{n:,} {split}" for split, n in figures["documents"].items())
        + ")",
        "documents dropped": f"{sum(figures['dropped'].values()):,}",
        "words": f"{figures['words']:,}",
        "pictures kept": f"{figures['pictures']:,}",
        "pictures and texts dropped": f"{sum(figures['lost'].values()):,}",
    }
    canvas = figures["canvas"]
    for split in manifest.SPLITS:
        told = ", ".join(f"{value:,} {name}" for name, value in canvas[split].items())
        rows[f"{split}, rows of {canvas['data.length']} slots"] = told
    summary = "".join(f"<tr><th>{name}</th><td>{value}</td></tr>" for name, value in rows.items())
    reasons = "".join(_reason(name, told) for name, told in figures["reasons"].items())
    image = base64.b64encode(picture).decode()
    return _PAGE.format(
        paper=fonts.PAPER, ink=fonts.INK, line=fonts.LINE, muted=fonts.MUTED,
        summary=summary, reasons=reasons or "<tr><td>nothing</td></tr>", image=image,
    )  # fmt: skip


def _reason(name: str, told: Mapping[str, Any]) -> str:
    counts = "".join(
        f"<td>{told[key] or ''}</td>" for key in ("documents dropped", "parts dropped", "put right")
    )
    first = "<br>".join(html.escape(place) for place in told["first"])
    return f"<tr><th>{name}<br><small>{told['what']}</small></th>{counts}<td>{first}</td></tr>"


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
