"""Report on a user's prepared data: the files data_report.json, .html and .png of a run."""

import json
from collections.abc import Mapping, Sequence
from typing import Any

from etils import epath

from oneflow_jax.data.document import Document
from oneflow_jax.runtime import workdir
from oneflow_jax.viewer import data_plots, templates

MAX_IMAGES = 48
"""Maximum number of images in the overview plot."""


def write_report(
    figures: Mapping[str, Any], source: Sequence[Document], folder: epath.Path
) -> epath.Path:
    """Write the JSON file, the page and the plot; return the path of the page.

    Args:
        figures: content of the report, as `data.custom.summary.summarize_data` returns it.
        source: training documents of the data set.
        folder: folder of the run.
    """
    step = max(1, len(source) // MAX_IMAGES)
    images = [
        image for index in range(0, len(source), step) for image in source[index].images()[:1]
    ][:MAX_IMAGES]
    overview_png = data_plots.plot_overview(figures, images)
    base = folder / workdir.DATA_REPORT
    workdir.write_atomically(base, json.dumps(figures, indent=2) + "\n")
    workdir.write_atomically(base.with_suffix(".png"), overview_png)
    workdir.write_atomically(base.with_suffix(".html"), render_page(figures, overview_png))
    return base.with_suffix(".html")


def render_page(figures: Mapping[str, Any], overview_png: bytes) -> str:
    """Render the report as a self-contained HTML page; text from the data is escaped."""
    num_kept = sum(figures["documents"].values())
    rows = {
        "source": f"{figures['path']} (format {figures['kind']})",
        "documents found": f"{figures['seen']:,}",
        "documents kept": f"{num_kept:,} ("
        + ", ".join(f"{n:,} {split}" for split, n in figures["documents"].items())
        + ")",
        "documents dropped": f"{sum(figures['dropped'].values()):,}",
        "words": f"{figures['words']:,}",
        "images kept": f"{figures['pictures']:,}",
        "images and texts dropped": f"{sum(figures['lost'].values()):,}",
    }
    rows["documents by content"] = ", ".join(
        f"{count:,} {kind}" for kind, count in figures["contents"].items()
    )
    canvas = figures["canvas"]
    for split in figures["documents"]:
        counts = ", ".join(f"{value:,} {name}" for name, value in canvas[split].items())
        rows[f"{split}, rows of {canvas['data.sequence_length']} slots"] = counts
    return templates.render(
        "data_report.html",
        summary=rows,
        notices=figures["notices"],
        fields={"used": figures["used"], "not used": figures["unused"]},
        files=figures["unused files"],
        reasons=figures["reasons"],
        overview_png=overview_png,
    )
