"""Stories from canvases: the moments of a sample, as people see them."""

from collections.abc import Sequence

import numpy as np

from oneflow_jax.canvas import Modality
from oneflow_jax.data import layout as layouts
from oneflow_jax.samplers.base import Trajectory
from oneflow_jax.viewer import trajectory


def build_views(
    layout: layouts.Layout,
    batch_trajectory: Trajectory,
    titles: Sequence[str],
    prompts: Sequence[str],
) -> list[trajectory.TrajectoryView]:
    """How each document of a batch came about.

    Args:
        layout: how slots become words and pictures.
        batch_trajectory: of the batch, on the host.
        titles: of each document.
        prompts: of each document.
    """
    end = max(1.0, float(batch_trajectory.times[-1]))
    shown = _decode_images(layout, batch_trajectory)
    return [
        trajectory.TrajectoryView(
            title=titles[b],
            prompt=prompts[b],
            frames=tuple(
                trajectory.Frame(
                    clock=float(t) / end,
                    parts=_make_parts(layout, batch_trajectory, shown, moment, b),
                )
                for moment, t in enumerate(batch_trajectory.times)
            ),
        )
        for b in range(len(titles))
    ]


DecodedImages = dict[tuple[int, int, int], tuple[np.ndarray, np.ndarray]]
"""State and guess of a picture, by moment, document and first slot."""


def _decode_images(layout: layouts.Layout, batch_trajectory: Trajectory) -> DecodedImages:
    """All pictures at all moments, decoded at once, since a codec may be a network."""
    canvas = batch_trajectory.canvas
    found: dict[tuple[int, int, int], tuple[np.ndarray, np.ndarray]] = {}
    for at_moment in np.ndindex(canvas.kind.shape[:2]):
        layers = (x[at_moment] for x in (canvas.kind, canvas.span, canvas.position))
        for kind, at in layouts.iter_parts(*layers):
            if kind == Modality.IMAGE:
                place = (*at_moment, int(at[0]))
                whole = (canvas.ids, canvas.latents, batch_trajectory.guess)
                found[place] = tuple(x[at_moment][at] for x in whole)
    if not found:
        return {}
    ids, latents, guesses = map(np.stack, zip(*found.values(), strict=True))
    states, guesses = (layout.pictures(ids, x) for x in (latents, guesses))
    return dict(zip(found, zip(states, guesses, strict=True), strict=True))


def _make_parts(
    layout: layouts.Layout,
    batch_trajectory: Trajectory,
    decoded_images: DecodedImages,
    step: int,
    b: int,
) -> tuple[trajectory.TextSpan | trajectory.ImageView, ...]:
    """One document at one moment.

    A word's key is its slot, a picture's its first slot, and a run's that of the picture before it,
    below zero: what stays keeps its key when words are inserted.
    """
    canvas, at_moment = batch_trajectory.canvas, (step, b)
    ids, fixed = canvas.ids[at_moment], canvas.fixed[at_moment]
    layers = (x[at_moment] for x in (canvas.kind, canvas.span, canvas.position))
    parts: list[trajectory.TextSpan | trajectory.ImageView] = []
    before = 0
    for kind, at in layouts.iter_parts(*layers):
        given = bool(fixed[at].all())
        clock = 1.0 if given else float(np.mean(batch_trajectory.clock[at_moment][at[~fixed[at]]]))
        if kind == Modality.IMAGE:
            before = int(at[0])
            state, guess = decoded_images[step, b, before]
            parts.append(
                trajectory.ImageView(
                    key=before,
                    state=state,
                    guess=guess,
                    clock=clock,
                    given=given,
                )
            )
        elif not np.isin(ids[at], layout.silent).all():
            words = tuple(
                trajectory.TokenView(
                    key=int(slot),
                    text=layout.vocab.piece(int(ids[slot])),
                    certainty=float(np.clip(batch_trajectory.certainty[at_moment][slot], 0, 1)),
                    given=bool(fixed[slot]),
                )
                for slot in at
                if ids[slot] not in layout.silent
            )
            parts.append(trajectory.TextSpan(key=~before, words=words, clock=clock, given=given))
    return tuple(parts)
