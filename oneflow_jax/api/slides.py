"""All states of a document under one slider, as HTML that needs no other file."""

import dataclasses
import html
from collections.abc import Sequence

import PIL.Image

from oneflow_jax.api import markup
from oneflow_jax.api.state import State
from oneflow_jax.errors import UserError
from oneflow_jax.viewer import fonts, trajectory

_MOVE = (
    "const all=this.closest('[data-slides]').querySelectorAll('[data-slide]');"
    "all.forEach((one,at)=>one.style.display=at==this.value?'':'none')"
)
"""What the slider does: handlers in the markup work wherever scripts of their own are left out."""

_BOX = f"max-width: 44em; padding: .8em 1.2em; background: {fonts.PAPER}; color: {fonts.INK}"
_LETTERS = "font: 1.15em/1.6 serif; margin: .3em 0; overflow-wrap: anywhere"
_PAIR = "display: inline-flex; gap: .8em; margin: .3em 1.6em .3em 0"
_SLIDER = f"width: 24em; max-width: 60%; vertical-align: middle; accent-color: {fonts.ACCENT}"
_CAPTION = f"font: .75em sans-serif; color: {fonts.MUTED}"


@dataclasses.dataclass(frozen=True)
class Slides:
    """Every step of a document under a slider; notebooks show it.

    Words come out of their masks as they become certain; each picture stands as it is, noise and
    all, beside the clean one that the network believes in.

    Attributes:
        states: as `Model.stream` gives them; one at least.

    Raises:
        UserError: there is none.
    """

    states: Sequence[State]

    def __post_init__(self) -> None:
        object.__setattr__(self, "states", tuple(self.states))
        if not self.states:
            raise UserError("Slides: there are no states: give those of `Model.stream`, as a list.")

    def _repr_html_(self) -> str:
        """What notebooks show."""
        return self.html()

    def html(self) -> str:
        """The finished document, and what came before it under the slider."""
        last = len(self.states) - 1
        shown = "".join(
            f'<div data-slide style="{"" if at == last else "display: none"}">{_drawn(state)}</div>'
            for at, state in enumerate(self.states)
        )
        return (
            f'<div data-slides style="{_BOX}"><label style="{_CAPTION}">corrupted '
            f'<input type="range" aria-label="step" min="0" max="{last}" value="{last}" '
            f'style="{_SLIDER}" oninput="{_MOVE}"> '
            f"clean</label>{shown}</div>"
        )


def _drawn(state: State) -> str:
    body = "".join(
        _words(part) if isinstance(part, trajectory.TextRun) else _picture(part)
        for part in state.frame.parts
    )
    return f'<p style="{_CAPTION}">t = {state.t:.2f}</p>{body}'


def _words(run: trajectory.TextRun) -> str:
    spoken = "".join(_word(word) for word in run.words)
    return f'<p style="{_LETTERS}">{spoken}</p>' if spoken.strip() else ""


def _word(word: trajectory.Word) -> str:
    sure = word.legibility()
    ink = fonts.mixed(fonts.MASK, fonts.INK, sure)
    color = fonts.GIVEN if word.given else f"rgb{ink}"
    block = "transparent" if sure > 0.5 else fonts.MASK
    text = html.escape(word.text)
    return f'<span style="color: {color}; background: {block}">{text}</span>'


def _picture(part: trajectory.Picture) -> str:
    shown = [(part.state, "as it stands")]
    if part.guess is not None and not part.given:
        shown.append((part.guess, "what the network expects"))
    figures = "".join(
        f'<figure style="margin: 0">{markup.picture(PIL.Image.fromarray(pixels))}'
        f'<figcaption style="{_CAPTION}">{caption}</figcaption></figure>'
        for pixels, caption in shown
    )
    return f'<div style="{_PAIR}">{figures}</div>'
