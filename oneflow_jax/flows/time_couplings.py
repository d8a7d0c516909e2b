"""At what times the words and the pictures of a document that grows are shown.

Documents of the task `joint` draw one of these, the others are `independent`:

    interleaved   pictures are born on the way, at times (12)
    independent   words and each picture have times of their own; all pictures are there
    together      one time for all
    revised       nothing is absent by its time: the document is finished, with mistakes
"""

import dataclasses

import flax.struct
import jax
import jax.numpy as jnp

from oneflow_jax.canvas import Canvas
from oneflow_jax.flows import deletion, tasks, time_samplers
from oneflow_jax.shapes import Array, Bool, Float, Int, Key

NAMES = ("interleaved", "independent", "together", "revised")

MIN_EDIT_TIME = 0.5
"""First time of revised documents: nothing of one more than half wrong is worth revising."""


@flax.struct.dataclass
class CoupledTimes:
    """When a row is shown; `births` and `revised` never hold together.

    Attributes:
        text: time of each slot's document.
        image: time of each picture; below 0 before its birth.
        births: True in documents whose pictures are born on the way.
        revised: True in documents with mistakes.
    """

    text: Float[Array, "*b L"]
    image: Float[Array, "*b L"]
    births: Bool[Array, "*b L"]
    revised: Bool[Array, "*b L"]


@dataclasses.dataclass(frozen=True)
class TimeCoupling:
    """How often each is drawn.

    Attributes:
        shares: probability of each of `NAMES`, in that order; they add up to 1.
        clock: how often each time comes in training, of `independent` and `together`.
    """

    shares: tuple[float, ...]
    clock: time_samplers.TimeSampler

    @property
    def revises(self) -> bool:
        """Whether documents with mistakes are ever shown."""
        return self.shares[NAMES.index("revised")] > 0

    def draw(
        self, key: Key[Array, ""], u: Float[Array, "L"], canvas: Canvas, task: Int[Array, "L"]
    ) -> CoupledTimes:
        """The times of one row; `u` and `task`, of `tasks.NAMES`, are each document's."""
        key_schedule, key_birth, key_text, key_image = jax.random.split(key, 4)
        which = tasks.sample_per_group(key_schedule, self.shares, canvas.segment)
        joint = task == tasks.NAMES.index("joint")
        births, _, together, revised = (joint & (which == n) for n in range(len(NAMES)))
        # Sums of a stratified and a free number, modulo 1, are uniform and independent.
        apart_text = jnp.mod(u + tasks.uniform_per_group(key_text, canvas.segment), 1.0)
        apart_image = jnp.mod(u + tasks.uniform_per_group(key_image, canvas.span), 1.0)
        text = self.clock(jnp.where(together, u, apart_text))
        image = self.clock(jnp.where(together, u, apart_image))
        text = jnp.where(births, jnp.minimum(2 * u, 1.0), text)
        birth = tasks.uniform_per_group(key_birth, canvas.span)
        return CoupledTimes(
            text=jnp.where(revised, MIN_EDIT_TIME + (1 - MIN_EDIT_TIME) * u, text),
            image=jnp.where(births, deletion.interleaved_time(u, birth), image),
            births=births,
            revised=revised,
        )


SHARED = TimeCoupling(shares=(0.0, 0.0, 1.0, 0.0), clock=time_samplers.PowerTimeSampler())
"""Everything at the document's own time."""
