"""Training tasks: which slots of each document are corrupted.

One model serves every task, because a task is drawn for each training document:

    task            corrupted slots                        trains
    joint           all slots                              generation of text and images together
    text_to_image   all images                             images from text
    image_to_text   all text                               text from images
    spans           random text runs and images            infilling of interleaved documents
    scattered       random tokens and images               infilling and editing
    own_run_times   all slots; a time for each text run    how runs and images depend on each other
    own_slot_times  all slots; a time for each token       how tokens depend on each other
    text_first      all slots; a time for each token,      how tokens depend on each other when no
                    images at t = 0                        image shows what they name

All slots of an image have the same time. Slots that are not corrupted are clean, at time t = 1, and
are not scored. For conditioning dropout, the text of a fraction of the `text_to_image` documents is
*dropped*: it has time t = 0, so the network sees pure noise, and it is not scored. In the same way,
a fraction of the `image_to_text` documents have their images dropped.
"""

import dataclasses
from collections.abc import Callable, Mapping, Sequence

import flax.struct
import jax
import jax.numpy as jnp

from oneflow_jax.canvas import Canvas
from oneflow_jax.flows import text_lead
from oneflow_jax.shapes import Array, Bool, Float, Int, Key

NAMES = (
    "joint",
    "text_to_image",
    "image_to_text",
    "spans",
    "scattered",
    "own_run_times",
    "own_slot_times",
    "text_first",
)

OWN_TIMES = ("own_run_times", "own_slot_times", "text_first")
"""Tasks in which the slots that are corrupted have several times."""

SEPARATE_TEXT_TIMES = ("image_to_text", *OWN_TIMES)
"""Tasks in which the time of a text differs from the times of the images."""


@flax.struct.dataclass
class TaskDraw:
    """The tasks drawn for one training row.

    Attributes:
        scored: True where the slot is corrupted and its clean content is a target.
        time: time of every slot: drawn by the time sampler where scored, 0 where dropped, 1
            elsewhere.
        task: index into `NAMES` of the task of each slot's document.
    """

    scored: Bool[Array, "*b L"]
    time: Float[Array, "*b L"]
    task: Int[Array, "*b L"]


@dataclasses.dataclass(frozen=True)
class TaskMixture:
    """Distribution of training tasks.

    Attributes:
        probs: probabilities of the tasks, in the order of `NAMES`; their sum is 1.
        cond_drop_prob: probability that the text of a `text_to_image` document, or the images of
            an `image_to_text` document, are dropped. Inside a jitted function it may be an array.
    """

    probs: tuple[float, ...]
    cond_drop_prob: float | Float[Array, ""]

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the tasks that are drawn; those with separate times are kinds of `joint`."""
        probs = merge_into_joint(self.probs)
        return tuple(name for name, prob in zip(NAMES, probs, strict=True) if prob > 0)

    def sample(
        self,
        key: Key[Array, ""],
        u: Float[Array, "L"],
        canvas: Canvas,
        time_sampler: Callable[[Float[Array, "L"]], Float[Array, "L"]],
        text_time_sampler: Callable[[Float[Array, "L"]], Float[Array, "L"]] | None = None,
        lead: float = 1.0,
    ) -> TaskDraw:
        """Sample a task for each document of one row.

        Args:
            key: PRNG key.
            u: uniform number in [0, 1) of each slot's document.
            canvas: clean row.
            time_sampler: increasing function from uniform numbers to times.
            text_time_sampler: the function for text whose time is not that of an image, in the
                tasks `SEPARATE_TEXT_TIMES`; None means `time_sampler`.
            lead: how far text is ahead of the images in the other tasks (`text_lead`).
        """
        key_task, key_drop, key_fraction, key_span, key_slot, *own_keys = jax.random.split(key, 7)
        task = sample_per_group(key_task, self.probs, canvas.segment)
        is_task = {name: task == number for number, name in enumerate(NAMES)}
        fraction = uniform_per_group(key_fraction, canvas.segment)
        by_span = uniform_per_group(key_span, canvas.span) < fraction
        by_slot = jax.random.uniform(key_slot, u.shape) < fraction
        all_slots = jnp.ones_like(canvas.is_text)
        chosen = jnp.select(
            list(is_task.values()),
            [
                all_slots,
                canvas.is_image,
                canvas.is_text,
                by_span,
                jnp.where(canvas.is_text, by_slot, by_span),
                *[all_slots] * len(OWN_TIMES),
            ],
            default=False,  # jnp.select's own default, the integer 0, would make the mask int.
        )
        u = _replace_own_times(own_keys, u, canvas, is_task)
        scored = canvas.to_generate & chosen
        dropped = _is_condition(task, canvas) & (
            uniform_per_group(key_drop, canvas.segment) < self.cond_drop_prob
        )
        document_time = time_sampler(u)
        text_time = jnp.where(
            jnp.isin(task, jnp.array([NAMES.index(name) for name in SEPARATE_TEXT_TIMES])),
            (text_time_sampler or time_sampler)(u),
            text_lead.text_time(document_time, lead),
        )
        image_time = jnp.where(is_task["text_first"], 0.0, document_time)
        t = jnp.where(canvas.is_text, text_time, image_time)
        time = jnp.where(dropped, 0.0, jnp.where(scored, t, 1.0))
        return TaskDraw(scored=scored, time=time, task=task)


def _replace_own_times(
    keys: Sequence[Key[Array, ""]],
    u: Float[Array, "L"],
    canvas: Canvas,
    is_task: Mapping[str, Bool[Array, "L"]],
) -> Float[Array, "L"]:
    """Return u with a number of its own for each text run and image, or token, in `OWN_TIMES`."""
    key_run, key_slot = keys
    by_run = uniform_per_group(key_run, canvas.span)
    by_slot = jnp.where(canvas.is_text, jax.random.uniform(key_slot, u.shape), by_run)
    u = jnp.where(is_task["own_run_times"], by_run, u)
    return jnp.where(is_task["own_slot_times"] | is_task["text_first"], by_slot, u)


def _is_condition(task: Int[Array, "L"], canvas: Canvas) -> Bool[Array, "L"]:
    """Return the mask of slots that another modality is generated from, except given slots."""
    return canvas.to_generate & (
        (canvas.is_text & (task == NAMES.index("text_to_image")))
        | (canvas.is_image & (task == NAMES.index("image_to_text")))
    )


def single_task(name: str) -> TaskMixture:
    """Return the task mixture that always draws the task `name`, without conditioning dropout."""
    return TaskMixture(tuple(float(name == task) for task in NAMES), cond_drop_prob=0.0)


def merge_into_joint(probs: tuple[float, ...]) -> tuple[float, ...]:
    """Return probabilities with those of tasks in which slots have separate times given to `joint`.

    The other tasks have one time for all slots that they corrupt.
    """
    own = sum(probs[NAMES.index(name)] for name in OWN_TIMES)
    kept = {
        name: 0.0 if name in OWN_TIMES else prob for name, prob in zip(NAMES, probs, strict=True)
    }
    kept["joint"] += own
    return tuple(kept.values())


ALL_TARGETS = single_task("joint")
"""Task mixture that always draws the task `joint`: all slots are corrupted except given ones."""


def sample_per_group(
    key: Key[Array, ""], probs: tuple[float, ...], group_ids: Int[Array, "L"]
) -> Int[Array, "L"]:
    """Sample one index into `probs` per group (document or span); its slots share the index."""
    return jnp.searchsorted(
        jnp.cumsum(jnp.array(probs[:-1])), uniform_per_group(key, group_ids), "right"
    )


def uniform_per_group(key: Key[Array, ""], group_ids: Int[Array, "L"]) -> Float[Array, "L"]:
    """Sample one uniform number per group (document or span); its slots share the number."""
    # Group ids range from 0 to at most L, so L + 1 samples are enough for any row.
    return jax.random.uniform(key, (group_ids.shape[0] + 1,))[group_ids]
