"""Stories from canvases: the moments of a sample, as people see them."""

from collections.abc import Sequence

import numpy as np

from oneflow_jax.canvas import Kind
from oneflow_jax.data import layout as layouts
from oneflow_jax.paradigms import base
from oneflow_jax.viewer import trajectory


def stories(
    layout: layouts.Layout,
    moments: base.Moments,
    titles: Sequence[str],
    prompts: Sequence[str],
) -> list[trajectory.Story]:
    """How each document of a batch came about.

    Args:
        layout: how slots become words and pictures.
        moments: of the batch, on the host.
        titles: of each document.
        prompts: of each document.
    """
    end = max(1.0, float(moments.times[-1]))
    shown = _pictures(layout, moments)
    return [
        trajectory.Story(
            title=titles[b],
            prompt=prompts[b],
            frames=tuple(
                trajectory.Frame(
                    clock=float(t) / end, parts=_parts(layout, moments, shown, moment, b)
                )
                for moment, t in enumerate(moments.times)
            ),
        )
        for b in range(len(titles))
    ]


Pictures = dict[tuple[int, int, int], tuple[np.ndarray, np.ndarray]]
"""State and guess of a picture, by moment, document and first slot."""


def _pictures(layout: layouts.Layout, moments: base.Moments) -> Pictures:
    """All pictures at all moments, decoded at once, since a codec may be a network."""
    canvas = moments.canvas
    found: dict[tuple[int, int, int], tuple[np.ndarray, np.ndarray]] = {}
    for at_moment in np.ndindex(canvas.kind.shape[:2]):
        layers = (x[at_moment] for x in (canvas.kind, canvas.span, canvas.position))
        for kind, at in layouts.parts(*layers):
            if kind == Kind.IMAGE:
                place = (*at_moment, int(at[0]))
                whole = (canvas.ids, canvas.latents, moments.guess)
                found[place] = tuple(x[at_moment][at] for x in whole)
    if not found:
        return {}
    ids, latents, guesses = map(np.stack, zip(*found.values(), strict=True))
    states, guesses = (layout.pictures(ids, x) for x in (latents, guesses))
    return dict(zip(found, zip(states, guesses, strict=True), strict=True))


def _parts(
    layout: layouts.Layout, moments: base.Moments, shown: Pictures, moment: int, b: int
) -> tuple[trajectory.TextRun | trajectory.Picture, ...]:
    """One document at one moment.

    A word's key is its slot, a picture's its first slot, and a run's that of the picture before it,
    below zero: what stays keeps its key when words are inserted.
    """
    canvas, at_moment = moments.canvas, (moment, b)
    ids, fixed = canvas.ids[at_moment], canvas.fixed[at_moment]
    layers = (x[at_moment] for x in (canvas.kind, canvas.span, canvas.position))
    parts: list[trajectory.TextRun | trajectory.Picture] = []
    before = 0
    for kind, at in layouts.parts(*layers):
        given = bool(fixed[at].all())
        clock = 1.0 if given else float(np.mean(moments.clock[at_moment][at[~fixed[at]]]))
        if kind == Kind.IMAGE:
            before = int(at[0])
            state, guess = shown[moment, b, before]
            parts.append(
                trajectory.Picture(
                    key=before,
                    state=state,
                    guess=guess,
                    clock=clock,
                    given=given,
                )
            )
        elif not np.isin(ids[at], layout.silent).all():
            words = tuple(
                trajectory.Word(
                    key=int(slot),
                    text=layout.vocab.piece(int(ids[slot])),
                    certainty=float(np.clip(moments.certainty[at_moment][slot], 0, 1)),
                    given=bool(fixed[slot]),
                )
                for slot in at
                if ids[slot] not in layout.silent
            )
            parts.append(trajectory.TextRun(key=~before, words=words, clock=clock, given=given))
    return tuple(parts)
