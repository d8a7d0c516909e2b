"""Tables of text cells with marks and footnotes, and their conversion to GitHub Markdown."""

import dataclasses
import html
import re
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from oneflow_jax.compare import metrics

MARK_SYMBOLS = {"best": "★", "tied": "☆", "": ""}
MARK_LEGEND = (
    "★ best; ☆ 95 % interval overlaps that of the best, which does not imply that both are equal."
)


class Cell(NamedTuple):
    """A cell of a table.

    Attributes:
        text: text of the cell.
        detail: smaller line below the text, such as an interval.
        mark: whether the value is the best in its comparison, or tied with the best.
        unrounded: the exact number if `text` is a rounded number, else None.
        note: footnote, such as the reason why a value is missing.
    """

    text: str
    detail: str = ""
    mark: metrics.Mark = ""
    unrounded: float | None = None
    note: str = ""


@dataclasses.dataclass(frozen=True)
class Table:
    """A table with a title; the first cell of each row is its header."""

    title: str
    columns: Sequence[str]
    rows: Sequence[Sequence[Cell]]

    def notes(self) -> list[str]:
        """Return the distinct footnotes of all cells, in order."""
        return list(dict.fromkeys(cell.note for row in self.rows for cell in row if cell.note))

    def has_marks(self) -> bool:
        """Return whether any cell has a mark."""
        return any(cell.mark for row in self.rows for cell in row)

    def footer_lines(self) -> list[str]:
        """Return the legend of the marks, if any cell has one, and the numbered footnotes."""
        footnotes = [f"{n}. {note}" for n, note in enumerate(self.notes(), 1)]
        return [MARK_LEGEND] * self.has_marks() + footnotes


def to_markdown(table: Table) -> str:
    """Render a table as Markdown, with its title above and its footnotes below."""
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
    return "\n\n".join(["\n".join(lines), *map(escape_markdown, table.footer_lines())])


def _cell_to_markdown(cell: Cell, notes: Sequence[str]) -> str:
    text = escape_markdown(cell.text)
    if cell.mark == "best":
        text = f"**{text}**"
    text = f"{MARK_SYMBOLS[cell.mark]} {text}".strip()
    if cell.note:
        text += f"<sup>{notes.index(cell.note) + 1}</sup>"
    return f"{text} ({escape_markdown(cell.detail)})" if cell.detail else text


def escape_markdown(text: str) -> str:
    """Escape text for Markdown, including line breaks and `|`, which would end a table's cell."""
    return re.sub(r"([\\`*_|\[\]#~])", r"\\\1", html.escape(text, quote=False)).replace("\n", " ")


def _format_markdown_row(cells: Iterable[str]) -> str:
    return f"| {' | '.join(cells)} |"
