"""Stories from canvases: the moments of a sample, as people see them."""

from collections.abc import Sequence

import numpy as np

from oneflow_jax.canvas import Kind
from oneflow_jax.data import layout as layouts
from oneflow_jax.paradigms import base
from oneflow_jax.viewer import story


def stories(
    layout: layouts.Layout,
    moments: base.Moments,
    titles: Sequence[str],
    prompts: Sequence[str],
) -> list[story.Story]:
    """How each document of a batch came about.

    Args:
        layout: how slots become words and pictures.
        moments: of the batch, on the host.
        titles: of each document.
        prompts: of each document.
    """
    end = max(1.0, float(moments.times[-1]))
    return [
        story.Story(
            title=titles[b],
            prompt=prompts[b],
            frames=tuple(
                story.Frame(clock=float(t) / end, parts=_parts(layout, moments, moment, b))
                for moment, t in enumerate(moments.times)
            ),
        )
        for b in range(len(titles))
    ]


def _parts(
    layout: layouts.Layout, moments: base.Moments, moment: int, b: int
) -> tuple[story.TextRun | story.Picture, ...]:
    """One document at one moment.

    A word's key is its slot, a picture's its first slot, and a run's that of the picture before it,
    below zero: what stays keeps its key when words are inserted.
    """
    canvas, at_moment = moments.canvas, (moment, b)
    ids, latents, fixed = (x[at_moment] for x in (canvas.ids, canvas.latents, canvas.fixed))
    layers = (x[at_moment] for x in (canvas.kind, canvas.span, canvas.position))
    parts: list[story.TextRun | story.Picture] = []
    before = 0
    for kind, at in layouts.parts(*layers):
        given = bool(fixed[at].all())
        clock = 1.0 if given else float(np.mean(moments.clock[at_moment][at[~fixed[at]]]))
        if kind == Kind.IMAGE:
            before = int(at[0])
            guess = moments.guess[at_moment][at]
            parts.append(
                story.Picture(
                    key=before,
                    state=layout.codec.decode(latents[at]),
                    guess=layout.codec.decode(guess),
                    clock=clock,
                    given=given,
                )
            )
        else:
            words = tuple(
                story.Word(
                    key=int(slot),
                    text=layout.vocab.piece(int(ids[slot])),
                    certainty=float(np.clip(moments.certainty[at_moment][slot], 0, 1)),
                    given=bool(fixed[slot]),
                )
                for slot in at
            )
            parts.append(story.TextRun(key=~before, words=words, clock=clock, given=given))
    return tuple(parts)
