"""Stories from canvases: the moments of a sample, as people see them."""

from collections.abc import Sequence

import numpy as np

from oneflow_jax.canvas import Canvas, Kind
from oneflow_jax.data import layout as layouts
from oneflow_jax.paradigms import base
from oneflow_jax.viewer import story


def stories(
    layout: layouts.Layout,
    canvas: Canvas,
    moments: base.Moments,
    times: Sequence[float],
    titles: Sequence[str],
    prompts: Sequence[str],
) -> list[story.Story]:
    """How each document of a batch came about.

    Args:
        layout: how slots become words and pictures.
        canvas: the finished batch, on the host.
        moments: its moments, on the host.
        times: t of each moment, T of them.
        titles: of each document.
        prompts: of each document.
    """
    return [
        story.Story(
            title=titles[b],
            prompt=prompts[b],
            frames=tuple(
                story.Frame(clock=t, parts=_parts(layout, canvas, moments, b, moment, t))
                for moment, t in enumerate(times)
            ),
        )
        for b in range(len(titles))
    ]


def _parts(
    layout: layouts.Layout, canvas: Canvas, moments: base.Moments, b: int, moment: int, t: float
) -> tuple[story.TextRun | story.Picture, ...]:
    fixed = np.asarray(canvas.fixed[b])
    parts: list[story.TextRun | story.Picture] = []
    for kind, at in layouts.spans(np.asarray(canvas.kind[b]), np.asarray(canvas.span[b])):
        given = bool(fixed[at].all())
        key, clock = int(at[0]), 1.0 if given else t
        if kind == Kind.IMAGE:
            parts.append(
                story.Picture(
                    key=key,
                    state=layout.codec.decode(moments.state[moment, b, at]),
                    guess=layout.codec.decode(moments.guess[moment, b, at]),
                    clock=clock,
                    given=given,
                )
            )
        else:
            words = tuple(
                story.Word(
                    key=int(slot),
                    text=layout.vocab.piece(int(moments.ids[moment, b, slot])),
                    certainty=float(np.clip(moments.certainty[moment, b, slot], 0, 1)),
                    given=bool(fixed[slot]),
                )
                for slot in at
            )
            parts.append(story.TextRun(key=key, words=words, clock=clock, given=given))
    return tuple(parts)
