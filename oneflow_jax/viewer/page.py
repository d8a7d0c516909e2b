"""Writes the HTML page of a sampling run: trajectories of documents, loss curves and settings.

The page is a single file. It needs no network access, and its content security policy forbids all
network access.
"""

import math
import os
import types
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from oneflow_jax.viewer import sprite_sheet, templates, token_times, trajectory

MAX_IMAGE_BYTES = (
    2_300_000  # Budget of all data URIs; a page of 16 documents with 40 steps stays below 3 MB.
)
NUM_TIME_COLUMNS = 10  # Number of columns of words; each is for a tenth of the sampling time.
MAX_CURVE_POINTS = 500  # Maximum number of points of a curve, about one per pixel of a chart.

INTRO_CONCURRENT = (
    "Text and images of each document are generated <em>at the same time</em>. Time <var>t</var> "
    "runs from 0, where tokens are masked or not inserted yet and images are noise, to 1, where "
    'the document is finished. <em class="given-sample">Given</em> text and images are kept '
    "unchanged."
)
INTRO_EDIT = (
    "Finished documents are edited: tokens and images are deleted, inserted and substituted until "
    "time <var>t</var> is 1."
)
INTRO_AUTOREGRESSIVE = (
    "The tokens of each document are generated <em>from left to right</em>, and each image at its "
    "place between them. Time <var>t</var> runs from 0, where the document has only the beginning "
    'of the prompt, to 1. <em class="given-sample">Given</em> text and images are kept unchanged.'
)
"""Introductions of the page as HTML, for concurrent, editing and autoregressive samplers."""

Curve = Sequence[tuple[float, float]]
"""(step, value) points in order of step; a NaN or infinite value leaves a gap in the line."""


def write(
    path: str | os.PathLike[str],
    views: Sequence[trajectory.TrajectoryView],
    curves: Mapping[str, Curve],
    settings: Mapping[str, str],
    heading: str,
    notes: Sequence[str] = (),
    intro: str = INTRO_CONCURRENT,
    findings: Sequence[str] = (),
    sheet: bytes | None = None,
    baselines: Mapping[str, float] = types.MappingProxyType({}),
    choices: Mapping[str, tuple[float, str]] = types.MappingProxyType({}),
) -> None:
    """Write the page to `path`, and create its folder if necessary.

    Args:
      path: path of the HTML file.
      views: trajectories of the documents. One slider moves all of them; a trajectory with fewer
          steps than the others stays at its last step.
      curves: loss curves by name.
      settings: settings of the run, by name.
      heading: title of the page.
      notes: lines in the footer, such as the attribution of images.
      intro: introduction of the page, as HTML.
      findings: sentences about the last evaluation.
      sheet: PNG of held-out documents beside what the model makes of them.
      baselines: losses that need no model, by name; the chart of curves shows them as lines.
      choices: values of settings that the program chose, and the reasons, by name.
    """
    tiles = sprite_sheet.SpritePacker()
    stories = [_serialize_view(tiles, index, view) for index, view in enumerate(views)]
    sheets, remark = tiles.encode(MAX_IMAGE_BYTES)
    templates.write_page(
        path,
        "page.html",
        data={
            "stories": stories,
            "sheets": sheets,
            "curves": [serialize_curve(name, points) for name, points in curves.items()],
            "baselines": [{"name": name, "value": value} for name, value in baselines.items()],
        },
        heading=heading,
        intro=intro,
        settings=settings,
        word_columns=_make_word_columns(views),
        findings=findings,
        sheet=sheet,
        choices=choices,
        notes=[note for note in (*notes, remark) if note],
    )


class _WordArrival(NamedTuple):
    """A word of the page's table of arrival times; `size` is 1 to 9, larger for frequent words."""

    text: str
    tooltip: str
    size: int


def _make_word_columns(views: Sequence[trajectory.TrajectoryView]) -> list[list[_WordArrival]]:
    """List, for each tenth of the sampling time, the words that reach their final form in it."""
    arrivals = [arrival for view in views for arrival in token_times.compute_word_times(view)]
    columns: list[list[_WordArrival]] = [[] for _ in range(NUM_TIME_COLUMNS)]
    for word, (time, count) in token_times.average_times(arrivals).items():
        at = min(int(time * NUM_TIME_COLUMNS), NUM_TIME_COLUMNS - 1)
        times = f"{count} times, mean" if count > 1 else "once,"
        columns[at].append(_WordArrival(word, f"{times} t = {time:.2f}", min(count, 9)))
    return columns if arrivals else []


def serialize_curve(name: str, curve: Curve) -> dict[str, Any]:
    """Convert a curve to JSON for the page: every n-th point and the last one; the page shows n."""
    stride = max(1, math.ceil(len(curve) / MAX_CURVE_POINTS))
    selected = [*curve[::stride], *(curve[-1:] if (len(curve) - 1) % stride else ())]
    points = [
        [step, float(f"{value:.5g}") if math.isfinite(value) else None] for step, value in selected
    ]
    return {"name": name, "every": stride, "points": points}


def _serialize_view(
    packer: sprite_sheet.SpritePacker, index: int, view: trajectory.TrajectoryView
) -> dict[str, Any]:
    """Convert a trajectory to the JSON that `card.js` reads.

    Tokens repeat from frame to frame. So `words` lists each distinct (key, text, given) once, and
    frames refer to tokens by their index in `words`.
    """
    numbers: dict[tuple[int, str, int], int] = {}

    def text_run(run: trajectory.TextSpan) -> list[Any]:
        words = [
            numbers.setdefault((word.key, word.text, int(word.given)), len(numbers))
            for word in run.tokens
        ]
        # Rounded up: the page shows a block in place of a token whose percentage is 0.
        percents = [math.ceil(100 * word.opacity()) for word in run.tokens]
        return [0, run.key, int(run.given), round(run.time, 4), words, percents]

    def picture(image: trajectory.ImageView, last: bool) -> list[Any]:
        both = (image.x_t, image.x_t if image.x1_hat is None else image.x1_hat)
        places = [packer.add(pixels, (index, image.key), image.given or last) for pixels in both]
        where = [number for place in places for number in (place.sheet, place.row)]
        return [1, image.key, int(image.given), round(image.time, 4), *where]

    frames = []
    for frame in view.frames:
        last = frame is view.frames[-1]
        parts = [
            text_run(part) if isinstance(part, trajectory.TextSpan) else picture(part, last)
            for part in frame.parts
        ]
        frames.append([round(frame.time, 4), parts])
    return {
        "title": view.title, "prompt": view.prompt, "words": list(numbers), "frames": frames,
    }  # fmt: skip
