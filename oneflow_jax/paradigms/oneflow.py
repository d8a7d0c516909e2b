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
from oneflow_jax.canvas import AttentionPattern, Canvas, EmbeddingTable, Head, NoisyCanvas
from oneflow_jax.errors import UserError
from oneflow_jax.flows import gaussian, predictions, tasks, time_samplers, token_embeddings
from oneflow_jax.paradigms import base, objectives
from oneflow_jax.samplers import guidance, ode, solve, token_sampling
from oneflow_jax.samplers.base import SampleOutput, SamplingPlan, Trajectory, make_output
from oneflow_jax.shapes import Array, Bool, Float, Int, Key, Outputs, Sums


@flax.struct.dataclass
class FlowState:
    """A point of the flow: vectors of the text slots and patches of the image slots."""

    embeds: Float[Array, "*b L E"]
    latents: Float[Array, "*b L C"]


@flax.struct.dataclass
class Targets:
    """What one corrupted row is scored against; `text` and `image` are True where scored."""

    ids: Int[Array, "L"]
    noise: FlowState
    clean: FlowState
    clock: Float[Array, "L"]
    text: Bool[Array, "L"]
    image: Bool[Array, "L"]


@flax.struct.dataclass
class Prediction:
    """What the network makes of a state: the clean one, and how its text reads."""

    clean: FlowState
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

    objective: objectives.TextObjective
    image: predictions.PredictionType
    channels: int
    mix: tasks.TaskMixture
    clock: time_samplers.TimeSampler
    weights: tuple[tuple[str, float], ...]
    attend = AttentionPattern.BIDIRECTIONAL

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
        return dataclasses.replace(
            self, mix=tasks.ALL_TARGETS, clock=time_samplers.PowerTimeSampler()
        )

    def counts(self, canvas: Canvas) -> Sums:
        """The slots of each kind that are not given."""
        return base.target_counts(canvas)

    def corrupt(
        self, key: Key[Array, ""], u: Float[Array, "L"], canvas: Canvas, table: EmbeddingTable
    ) -> tuple[NoisyCanvas, Targets]:
        """The row with some of it moved toward noise, slot by slot to that slot's own time."""
        key_task, key_text, key_image = jax.random.split(key, 3)
        table = self.objective.table(table)
        draw = self.mix.draw(key_task, self.clock(u), canvas)
        clean = FlowState(embeds=table.rows[canvas.ids], latents=canvas.latents)
        noise = FlowState(
            embeds=self.objective.sample_x0_train(key_text, table, canvas.ids),
            latents=jax.random.normal(key_image, canvas.latents.shape),
        )
        shown = _interpolate(noise, clean, draw.clock)
        targets = Targets(
            ids=canvas.ids,
            noise=noise,
            clean=clean,
            clock=draw.clock,
            text=draw.scored & canvas.is_text,
            image=draw.scored & canvas.is_image,
        )
        return canvases.noisy_canvas(canvas, shown.embeds, shown.latents, draw.clock), targets

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

    def check(self, plan: SamplingPlan) -> None:
        """Words are read off a flow, not drawn.

        Raises:
            UserError: the plan says how to draw them.
        """
        if plan.words != token_sampling.TokenSampling():
            raise UserError(
                "sampling.temperature, top_p, order and remask are for paradigms that draw tokens "
                f"(mask_flow, edit_flow); oneflow reads them off its flow. Given: {plan.words}."
            )

    def evaluations(self, plan: SamplingPlan) -> int:
        """NFE; each kind of guidance asks the network once more."""
        return plan.schedule.evaluations * guidance.nfe_factor(plan.guidance, plan.text_guidance)

    def sample(
        self,
        apply: guidance.ApplyFn,
        table: EmbeddingTable,
        keys: Key[Array, "B"],
        canvas: Canvas,
        plan: SamplingPlan,
    ) -> SampleOutput:
        """Carries the free slots from noise to data, all at the same time t.

        Fixed slots stay at t=1. With a start above 0, free slots begin as their given content
        partly turned to noise: that is how a document is revised.
        """
        table = self.objective.table(table)
        given = FlowState(embeds=table.rows[canvas.ids], latents=canvas.latents)
        draw = jax.vmap(functools.partial(self._noise, table))
        noise = draw(keys, canvas)
        apply = guidance.cross_modal_cfg(
            apply,
            canvas,
            heads=(self.objective.head.name, "image"),
            placeholders=(noise.embeds, noise.latents),
            scales=(plan.guidance, plan.text_guidance),
        )

        def belief(t: Float[Array, ""], x: FlowState) -> Prediction:
            clock = _slot_times(canvas, t)
            outputs = apply(canvases.noisy_canvas(canvas, x.embeds, x.latents, clock))
            text = outputs[self.objective.head.name]
            embeds, logits = self.objective.clean(text, x.embeds, clock, table)
            ids, certainty = token_embeddings.greedy_decode(logits)
            latents = self.image.clean(outputs["image"], x.latents, clock)
            clean = _select(canvas.free, FlowState(embeds=embeds, latents=latents), given)
            ids = jnp.where(canvas.free & canvas.is_text, ids, canvas.ids)
            return Prediction(
                clean=clean, ids=ids, certainty=jnp.where(canvas.fixed, 1.0, certainty)
            )

        def corrupt(step: Int[Array, ""], s: Float[Array, ""], clean: FlowState) -> FlowState:
            fresh = draw(solve.step_keys(keys, step), canvas)
            return _interpolate(fresh, clean, _slot_times(canvas, s))

        start = _interpolate(noise, given, _slot_times(canvas, jnp.float32(plan.schedule.times[0])))
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
            return make_output(done, None, passes)
        beliefs = jax.lax.map(lambda moment: belief(*moment), (solution.times, solution.path))
        return make_output(done, _make_trajectory(canvas, solution, beliefs, last), passes)

    def _noise(self, table: EmbeddingTable, key: Key[Array, ""], canvas: Canvas) -> FlowState:
        key_text, key_image = jax.random.split(key)
        return FlowState(
            embeds=self.objective.start(key_text, table, canvas.ids.shape[0]),
            latents=jax.random.normal(key_image, canvas.latents.shape),
        )


def _interpolate(x0: FlowState, x1: FlowState, time: Float[Array, "*b L"]) -> FlowState:
    return jax.tree.map(lambda x_0, x_1: gaussian.interpolate(x_0, x_1, time), x0, x1)


def _select(mask: Bool[Array, "*b L"], on_true: FlowState, on_false: FlowState) -> FlowState:
    return jax.tree.map(lambda x, y: jnp.where(mask[..., None], x, y), on_true, on_false)


def _slot_times(canvas: Canvas, t: Float[Array, ""]) -> Float[Array, "B L"]:
    return jnp.where(canvas.free, t, 1.0)


def _make_trajectory(
    canvas: Canvas, solution: ode.Solution, path_predictions: Prediction, final: Prediction
) -> Trajectory:
    """The path and what was believed on it, closed by the finished sample at t=1."""

    def close(path: Array, end: Array) -> Array:
        return jnp.concatenate([path, end[None]])

    times = close(solution.times, jnp.float32(1.0))
    path = jax.tree.map(lambda x: jnp.broadcast_to(x, (times.shape[0], *x.shape)), canvas)
    return Trajectory(
        canvas=path.replace(
            ids=close(path_predictions.ids, final.ids),
            latents=close(solution.path.latents, final.clean.latents),
        ),
        clock=jax.vmap(functools.partial(_slot_times, canvas))(times),
        certainty=close(path_predictions.certainty, final.certainty),
        guess=close(path_predictions.clean.latents, final.clean.latents),
        times=times,
    )
