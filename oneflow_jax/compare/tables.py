"""Tables of measured figures, as HTML and as GitHub's markdown."""

import dataclasses
import html
import re
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from oneflow_jax.compare import metrics

MARK_SYMBOLS = {"best": "★", "tied": "☆", "": ""}


class Cell(NamedTuple):
    """What stands in one place of a table.

    `detail` is a smaller line below; `exact` the number that `text` rounds; `note` says why there
    is none, and goes to the foot of the table.
    """

    text: str
    detail: str = ""
    mark: metrics.Mark = ""
    exact: float | None = None
    note: str = ""


@dataclasses.dataclass(frozen=True)
class Table:
    """Rows of cells under the names of columns; the first cell of a row names it."""

    title: str
    columns: Sequence[str]
    rows: Sequence[Sequence[Cell]]

    def notes(self) -> list[str]:
        """The notes of its cells, each once."""
        return list(dict.fromkeys(cell.note for row in self.rows for cell in row if cell.note))

    def has_marks(self) -> bool:
        """Whether some cell is best."""
        return any(cell.mark for row in self.rows for cell in row)


MARK_LEGEND = (
    "★ best; ☆ its 95 % interval overlaps that of the best, which does not say that both are equal."
)


def to_html(table: Table) -> str:
    """The table, which scrolls sideways by itself if it is wide, and its notes."""
    notes = table.notes()
    head = "".join(f"<th scope='col'>{html.escape(name)}</th>" for name in table.columns)
    body = "".join(
        f"<tr>{_cell_to_html(row[0], notes, 'th')}"
        f"{''.join(_cell_to_html(cell, notes, 'td') for cell in row[1:])}</tr>"
        for row in table.rows
    )
    foot = "".join(f"<p class='foot'>{html.escape(line)}</p>" for line in _footer_lines(table))
    name = html.escape(table.title)
    return (
        f"<div class='wide' role='region' tabindex='0' aria-label='{name}'><table>"
        f"<thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>"
        f"{foot}"
    )


def to_markdown(table: Table) -> str:
    """The table with its title above and its notes below."""
    notes = table.notes()
    lines = [
        f"**{escape_markdown(table.title)}**",
        "",
        _format_markdown_row(map(escape_markdown, table.columns)),
        "|" + "---|" * len(table.columns),
        *(
            _format_markdown_row(_cell_to_markdown(cell, notes) for cell in row)
            for row in table.rows
        ),
    ]
    return "\n\n".join(["\n".join(lines), *map(escape_markdown, _footer_lines(table))])


def _footer_lines(table: Table) -> list[str]:
    """What its marks mean, and its notes."""
    return [MARK_LEGEND] * table.has_marks() + [
        f"{n}. {note}" for n, note in enumerate(table.notes(), 1)
    ]


def _cell_to_html(cell: Cell, notes: Sequence[str], tag: str) -> str:
    text = html.escape(cell.text)
    if cell.exact is not None:
        text = f"<data value='{cell.exact!r}'>{text}</data>"
    if cell.mark:
        symbol = MARK_SYMBOLS[cell.mark]
        star = f"<span class='star' role='img' aria-label='{cell.mark}'>{symbol}</span>"
        text = f"{star} {text}"
    if cell.note:
        text += f"<sup>{notes.index(cell.note) + 1}</sup>"
    if cell.detail:
        text += f"<small>{html.escape(cell.detail)}</small>"
    kind = " scope='row'" if tag == "th" else f" class='{cell.mark}'" if cell.mark else ""
    return f"<{tag}{kind}>{text}</{tag}>"


def _cell_to_markdown(cell: Cell, notes: Sequence[str]) -> str:
    text = escape_markdown(cell.text)
    if cell.mark == "best":
        text = f"**{text}**"
    text = f"{MARK_SYMBOLS[cell.mark]} {text}".strip()
    if cell.note:
        text += f"<sup>{notes.index(cell.note) + 1}</sup>"
    return f"{text} ({escape_markdown(cell.detail)})" if cell.detail else text


def escape_markdown(text: str) -> str:
    """Text that markdown leaves as it is, within a row of a table too."""
    return re.sub(r"([\\`*_|\[\]#~])", r"\\\1", html.escape(text, quote=False)).replace("\n", " ")


def _format_markdown_row(cells: Iterable[str]) -> str:
    return f"| {' | '.join(cells)} |"
