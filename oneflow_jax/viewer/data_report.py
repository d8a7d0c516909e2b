"""Report on a user's prepared data: the files data_report.json, .html and .png of a run."""

import json
from collections.abc import Mapping, Sequence
from typing import Any

from etils import epath
from PIL import Image

from oneflow_jax.data.document import Document
from oneflow_jax.runtime import workdir
from oneflow_jax.viewer import data_plots, fonts, templates

MAX_IMAGES = 48
"""Maximum number of images in the overview plot."""

MAX_EXAMPLES = 24
"""Maximum number of documents that the page shows with their texts."""

SPLIT_NAMES = {"train": "for training", "heldout": "held out"}
"""What the page calls the splits."""


def write_report(
    figures: Mapping[str, Any], source: Sequence[Document], folder: epath.Path
) -> epath.Path:
    """Write the JSON file, the page and the plot; return the path of the page.

    Args:
        figures: content of the report, as `data.custom.summary.summarize_data` returns it, and
            under the key "choices" the values that the program chose, with the reasons, by name.
        source: training documents of the data set.
        folder: folder of the run.
    """
    documents = [source[index] for index in _spread(len(source), MAX_IMAGES)]
    images = [image for document in documents for image in document.images()[:1]]
    overview_png, dark_png = (
        data_plots.plot_overview(figures, images, colors) for colors in (fonts.LIGHT, fonts.DARK)
    )
    examples = [documents[index] for index in _spread(len(documents), MAX_EXAMPLES)]
    base = folder / workdir.DATA_REPORT
    workdir.write_atomically(base, json.dumps(figures, indent=2) + "\n")
    workdir.write_atomically(base.with_suffix(".png"), overview_png)
    workdir.write_atomically(
        base.with_suffix(".html"), render_page(figures, overview_png, dark_png, examples)
    )
    return base.with_suffix(".html")


def _spread(total: int, count: int) -> range:
    """Return at most `count` evenly spaced indices below `total`."""
    return range(0, total, max(1, -(-total // count)))


def render_page(
    figures: Mapping[str, Any],
    overview_png: bytes,
    dark_png: bytes,
    examples: Sequence[Document],
) -> str:
    """Render the report as a self-contained HTML page; text from the data is escaped.

    Args:
        figures: content of the report, as for `write_report`.
        overview_png: the plot of `data_plots.plot_overview`.
        dark_png: the plot with dark colors, for browsers that prefer them.
        examples: documents whose first image and text the page shows side by side.
    """
    num_kept = sum(figures["documents"].values())
    rows = {
        "source": f"{figures['path']} (format {figures['kind']})",
        "documents found": f"{figures['seen']:,}",
        "documents kept": f"{num_kept:,} ("
        + ", ".join(
            f"{figures['documents'].get(split, 0):,} {name}" for split, name in SPLIT_NAMES.items()
        )
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
    if len(shapes := canvas["shapes"]) > 1:
        counts = ", ".join(f"{count:,} of {ratio}" for ratio, count in shapes.items())
        rows["images by aspect ratio, in a sample"] = counts
    for split, name in SPLIT_NAMES.items():
        label = f"documents {name}, in rows of {canvas['data.sequence_length']} slots"
        rows[label] = _describe_rows(canvas[split])
    return templates.render(
        "data_report.html",
        summary=rows,
        notices=figures["notices"],
        choices=figures["choices"],
        fields={"used": figures["used"], "not used": figures["unused"]},
        files=figures["unused files"],
        reasons=figures["reasons"],
        overview_png=overview_png,
        dark_png=dark_png,
        examples=[
            (Image.fromarray(document.images()[0]), document.text())
            for document in examples
            if document.images()
        ],
    )


def _describe_rows(usage: Mapping[str, int]) -> str:
    """Return how many documents of a split fit a row, are split, or are dropped."""
    counts = [f"{usage['laid out whole']:,} of {usage['documents']:,} documents fit a row"]
    if usage["cut"]:
        counts.append(f"{usage['cut']:,} split into {usage['pieces of those']:,} parts")
    if usage["dropped"]:
        counts.append(f"{usage['dropped']:,} dropped")
    return ", ".join(counts)
