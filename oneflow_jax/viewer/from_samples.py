"""Converts the trajectory of a sampled batch to one `TrajectoryView` per document."""

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
    end_time: float | None = None,
) -> list[trajectory.TrajectoryView]:
    """Build a `TrajectoryView` of each document, with decoded text and images.

    Args:
        layout: layout of the model, which decodes slots to text and images.
        batch_trajectory: trajectory of the batch, in host memory.
        titles: title of each document.
        prompts: prompt of each document.
        end_time: global time that becomes 1; None for the time of the last frame, if it is above 1.
    """
    end = end_time or max(1.0, float(batch_trajectory.run_times[-1]))
    images = _decode_images(layout, batch_trajectory)
    return [
        trajectory.TrajectoryView(
            title=titles[b],
            prompt=prompts[b],
            frames=tuple(
                trajectory.Frame(
                    time=float(t) / end,
                    parts=_make_parts(layout, batch_trajectory, images, moment, b),
                )
                for moment, t in enumerate(batch_trajectory.run_times)
            ),
        )
        for b in range(len(titles))
    ]


DecodedImages = dict[tuple[int, int, int], tuple[np.ndarray, np.ndarray]]
"""Decoded x_t and x1 prediction of each image, by (step, document, first slot)."""


def _decode_images(layout: layouts.Layout, batch_trajectory: Trajectory) -> DecodedImages:
    """Decode the images of all steps in one call, which is faster if the codec is a network."""
    canvas = batch_trajectory.canvas
    images: dict[tuple[int, int, int], tuple[np.ndarray, ...]] = {}
    for at_moment in np.ndindex(canvas.modality.shape[:2]):
        layers = (x[at_moment] for x in (canvas.modality, canvas.span, canvas.position))
        for kind, at in layouts.iter_parts(*layers):
            if kind == Modality.IMAGE:
                place = (*at_moment, int(at[0]))
                whole = (canvas.ids, canvas.latents, batch_trajectory.x1_hat, canvas.position)
                images[place] = tuple(x[at_moment][at] for x in whole)
    states, predictions = (
        layout.decode_images([(each[0], each[which], each[3]) for each in images.values()])
        for which in (1, 2)
    )
    return dict(zip(images, zip(states, predictions, strict=True), strict=True))


def _make_parts(
    layout: layouts.Layout,
    batch_trajectory: Trajectory,
    decoded_images: DecodedImages,
    step: int,
    b: int,
) -> tuple[trajectory.TextSpan | trajectory.ImageView, ...]:
    """Build the parts of document `b` at one step.

    The key of a token is its slot, and the key of an image is its first slot. The key of a text
    span is `~key` of the image before the span. So keys do not change when tokens are inserted.
    """
    canvas, at_moment = batch_trajectory.canvas, (step, b)
    ids, fixed = canvas.ids[at_moment], canvas.is_given[at_moment]
    layers = (x[at_moment] for x in (canvas.modality, canvas.span, canvas.position))
    parts: list[trajectory.TextSpan | trajectory.ImageView] = []
    before = 0
    for kind, at in layouts.iter_parts(*layers):
        is_given = bool(fixed[at].all())
        clock = (
            1.0 if is_given else float(np.mean(batch_trajectory.time[at_moment][at[~fixed[at]]]))
        )
        if kind == Modality.IMAGE:
            before = int(at[0])
            state, prediction = decoded_images[step, b, before]
            parts.append(
                trajectory.ImageView(
                    key=before,
                    x_t=state,
                    x1_hat=prediction,
                    time=clock,
                    given=is_given,
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
            parts.append(trajectory.TextSpan(key=~before, tokens=words, time=clock, given=is_given))
    return tuple(parts)
