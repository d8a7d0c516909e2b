"""Converts the trajectory of a sampled batch to one view per document."""

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
    """Build a view of each document's trajectory.

    Args:
        layout: decoder of slots to text and images.
        batch_trajectory: trajectory of the batch, on the host.
        titles: title of each document.
        prompts: prompt of each document.
    """
    end = max(1.0, float(batch_trajectory.run_times[-1]))
    shown = _decode_images(layout, batch_trajectory)
    return [
        trajectory.TrajectoryView(
            title=titles[b],
            prompt=prompts[b],
            frames=tuple(
                trajectory.Frame(
                    time=float(t) / end,
                    parts=_make_parts(layout, batch_trajectory, shown, moment, b),
                )
                for moment, t in enumerate(batch_trajectory.run_times)
            ),
        )
        for b in range(len(titles))
    ]


DecodedImages = dict[tuple[int, int, int], tuple[np.ndarray, np.ndarray]]
"""Decoded x_t and x1 prediction of an image, by step, document and first slot."""


def _decode_images(layout: layouts.Layout, batch_trajectory: Trajectory) -> DecodedImages:
    """Decode the images of all steps in one call, because the codec may be a network."""
    canvas = batch_trajectory.canvas
    found: dict[tuple[int, int, int], tuple[np.ndarray, np.ndarray]] = {}
    for at_moment in np.ndindex(canvas.modality.shape[:2]):
        layers = (x[at_moment] for x in (canvas.modality, canvas.span, canvas.position))
        for kind, at in layouts.iter_parts(*layers):
            if kind == Modality.IMAGE:
                place = (*at_moment, int(at[0]))
                whole = (canvas.ids, canvas.latents, batch_trajectory.x1_hat)
                found[place] = tuple(x[at_moment][at] for x in whole)
    if not found:
        return {}
    ids, latents, guesses = map(np.stack, zip(*found.values(), strict=True))
    states, guesses = (layout.decode_images(ids, x) for x in (latents, guesses))
    return dict(zip(found, zip(states, guesses, strict=True), strict=True))


def _make_parts(
    layout: layouts.Layout,
    batch_trajectory: Trajectory,
    decoded_images: DecodedImages,
    step: int,
    b: int,
) -> tuple[trajectory.TextSpan | trajectory.ImageView, ...]:
    """Build the parts of a document at one step.

    The key of a token is its slot. The key of an image is its first slot. The key of a text span is
    `~key` of the image before it. So keys stay the same when tokens are inserted.
    """
    canvas, at_moment = batch_trajectory.canvas, (step, b)
    ids, fixed = canvas.ids[at_moment], canvas.is_given[at_moment]
    layers = (x[at_moment] for x in (canvas.modality, canvas.span, canvas.position))
    parts: list[trajectory.TextSpan | trajectory.ImageView] = []
    before = 0
    for kind, at in layouts.iter_parts(*layers):
        given = bool(fixed[at].all())
        clock = 1.0 if given else float(np.mean(batch_trajectory.time[at_moment][at[~fixed[at]]]))
        if kind == Modality.IMAGE:
            before = int(at[0])
            state, guess = decoded_images[step, b, before]
            parts.append(
                trajectory.ImageView(
                    key=before,
                    x_t=state,
                    x1_hat=guess,
                    time=clock,
                    given=given,
                )
            )
        elif not np.isin(ids[at], layout.marker_ids).all():
            slots = [slot for slot in at if ids[slot] not in layout.marker_ids]
            words = tuple(
                trajectory.TokenView(
                    key=int(slot),
                    text=text,
                    confidence=float(np.clip(batch_trajectory.confidence[at_moment][slot], 0, 1)),
                    given=bool(fixed[slot]),
                    final=step == len(batch_trajectory.run_times) - 1,
                )
                for slot, text in zip(slots, layout.vocab.to_pieces(ids[slots]), strict=True)
            )
            parts.append(trajectory.TextSpan(key=~before, tokens=words, time=clock, given=given))
    return tuple(parts)
