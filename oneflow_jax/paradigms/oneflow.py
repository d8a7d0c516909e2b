"""`oneflow`: one flow moves words and pictures of a document at once, from corrupted to clean.

    text    x_1 = E[id]      x_0 = m + eps         image   x_1 = patch      x_0 = eps
    both    x_t = (1 - t) x_0 + t x_1              slot by slot, with that slot's own t
    sample  dx/dt = v = (x̂_1 - x_t) / (1 - t)      one solver over the whole canvas, or
            x_s = (1 - s) x_0' + s x̂_1             the belief corrupted anew, step by step

Equations, measurements, and why the seed's printed form fails: docs/oneflow.md.
"""

import dataclasses
import functools

import flax.struct
import jax
import jax.numpy as jnp
from clu import metrics

from oneflow_jax import canvas as canvases
from oneflow_jax.canvas import Attend, Canvas, Head, Table, View
from oneflow_jax.errors import UserError
from oneflow_jax.flows import gaussian, predictions, tasks, time_samplers, token_embeddings
from oneflow_jax.paradigms import base, objectives
from oneflow_jax.paradigms.base import Moments, Plan, Sample
from oneflow_jax.samplers import guidance, ode, solve, token_sampling
from oneflow_jax.shapes import Array, Bool, Float, Int, Key, Outputs, Sums


@flax.struct.dataclass
class State:
    """A point of the flow: vectors of the text slots and patches of the image slots."""

    embeds: Float[Array, "*b L E"]
    latents: Float[Array, "*b L C"]


@flax.struct.dataclass
class Targets:
    """What one corrupted row is scored against; `text` and `image` are True where scored."""

    ids: Int[Array, "L"]
    noise: State
    clean: State
    clock: Float[Array, "L"]
    text: Bool[Array, "L"]
    image: Bool[Array, "L"]


@flax.struct.dataclass
class Belief:
    """What the network makes of a state: the clean one, and how its text reads."""

    clean: State
    ids: Int[Array, "*b L"]
    certainty: Float[Array, "*b L"]


@dataclasses.dataclass(frozen=True)
class OneFlow:
    """The seed's OneFlow.

    Attributes:
        objective: how text is learned.
        image: what is predicted of patches.
        channels: numbers in a patch, C.
        mix: the tasks of training.
        clock: how often each time comes in training.
        weights: weight of the terms `text` and `image`.
    """

    objective: objectives.Objective
    image: predictions.Prediction
    channels: int
    mix: tasks.Mix
    clock: time_samplers.Clock
    weights: tuple[tuple[str, float], ...]
    attend = Attend.BIDIRECTIONAL

    @property
    def heads(self) -> tuple[Head, ...]:
        """One for text, as the objective wants it, and one for patches."""
        return (self.objective.head, Head("image", self.channels, "channels", zero=True))

    @property
    def revises(self) -> bool:
        """By taking a document back to an earlier time."""
        return True

    @property
    def in_step(self) -> "OneFlow":
        """The same, showing all of a document at its time u."""
        return dataclasses.replace(self, mix=tasks.ALL, clock=time_samplers.Power())

    def counts(self, canvas: Canvas) -> Sums:
        """The slots of each kind that are not given."""
        return base.slots_to_make(canvas)

    def corrupt(
        self, key: Key[Array, ""], u: Float[Array, "L"], canvas: Canvas, table: Table
    ) -> tuple[View, Targets]:
        """The row with some of it moved toward noise, slot by slot to that slot's own time."""
        key_task, key_text, key_image = jax.random.split(key, 3)
        table = self.objective.table(table)
        draw = self.mix.draw(key_task, self.clock(u), canvas)
        clean = State(embeds=table.rows[canvas.ids], latents=canvas.latents)
        noise = State(
            embeds=self.objective.corrupted(key_text, table, canvas.ids),
            latents=jax.random.normal(key_image, canvas.latents.shape),
        )
        shown = _between(noise, clean, draw.clock)
        targets = Targets(
            ids=canvas.ids,
            noise=noise,
            clean=clean,
            clock=draw.clock,
            text=draw.scored & canvas.is_text,
            image=draw.scored & canvas.is_image,
        )
        return canvases.view(canvas, shown.embeds, shown.latents, draw.clock), targets

    def loss(self, outputs: Outputs, targets: Targets) -> dict[str, metrics.Average]:
        """The terms `text` and `image`."""
        noise, clean, clock = targets.noise, targets.clean, targets.clock
        return {
            "text": self.objective.loss(
                outputs[self.objective.head.name],
                targets.ids,
                noise.embeds,
                clean.embeds,
                clock,
                targets.text,
            ),
            "image": self.image.loss(
                outputs["image"], noise.latents, clean.latents, clock, targets.image
            ),
        }

    def check(self, plan: Plan) -> None:
        """Words are read off a flow, not drawn.

        Raises:
            UserError: the plan says how to draw them.
        """
        if plan.words != token_sampling.Choice():
            raise UserError(
                "sampling.temperature, top_p, order and remask are for paradigms that draw tokens "
                f"(mask_flow, edit_flow); oneflow reads them off its flow. Given: {plan.words}."
            )

    def evaluations(self, plan: Plan) -> int:
        """NFE; each kind of guidance asks the network once more."""
        return plan.schedule.evaluations * guidance.passes(plan.guidance, plan.text_guidance)

    def sample(
        self,
        apply: guidance.Apply,
        table: Table,
        keys: Key[Array, "B"],
        canvas: Canvas,
        plan: Plan,
    ) -> Sample:
        """Carries the free slots from noise to data, all at the same time t.

        Fixed slots stay at t=1. With a start above 0, free slots begin as their given content
        partly turned to noise: that is how a document is revised.
        """
        table = self.objective.table(table)
        given = State(embeds=table.rows[canvas.ids], latents=canvas.latents)
        draw = jax.vmap(functools.partial(self._noise, table))
        noise = draw(keys, canvas)
        apply = guidance.mutual(
            apply,
            canvas,
            heads=(self.objective.head.name, "image"),
            corrupted=(noise.embeds, noise.latents),
            scales=(plan.guidance, plan.text_guidance),
        )

        def belief(t: Float[Array, ""], x: State) -> Belief:
            clock = _clock(canvas, t)
            outputs = apply(canvases.view(canvas, x.embeds, x.latents, clock))
            text = outputs[self.objective.head.name]
            embeds, logits = self.objective.clean(text, x.embeds, clock, table)
            ids, certainty = token_embeddings.reading(logits)
            latents = self.image.clean(outputs["image"], x.latents, clock)
            clean = _where(canvas.free, State(embeds=embeds, latents=latents), given)
            ids = jnp.where(canvas.free & canvas.is_text, ids, canvas.ids)
            return Belief(clean=clean, ids=ids, certainty=jnp.where(canvas.fixed, 1.0, certainty))

        def corrupt(step: Int[Array, ""], s: Float[Array, ""], clean: State) -> State:
            fresh = draw(solve.keys_of_step(keys, step), canvas)
            return _between(fresh, clean, _clock(canvas, s))

        start = _between(noise, given, _clock(canvas, jnp.float32(plan.schedule.times[0])))
        # Where a slot is fixed its belief is what it already is, so it stays where it is.
        solution = solve.solve(
            lambda t, x: belief(t, x).clean, corrupt, start, plan.schedule, plan.record
        )
        last = belief(solution.times[-1], solution.last)
        image = canvas.free & canvas.is_image
        done = canvas.replace(
            ids=last.ids,
            latents=jnp.where(image[..., None], last.clean.latents, canvas.latents),
        )
        passes = self.evaluations(plan)
        if not plan.record:
            return base.finished(done, None, passes)
        beliefs = jax.lax.map(lambda moment: belief(*moment), (solution.times, solution.path))
        return base.finished(done, _moments(canvas, solution, beliefs, last), passes)

    def _noise(self, table: Table, key: Key[Array, ""], canvas: Canvas) -> State:
        key_text, key_image = jax.random.split(key)
        return State(
            embeds=self.objective.start(key_text, table, canvas.ids.shape[0]),
            latents=jax.random.normal(key_image, canvas.latents.shape),
        )


def _between(noise: State, clean: State, clock: Float[Array, "*b L"]) -> State:
    return jax.tree.map(lambda x_0, x_1: gaussian.interpolate(x_0, x_1, clock), noise, clean)


def _where(chosen: Bool[Array, "*b L"], one: State, other: State) -> State:
    return jax.tree.map(lambda x, y: jnp.where(chosen[..., None], x, y), one, other)


def _clock(canvas: Canvas, t: Float[Array, ""]) -> Float[Array, "B L"]:
    return jnp.where(canvas.free, t, 1.0)


def _moments(canvas: Canvas, solution: ode.Solution, beliefs: Belief, last: Belief) -> Moments:
    """The path and what was believed on it, closed by the finished sample at t=1."""

    def close(path: Array, end: Array) -> Array:
        return jnp.concatenate([path, end[None]])

    times = close(solution.times, jnp.float32(1.0))
    path = jax.tree.map(lambda x: jnp.broadcast_to(x, (times.shape[0], *x.shape)), canvas)
    return Moments(
        canvas=path.replace(
            ids=close(beliefs.ids, last.ids),
            latents=close(solution.path.latents, last.clean.latents),
        ),
        clock=jax.vmap(functools.partial(_clock, canvas))(times),
        certainty=close(beliefs.certainty, last.certainty),
        guess=close(beliefs.clean.latents, last.clean.latents),
        times=times,
    )
