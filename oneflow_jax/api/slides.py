"""All states of a document under one slider, as HTML that needs no other file."""

import dataclasses
import html
from collections.abc import Sequence

import PIL.Image

from oneflow_jax.api import markup
from oneflow_jax.api.state import SamplingStep
from oneflow_jax.errors import UserError
from oneflow_jax.viewer import fonts, trajectory

_SLIDER_HANDLER = (
    "const all=this.closest('[data-slides]').querySelectorAll('[data-slide]');"
    "all.forEach((one,at)=>one.style.display=at==this.value?'':'none')"
)
"""What the slider does: handlers in the markup work wherever scripts of their own are left out."""

_BOX_STYLE = (
    "max-width: 44em; padding: .8em 1.2em; "
    f"background: {fonts.BACKGROUND_COLOR}; color: {fonts.TEXT_COLOR}"
)
_TEXT_STYLE = "font: 1.15em/1.6 serif; margin: .3em 0; overflow-wrap: anywhere"
_IMAGE_PAIR_STYLE = "display: inline-flex; gap: .8em; margin: .3em 1.6em .3em 0"
_SLIDER_STYLE = (
    f"width: 24em; max-width: 60%; vertical-align: middle; accent-color: {fonts.ACCENT_COLOR}"
)
_CAPTION_STYLE = f"font: .75em sans-serif; color: {fonts.MUTED_COLOR}"


@dataclasses.dataclass(frozen=True)
class TrajectoryViewer:
    """Every step of a document under a slider; notebooks show it.

    Words come out of their masks as they become certain; each picture stands as it is, noise and
    all, beside the clean one that the network believes in.

    Attributes:
        states: as `Model.stream` gives them; one at least.

    Raises:
        UserError: there is none.
    """

    states: Sequence[SamplingStep]

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
            f'<div data-slide style="{"" if at == last else "display: none"}">'
            f"{_render_step(state)}</div>"
            for at, state in enumerate(self.states)
        )
        return (
            f'<div data-slides style="{_BOX_STYLE}"><label style="{_CAPTION_STYLE}">corrupted '
            f'<input type="range" aria-label="step" min="0" max="{last}" value="{last}" '
            f'style="{_SLIDER_STYLE}" oninput="{_SLIDER_HANDLER}"> '
            f"clean</label>{shown}</div>"
        )


def _render_step(step: SamplingStep) -> str:
    body = "".join(
        _render_text(part) if isinstance(part, trajectory.TextSpan) else _render_image(part)
        for part in step.frame.parts
    )
    return f'<p style="{_CAPTION_STYLE}">t = {step.t:.2f}</p>{body}'


def _render_text(span: trajectory.TextSpan) -> str:
    spoken = "".join(_render_token(word) for word in span.words)
    return f'<p style="{_TEXT_STYLE}">{spoken}</p>' if spoken.strip() else ""


def _render_token(token: trajectory.TokenView) -> str:
    sure = token.legibility()
    ink = fonts.mix_colors(fonts.MASK_COLOR, fonts.TEXT_COLOR, sure)
    color = fonts.GIVEN_COLOR if token.given else f"rgb{ink}"
    block = "transparent" if sure > 0.5 else fonts.MASK_COLOR
    text = html.escape(token.text)
    return f'<span style="color: {color}; background: {block}">{text}</span>'


def _render_image(view: trajectory.ImageView) -> str:
    shown = [(view.state, "as it stands")]
    if view.guess is not None and not view.given:
        shown.append((view.guess, "what the network expects"))
    figures = "".join(
        f'<figure style="margin: 0">{markup.render_image(PIL.Image.fromarray(pixels))}'
        f'<figcaption style="{_CAPTION_STYLE}">{caption}</figcaption></figure>'
        for pixels, caption in shown
    )
    return f'<div style="{_IMAGE_PAIR_STYLE}">{figures}</div>'
