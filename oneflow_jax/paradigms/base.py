"""What the training step and the sampler ask of a family of models.

One object owns corruption, loss and sampler, so that training and sampling cannot disagree.
"""

import dataclasses
from typing import Protocol

import flax.struct
import jax
import jax.numpy as jnp
from clu import metrics

from oneflow_jax.canvas import Attend, Canvas, Head, Table, View
from oneflow_jax.errors import UserError
from oneflow_jax.samplers import guidance, ode, token_sampling
from oneflow_jax.shapes import Array, Bool, Float, Int, Key, Outputs, PyTree, Sums


@dataclasses.dataclass(frozen=True)
class Plan:
    """How to sample; hashable, so static under jit.

    Attributes:
        schedule: solver and times.
        guidance: scale of classifier-free guidance of pictures by words; 1 is none.
        text_guidance: of words by pictures.
        words: how tokens are drawn, where they are drawn.
        record: whether to return the moments on the way.
    """

    schedule: ode.Schedule
    guidance: float = 1.0
    text_guidance: float = 1.0
    words: token_sampling.Choice = dataclasses.field(default_factory=token_sampling.Choice)
    record: bool = False

    @property
    def revises(self) -> bool:
        """Whether what is made starts late, from a finished document."""
        return self.schedule.times[0] > 0


@flax.struct.dataclass
class Moments:
    """A sample on its way, for people to look at: T moments, the last of them the finished sample.

    Attributes:
        canvas: as it stood, fields `[T B L ...]`: `ids` are what text slots read as, `latents` x_t.
        clock: each slot's own time.
        certainty: of each text slot's token, 0 (hidden) to 1 (settled).
        guess: the clean patch that the network believes in.
        times: the time of the run as a whole, 0 to 1, or up to 2 where pictures are born; below 0
            for moments that never came.
    """

    canvas: Canvas
    clock: Float[Array, "T B L"]
    certainty: Float[Array, "T B L"]
    guess: Float[Array, "T B L C"]
    times: Float[Array, "T"]


@flax.struct.dataclass
class Sample:
    """Finished canvases, and how they came about if that was asked for.

    Attributes:
        canvas: finished.
        moments: on the way.
        passes: forward passes that it took, NFE.
        full: True for rows in which there was no room for something that was to be inserted.
    """

    canvas: Canvas
    moments: Moments | None
    passes: Int[Array, ""]
    full: Bool[Array, "B"]


def slots_to_make(canvas: Canvas) -> Sums:
    """How many slots of each kind are not given: what loss terms per slot are divided by."""
    return {
        "text": jnp.sum(canvas.free & canvas.is_text).astype(jnp.float32),
        "image": jnp.sum(canvas.free & canvas.is_image).astype(jnp.float32),
    }


def finished(canvas: Canvas, moments: Moments | None, passes: int) -> Sample:
    """A sample of as many passes as planned, on a canvas that cannot overflow."""
    full = jnp.zeros(canvas.ids.shape[0], bool)
    return Sample(canvas=canvas, moments=moments, passes=jnp.int32(passes), full=full)


def no_moments(canvas: Canvas, count: int) -> Moments:
    """Room for `count` moments of a batch that have not come yet."""
    path = jax.tree.map(lambda x: jnp.zeros((count, *x.shape), x.dtype), canvas)
    return Moments(
        canvas=path,
        clock=jnp.ones(path.ids.shape),
        certainty=jnp.ones(path.ids.shape),
        guess=path.latents,
        times=jnp.full(count, -1.0),
    )


def one_pass_a_step(plan: Plan) -> int:
    """NFE of Euler's method; each kind of guidance asks the network once more."""
    return len(plan.schedule.times) * guidance.passes(plan.guidance, plan.text_guidance)


def check_euler(name: str, plan: Plan) -> None:
    """Refuses other solvers than Euler's for a paradigm whose words jump at each step.

    Raises:
        UserError: the plan has another.
    """
    if plan.schedule.solver != "euler":
        raise UserError(
            f"sampling.solver={plan.schedule.solver!r}: {name} takes one forward pass a step, for "
            "words and pictures together; its solver is 'euler'."
        )


def check_left_to_right(name: str, plan: Plan) -> None:
    """Refuses what a paradigm that writes from left to right cannot do.

    Raises:
        UserError: the plan is to revise, to remask, to read in another order, or to guide words.
    """
    if plan.revises:
        raise UserError(f"{name} writes from left to right, and cannot revise a document.")
    if (plan.words.order, plan.words.remask) != (token_sampling.Choice().order, 0.0):
        raise UserError(
            f"sampling.order and remask are for mask_flow; {name} writes from left to right. "
            f"Given: {plan.words}."
        )
    if plan.text_guidance != 1.0:
        raise UserError(
            f"sampling.text_guidance={plan.text_guidance}: {name} has its pictures guided by words "
            "(sampling.guidance), but not words by pictures; give 1.0."
        )


class Paradigm(Protocol):
    """How one family of models corrupts, scores and samples a canvas.

    Implementations are frozen, hashable dataclasses without arrays: static under jit. `counts`,
    `corrupt` and `loss` see one row, `sample` a batch.
    """

    @property
    def heads(self) -> tuple[Head, ...]:
        """What the network must predict of every slot."""

    @property
    def attend(self) -> Attend:
        """What a slot may see."""

    @property
    def weights(self) -> tuple[tuple[str, float], ...]:
        """The weight of each loss term, by name; the words' own first."""

    @property
    def revises(self) -> bool:
        """Whether it can look over a finished document: sample from a plan that starts late."""

    @property
    def in_step(self) -> "Paradigm":
        """The same, showing all of a document at its time u: as sampling does, not training."""

    def counts(self, canvas: Canvas) -> Sums:
        """By what each term's total is divided: a function of the clean canvas alone."""

    def corrupt(
        self, key: Key[Array, ""], u: Float[Array, "L"], canvas: Canvas, table: Table
    ) -> tuple[View, PyTree]:
        """What the network is shown, and the targets for `loss`.

        Args:
            key: the row's own randomness.
            u: a number in [0, 1) for each document, spread over its slots: its time, before any
                change of distribution.
            canvas: the clean row.
            table: the vocabulary as vectors, live: gradients flow into it.
        """

    def loss(self, outputs: Outputs, targets: PyTree) -> dict[str, metrics.Average]:
        """Totals and numbers of scored slots of each term, for one row."""

    def check(self, plan: Plan) -> None:
        """Refuses a plan that asks for what this paradigm cannot do.

        Raises:
            UserError: it does.
        """

    def evaluations(self, plan: Plan) -> int:
        """NFE: the forward passes that `sample` takes for one batch, as far as the plan has a say.

        0 where it has none; `Sample.passes` says how many there were.
        """

    def sample(
        self,
        apply: guidance.Apply,
        table: Table,
        keys: Key[Array, "B"],
        canvas: Canvas,
        plan: Plan,
    ) -> Sample:
        """Makes every slot that is not fixed, of all rows at once; a key for each row."""
