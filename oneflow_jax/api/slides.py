"""Self-contained HTML page with a slider that shows each sampling step of a document."""

import dataclasses
import os
import pathlib
from collections.abc import Sequence
from typing import NamedTuple

import PIL.Image

from oneflow_jax.api import markup, output_path
from oneflow_jax.api.state import SamplingStep
from oneflow_jax.errors import UserError
from oneflow_jax.viewer import filmstrip, fonts, templates, trajectory


@dataclasses.dataclass(frozen=True)
class TrajectoryViewer:
    """HTML viewer of a document with a slider over all sampling steps; notebooks display it.

    The higher the confidence of a token, the more opaque the token is. Each image x_t is shown next
    to its x1 prediction.

    Attributes:
        steps: steps from `Model.stream`, at least one.

    Raises:
        UserError: `steps` is empty.

    Examples:
        >>> viewer = of.TrajectoryViewer(list(model.stream("<text> <image>", steps=4)))
        >>> html = viewer.html()
    """

    steps: Sequence[SamplingStep]

    def __post_init__(self) -> None:
        object.__setattr__(self, "steps", tuple(self.steps))
        if not self.steps:
            raise UserError("steps is empty. Give the steps of `Model.stream`, as a list.")

    def _repr_html_(self) -> str:
        """Return the HTML that notebooks show."""
        return self.html()

    def save(self, path: str | os.PathLike[str]) -> pathlib.Path:
        """Write the steps to a file, create missing folders, and return the file's path.

        The ending of the path selects the format:

            .html           one self-contained page with the slider
            .gif, .webp     animation
            .png            film strip: each step in a row

        Raises:
            UserError: the path has another ending.
        """
        path = output_path.prepare(path, (".html", ".gif", ".webp", ".png"))
        frames = tuple(step.frame for step in self.steps)
        if path.suffix == ".html":
            title = self.steps[-1].document.text
            path.write_text(markup.render_page(title, self.html()), encoding="utf-8")
        elif path.suffix == ".png":
            view = trajectory.TrajectoryView("", "", frames)
            filmstrip.write_filmstrip(path, view, range(len(frames)))
        else:
            filmstrip.write_animation(path, frames)
        return path

    def html(self) -> str:
        """Return the HTML of the viewer, which initially shows the finished document."""
        steps = [(step.t, _describe_parts(step.frame)) for step in self.steps]
        return templates.render("slides.html", steps=steps)


class _ColoredToken(NamedTuple):
    """A token with its CSS colors."""

    text: str
    color: str
    background: str


def _describe_parts(frame: trajectory.Frame) -> list[tuple[str, object]]:
    """List the parts for the template: ("text", tokens) or ("images", images by caption)."""
    return [
        ("text", [_color_token(token) for token in part.tokens])
        if isinstance(part, trajectory.TextSpan)
        else ("images", _caption_images(part))
        for part in frame.parts
        if not isinstance(part, trajectory.TextSpan) or part.tokens
    ]


def _color_token(token: trajectory.TokenView) -> _ColoredToken:
    """Color a generated token by its confidence, and a given token in `fonts.GIVEN_COLOR`."""
    opacity = token.opacity()
    text_rgb = fonts.mix_colors(fonts.MASK_COLOR, fonts.TEXT_COLOR, opacity)
    color = fonts.GIVEN_COLOR if token.given else f"rgb{text_rgb}"
    return _ColoredToken(token.text, color, "transparent" if opacity > 0.5 else fonts.MASK_COLOR)


def _caption_images(view: trajectory.ImageView) -> dict[str, PIL.Image.Image]:
    """Return an image's state x_t and, if the model predicts it, its x1 prediction, by caption."""
    images = {"state x_t": PIL.Image.fromarray(view.x_t)}
    if view.x1_hat is not None and not view.given:
        images["x1 prediction"] = PIL.Image.fromarray(view.x1_hat)
    return images
