"""One self-contained HTML page of a sampling run: documents forming, loss curves and settings.

The page's own HTML, CSS and JavaScript are the files beside this module. Everything is put into one
file that needs no network and, by its content security policy, could not use one.
"""

import html
import importlib.resources
import json
import math
import os
import re
from collections.abc import Mapping, Sequence
from typing import Any

from etils import epath

from oneflow_jax.viewer import sprite_sheet, token_times, trajectory

MAX_IMAGE_BYTES = (
    2_300_000  # of data URIs; 16 documents of 40 steps then stay below 3 MB with their text
)
SCRIPTS = ("elements.js", "card.js", "chart.js", "page.js")
NUM_TIME_COLUMNS = 10  # tenths of the time
MAX_CURVE_POINTS = 500  # more than a chart has pixels for

INTRO_CONCURRENT = (
    "The words and pictures of each document form <em>at the same time</em>. Time <var>t</var> "
    "runs from 0, where words are hidden or not yet there and pictures are noise, to 1, where the "
    'document is finished; what was <em class="given-sample">given</em> stays as it is.'
)
INTRO_EDIT = (
    "Finished documents are looked over: words and pictures are taken out, put in and changed "
    "until time <var>t</var> is 1."
)
INTRO_AUTOREGRESSIVE = (
    "The words of each document are written <em>one after another</em>, and each picture where it "
    "stands between them. Time <var>t</var> runs from 0, where nothing but the prompt's beginning "
    'is there, to 1; what was <em class="given-sample">given</em> stays as it is.'
)
"""What happens on a page, as HTML: documents that form, are revised, or are written."""

Curve = Sequence[tuple[float, float]]
"""(step, value) in order of step; a value that is not finite leaves a hole in the line."""


def write(
    path: str | os.PathLike[str],
    views: Sequence[trajectory.TrajectoryView],
    curves: Mapping[str, Curve],
    settings: Mapping[str, str],
    heading: str,
    notes: Sequence[str] = (),
    intro: str = INTRO_CONCURRENT,
) -> None:
    """Writes the page to `path`; its folder is made if need be.

    Args:
      path: where the HTML file goes.
      views: the documents, all driven by one slider; those with fewer steps rest at their last.
      curves: loss curves by name.
      settings: the run's settings by name.
      heading: what the page is about, a line.
      notes: lines for the foot of the page, such as the attribution of pictures.
      intro: HTML: what the reader sees happen.
    """
    tiles = sprite_sheet.SpritePacker()
    told = [_serialize_view(tiles, index, told) for index, told in enumerate(views)]
    sheets, remark = tiles.encode(MAX_IMAGE_BYTES)
    render_template(
        path,
        "page.html",
        styles=("page.css",),
        scripts=SCRIPTS,
        data={
            "stories": told,
            "sheets": sheets,
            "curves": [serialize_curve(name, points) for name, points in curves.items()],
        },
        fields={
            "heading": html.escape(heading),
            "lede": intro,
            "settings": "".join(map(render_setting, settings.items())),
            "order": _render_word_order(views),
            "notes": "".join(f"<p>{html.escape(note)}</p>" for note in (*notes, remark) if note),
        },
    )


def render_template(
    path: str | os.PathLike[str],
    template: str,
    *,
    styles: Sequence[str],
    scripts: Sequence[str],
    data: Mapping[str, Any],
    fields: Mapping[str, str],
) -> None:
    """Writes a page from files beside this module; its folder is made if need be.

    Args:
      path: where the HTML file goes.
      template: the HTML, with `{{name}}` where a field goes.
      styles: files of CSS.
      scripts: files of JavaScript, which end in a call of `start()`.
      data: what the scripts find as JSON.
      fields: HTML by name; besides them `css`, `js` and `data` may stand in the template.
    """
    given = dict(fields) | {
        "css": "".join(map(_read_asset, styles)),
        "js": "".join(map(_read_asset, scripts)) + "start();\n",
        "data": _json_for_script(data),
    }
    # One pass, so that braces inside a field are never taken for a placeholder.
    text = re.sub(r"\{\{(\w+)\}\}", lambda match: given[match[1]], _read_asset(template))
    target = epath.Path(path)
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_text(text)


def _read_asset(name: str) -> str:
    """The text of a file that is packaged beside this module."""
    return importlib.resources.files("oneflow_jax.viewer").joinpath(name).read_text("utf-8")


def _json_for_script(data: Any) -> str:  # noqa: ANN401 - whatever json takes
    """JSON that cannot end the script element it stands in, nor open a comment there."""
    text = json.dumps(data, separators=(",", ":"), ensure_ascii=False, allow_nan=False)
    for character in "<>&\u2028\u2029":
        text = text.replace(character, f"\\u{ord(character):04x}")
    return text


def render_setting(item: tuple[str, str]) -> str:
    """A row of the table of settings."""
    return f"<tr><th scope='row'>{html.escape(item[0])}</th><td>{html.escape(item[1])}</td></tr>"


def _render_word_order(views: Sequence[trajectory.TrajectoryView]) -> str:
    """Which words come first: a column for each part of the time, words in it by their mean."""
    every = [arrival for told in views for arrival in token_times.compute_word_times(told)]
    columns: list[list[str]] = [[] for _ in range(NUM_TIME_COLUMNS)]
    for word, (time, count) in token_times.average_times(every).items():
        at = min(int(time * NUM_TIME_COLUMNS), NUM_TIME_COLUMNS - 1)
        times = f"{count} times, mean" if count > 1 else "once,"
        columns[at].append(
            f"<li title='{times} t = {time:.2f}' style='--count:{min(count, 9)}'>"
            f"{html.escape(word)}</li>"
        )
    if not every:
        return ""
    return "".join(
        f"<div><h3>{n / NUM_TIME_COLUMNS:.1f}</h3><ul>{''.join(words)}</ul></div>"
        for n, words in enumerate(columns)
    )


def serialize_curve(name: str, curve: Curve) -> dict[str, Any]:
    """A curve for the page, thinned to every n-th point and the last; the page states n."""
    every = max(1, math.ceil(len(curve) / MAX_CURVE_POINTS))
    kept = [*curve[::every], *(curve[-1:] if (len(curve) - 1) % every else ())]
    points = [
        [step, float(f"{value:.5g}") if math.isfinite(value) else None] for step, value in kept
    ]
    return {"name": name, "every": every, "points": points}


def _serialize_view(
    packer: sprite_sheet.SpritePacker, index: int, view: trajectory.TrajectoryView
) -> dict[str, Any]:
    """A story for the page.

    Words repeat from frame to frame, so each distinct (key, text, given) is listed once in `words`
    and frames refer to it by number. `card.js` reads exactly this layout.
    """
    numbers: dict[tuple[int, str, int], int] = {}

    def text_run(run: trajectory.TextSpan) -> list[Any]:
        words = [
            numbers.setdefault((word.key, word.text, int(word.given)), len(numbers))
            for word in run.words
        ]
        percents = [math.ceil(100 * word.legibility()) for word in run.words]  # 0 is a block
        return [0, run.key, int(run.given), round(run.clock, 4), words, percents]

    def picture(shown: trajectory.ImageView, last: bool) -> list[Any]:
        both = (shown.state, shown.state if shown.guess is None else shown.guess)
        places = [packer.place(pixels, (index, shown.key), shown.given or last) for pixels in both]
        where = [number for place in places for number in (place.sheet, place.row)]
        return [1, shown.key, int(shown.given), round(shown.clock, 4), *where]

    frames = []
    for frame in view.frames:
        last = frame is view.frames[-1]
        parts = [
            text_run(part) if isinstance(part, trajectory.TextSpan) else picture(part, last)
            for part in frame.parts
        ]
        frames.append([round(frame.clock, 4), parts])
    return {
        "title": view.title, "prompt": view.prompt, "words": list(numbers), "frames": frames,
    }  # fmt: skip
