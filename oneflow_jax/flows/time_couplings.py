"""Time couplings: how the times of text and images of one document depend on each other.

Paradigms that insert items use these couplings. A coupling is drawn for each document of the task
`joint`; in training, documents of all other tasks have the coupling `independent`.

    interleaved   images are inserted while text is generated, with the times (12) of `deletion`
    independent   text and each image have independent times; all images are present
    together      text and images share one time
    edited        the document is complete but has errors, see `edit_corruption`
"""

import dataclasses

import flax.struct
import jax
import jax.numpy as jnp

from oneflow_jax.canvas import Canvas
from oneflow_jax.flows import deletion, tasks, time_samplers
from oneflow_jax.shapes import Array, Bool, Float, Int, Key

NAMES = ("interleaved", "independent", "together", "edited")

MIN_EDIT_TIME = 0.5
"""Lowest time of `edited` documents: at lower times more than half of the items would be wrong."""


@flax.struct.dataclass
class CoupledTimes:
    """Times of one row.

    Attributes:
        text: text time of each slot's document.
        image: time of each slot's image; negative if the image is not inserted yet.
        images_inserted: True in documents whose coupling is `interleaved`.
        edited: True in documents whose coupling is `edited`.
    """

    text: Float[Array, "*b L"]
    image: Float[Array, "*b L"]
    images_inserted: Bool[Array, "*b L"]
    edited: Bool[Array, "*b L"]


@dataclasses.dataclass(frozen=True)
class TimeCoupling:
    """Distribution of time couplings.

    Attributes:
        probs: probabilities of the couplings, in the order of `NAMES`; their sum is 1.
        time_sampler: distribution of t in training, for `independent` and `together`.
        other_tasks: coupling of documents of all tasks other than `joint`.
    """

    probs: tuple[float, ...]
    time_sampler: time_samplers.TimeSampler
    other_tasks: str = "independent"

    @property
    def supports_editing(self) -> bool:
        """Whether training includes documents whose coupling is `edited`."""
        return self.probs[NAMES.index("edited")] > 0

    def sample(
        self, key: Key[Array, ""], u: Float[Array, "L"], canvas: Canvas, task: Int[Array, "L"]
    ) -> CoupledTimes:
        """Sample the times of one row.

        Args:
            key: PRNG key.
            u: uniform number of each slot's document.
            canvas: clean row.
            task: index into `tasks.NAMES` of the task of each slot's document.
        """
        key_schedule, key_birth, key_text, key_image = jax.random.split(key, 4)
        which = tasks.sample_per_group(key_schedule, self.probs, canvas.segment)
        joint = task == tasks.NAMES.index("joint")
        which = jnp.where(joint, which, NAMES.index(self.other_tasks))
        interleaved, _, together, edited = (which == n for n in range(len(NAMES)))
        # u is stratified, and text and images must not share it. Adding an independent uniform
        # number, modulo 1, gives each of them a uniform number that is independent of the others.
        apart_text = jnp.mod(u + tasks.uniform_per_group(key_text, canvas.segment), 1.0)
        apart_image = jnp.mod(u + tasks.uniform_per_group(key_image, canvas.span), 1.0)
        text = self.time_sampler(jnp.where(together, u, apart_text))
        image = self.time_sampler(jnp.where(together, u, apart_image))
        text = jnp.where(interleaved, jnp.minimum(2 * u, 1.0), text)
        insert_time = tasks.uniform_per_group(key_birth, canvas.span)
        return CoupledTimes(
            text=jnp.where(edited, MIN_EDIT_TIME + (1 - MIN_EDIT_TIME) * u, text),
            image=jnp.where(interleaved, deletion.interleaved_time(u, insert_time), image),
            images_inserted=interleaved,
            edited=edited,
        )


SHARED = TimeCoupling(
    probs=(0.0, 0.0, 1.0, 0.0),
    time_sampler=time_samplers.PowerTimeSampler(),
    other_tasks="together",
)
"""Time coupling that always draws `together`: all slots of a document share one time."""
