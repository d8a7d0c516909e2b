"""`oneflow`: one flow moves the text and images of a document at once, from noise to data.

    text    x_1 = E[id]      x_0 = m + eps         image   x_1 = patch      x_0 = eps
    both    x_t = (1 - t) x_0 + t x_1              each slot has its own t
    sample  dx/dt = v = (x̂_1 - x_t) / (1 - t)      one ODE solver over the whole canvas, or
            x_s = (1 - s) x_0' + s x̂_1             renoising: fresh noise x_0' at each step
            X_{t,s}(x_t), X_{t,1}(x_t)              or a flow map (`flows.flow_map`), if trained

docs/oneflow.md has the equations, the measurements, and the reason why the naive text objective
fails.
"""

import dataclasses
import functools
from collections.abc import Sequence

import flax.struct
import jax
import jax.numpy as jnp
from clu import metrics

from oneflow_jax import canvas as canvases
from oneflow_jax.canvas import AttentionPattern, Canvas, EmbeddingTable, Head, NoisyCanvas
from oneflow_jax.errors import UserError
from oneflow_jax.flows import (
    gaussian,
    predictions,
    tasks,
    text_lead,
    time_samplers,
    token_embeddings,
)
from oneflow_jax.paradigms import base, objectives
from oneflow_jax.samplers import guidance, plan_values, solve, token_sampling
from oneflow_jax.samplers.base import Frame, SampleOutput, SamplingPlan, make_output
from oneflow_jax.samplers.steps import StepSampler
from oneflow_jax.shapes import Array, Bool, Float, Int, Key, Outputs, PyTree, Sums


@flax.struct.dataclass
class FlowState:
    """A state x_t of the flow: embeddings of the text slots and patches of the image slots.

    With a confidence threshold, `final_ids` are the tokens that sampling no longer changes, and -1
    in all other slots.
    """

    embeds: Float[Array, "*b L E"]
    latents: Float[Array, "*b L C"]
    final_ids: Int[Array, "*b L"] | None = None


@flax.struct.dataclass
class Targets:
    """Targets of one corrupted row; `text_scored` and `image_scored` are True where scored."""

    ids: Int[Array, "L"]
    x0: FlowState
    x1: FlowState
    time: Float[Array, "L"]
    text_scored: Bool[Array, "L"]
    image_scored: Bool[Array, "L"]


@flax.struct.dataclass
class Prediction:
    """The x1 prediction for a state x_t, and its text as token ids with their confidence."""

    x1_hat: FlowState
    ids: Int[Array, "*b L"]
    confidence: Float[Array, "*b L"]


@dataclasses.dataclass(frozen=True)
class OneFlow:
    """One flow for text embeddings and image patches.

    Attributes:
        objective: noise, prediction and loss of text.
        image_prediction: what the network predicts for patches: v or x_1.
        channels: numbers in a patch, C.
        task_mixture: the training tasks and their probabilities.
        time_sampler: the distribution of t in training.
        weights: weights of the terms `text` and `image`.
        text_time_sampler: the distribution of t of text whose time is not that of an image
            (`tasks.SEPARATE_TEXT_TIMES`); None means `time_sampler`.
        text_lead: how far the other text is ahead of the images of its document, in training and
            sampling (`flows.text_lead`); 1 means that both have the same time.
    """

    objective: objectives.TextObjective
    image_prediction: predictions.PredictionType
    channels: int
    task_mixture: tasks.TaskMixture
    time_sampler: time_samplers.TimeSampler
    weights: tuple[tuple[str, float], ...]
    text_time_sampler: time_samplers.TimeSampler | None = None
    text_lead: float = 1.0
    attention_pattern = AttentionPattern.BIDIRECTIONAL

    @property
    def heads(self) -> tuple[Head, ...]:
        """Two heads: the one for text that the objective defines, and one for patches."""
        return (self.objective.head, Head("image", self.channels, "channels", zero_init=True))

    @property
    def supports_editing(self) -> bool:
        """True: sampling can interpolate a document with noise, and generate from there."""
        return True

    @property
    def at_shared_time(self) -> "OneFlow":
        """Copy of this paradigm in which all slots of a document have the same time, t = u."""
        return dataclasses.replace(
            self,
            task_mixture=tasks.ALL_TARGETS,
            time_sampler=time_samplers.PowerTimeSampler(),
            text_time_sampler=None,
        )

    def counts(self, canvas: Canvas) -> Sums:
        """Count the slots of each modality to generate."""
        return base.target_counts(canvas)

    def corrupt(
        self, key: Key[Array, ""], u: Float[Array, "L"], canvas: Canvas, table: EmbeddingTable
    ) -> tuple[NoisyCanvas, Targets]:
        """Interpolate the slots that the drawn task corrupts toward noise.

        All corrupted slots of a document have the document's time t. Conditioning dropout sets the
        condition to t=0, which is pure noise.
        """
        key_task, *keys = jax.random.split(key, 3)
        draw = self.task_mixture.sample(
            key_task, u, canvas, self.time_sampler, self.text_time_sampler, self.text_lead
        )
        noise, clean = self.sample_states(keys, canvas, table)
        noisy = interpolate(noise, clean, draw.time)
        targets = Targets(
            ids=canvas.ids,
            x0=noise,
            x1=clean,
            time=draw.time,
            text_scored=draw.scored & canvas.is_text,
            image_scored=draw.scored & canvas.is_image,
        )
        return canvases.noisy_canvas(canvas, noisy.embeds, noisy.latents, draw.time), targets

    def sample_states(
        self, keys: Sequence[Key[Array, ""]], canvas: Canvas, table: EmbeddingTable
    ) -> tuple[FlowState, FlowState]:
        """Return noise x_0, with a key for text and one for images, and the clean states x_1."""
        table = self.objective.prepare_table(table)
        key_text, key_image = keys
        noise = FlowState(
            embeds=self.objective.sample_x0_train(key_text, table, canvas.ids),
            latents=jax.random.normal(key_image, canvas.latents.shape),
        )
        return noise, FlowState(embeds=table.embedding[canvas.ids], latents=canvas.latents)

    def loss(self, outputs: Outputs, targets: Targets) -> dict[str, metrics.Average]:
        """Return the loss terms `text` and `image`."""
        noise, clean, time = targets.x0, targets.x1, targets.time
        return {
            "text": self.objective.loss(
                outputs[self.objective.head.name],
                targets.ids,
                noise.embeds,
                clean.embeds,
                time,
                targets.text_scored,
            ),
            "image": self.image_prediction.loss(
                outputs["image"], noise.latents, clean.latents, time, targets.image_scored
            ),
        }

    def validate(self, plan: SamplingPlan) -> None:
        """Check that the plan has no settings for sampling tokens: oneflow decodes text greedily.

        Raises:
            UserError: the plan has such a setting.
        """
        if plan.token_sampling != token_sampling.TokenSampling():
            raise UserError(
                "sampling.temperature, top_p, top_k, unmask_order and remask_prob are for "
                "paradigms that sample tokens; oneflow decodes its text greedily. Leave them at "
                f"their defaults. Given: {plan.token_sampling}."
            )

    def nfe(self, plan: SamplingPlan) -> int:
        """Return the solver's NFE, multiplied by 1 + number of guidance scales other than 1."""
        return plan.schedule.nfe * guidance.nfe_factor(
            plan.image_guidance_scale, plan.text_guidance_scale
        )

    def sampler(
        self,
        apply: guidance.ApplyFn,
        table: EmbeddingTable,
        keys: Key[Array, "B"],
        canvas: Canvas,
        plan: SamplingPlan,
    ) -> StepSampler:
        """Move all slots that are not given from noise to data; text is ahead by `text_lead`.

        Given slots stay at t=1. With a confidence threshold, each token whose probability exceeds
        it is final: from then on its slot is clean, at t=1, like a given slot. Editing is a plan
        that starts above t=0: the slots to generate then start from the document's content,
        interpolated with noise to that time.
        """
        table = self.objective.prepare_table(table)
        # The solver's text is y of `flows.text_lead`, whose clean state is `text_lead` x_1.
        content = FlowState(self.text_lead * table.embedding[canvas.ids], canvas.latents)
        draw = jax.vmap(functools.partial(self._sample_noise, table))
        noise = draw(keys, canvas)
        apply = guidance.cross_modal_cfg(
            apply,
            canvas,
            heads=(self.objective.head.name, "image"),
            placeholders=(noise.embeds, noise.latents),
            scales=(plan.image_guidance_scale, plan.text_guidance_scale),
        )
        threshold = plan.confidence_threshold
        predict = functools.partial(self._predict, apply, table, canvas, content, threshold)
        final_ids = _no_final_ids(canvas, threshold)
        times, count = plan_values.step_times(plan.schedule.times)

        def corrupt(step: Int[Array, ""], s: Float[Array, ""], clean: FlowState) -> FlowState:
            fresh = draw(solve.step_keys(keys, step), canvas)
            return interpolate(fresh, clean, _document_times(canvas, s), clean.final_ids)

        # For given slots, `predict` returns their own content, so the solver does not change them.
        stepper = solve.make_stepper(
            lambda t, end, state: predict(t, end, state).x1_hat, corrupt, plan.schedule
        )

        def make_frame(step: Int[Array, ""], carry: tuple[FlowState, PyTree]) -> Frame:
            t, (state, _) = times[step], carry
            prediction = predict(t, solve.last_prediction_end(plan.schedule, t), state)
            return self._make_frame(canvas, t, state, prediction)

        def finish(_: Int[Array, ""], carry: tuple[FlowState, PyTree]) -> SampleOutput:
            last = make_frame(jnp.int32(count - 1), carry)
            return make_output(_last_frame(canvas, last), self.nfe(plan))

        return StepSampler(
            num_steps=count,
            init=lambda: stepper.init(
                interpolate(noise, content, _document_times(canvas, times[0]), final_ids)
            ),
            step=stepper.step,
            make_frame=make_frame,
            make_output=finish,
            last_in_output=True,
        )

    def _make_frame(
        self, canvas: Canvas, t: Float[Array, ""], state: FlowState, prediction: Prediction
    ) -> Frame:
        return Frame(
            canvas=canvas.replace(ids=prediction.ids, latents=state.latents),
            time=self._slot_times(canvas, t, state.final_ids),
            confidence=prediction.confidence,
            x1_hat=prediction.x1_hat.latents,
            run_time=t,
        )

    def _predict(
        self,
        apply: guidance.ApplyFn,
        table: EmbeddingTable,
        canvas: Canvas,
        content: FlowState,
        confidence_threshold: plan_values.Number,
        t: Float[Array, ""],
        end: Float[Array, ""],
        state: FlowState,
    ) -> Prediction:
        view = self._make_noisy_canvas(table, canvas, t, end, state)
        outputs = apply(view)
        text = outputs[self.objective.head.name]
        embeds, logits = self.objective.to_x1(text, view.embeds, view.time, table)
        ids, confidence = token_embeddings.greedy_decode(logits)
        final_ids = state.final_ids
        if final_ids is not None:
            ids = jnp.where(final_ids >= 0, final_ids, ids)
            is_sure = canvas.to_generate & canvas.is_text & (confidence > confidence_threshold)
            final_ids = jnp.where(is_sure, ids, final_ids)
        latents = self.image_prediction.to_x1(outputs["image"], view.latents, view.time)
        clean = FlowState(embeds=self.text_lead * embeds, latents=latents)
        return Prediction(
            x1_hat=_select(canvas.to_generate, clean, content).replace(final_ids=final_ids),
            ids=jnp.where(canvas.to_generate & canvas.is_text, ids, canvas.ids),
            confidence=jnp.where(canvas.is_given, 1.0, confidence),
        )

    def _make_noisy_canvas(
        self,
        table: EmbeddingTable,
        canvas: Canvas,
        t: Float[Array, ""],
        end: Float[Array, ""],
        state: FlowState,
    ) -> NoisyCanvas:
        """Return the network's input for a state of the solver at time t of the documents."""
        embeds = text_lead.normalize(state.embeds, _document_times(canvas, t), self.text_lead)
        if state.final_ids is not None:
            is_final = (state.final_ids >= 0)[..., None]
            embeds = jnp.where(is_final, table.embedding[state.final_ids], embeds)
        time = self._slot_times(canvas, t, state.final_ids)
        interval = self._slot_times(canvas, end, state.final_ids) - time
        return canvases.noisy_canvas(canvas, embeds, state.latents, time, interval)

    def _slot_times(
        self, canvas: Canvas, t: Float[Array, ""], final_ids: Int[Array, "B L"] | None
    ) -> Float[Array, "B L"]:
        time = _document_times(canvas, t)
        time = jnp.where(canvas.is_text, text_lead.text_time(time, self.text_lead), time)
        return time if final_ids is None else jnp.where(final_ids >= 0, 1.0, time)

    def _sample_noise(
        self, table: EmbeddingTable, key: Key[Array, ""], canvas: Canvas
    ) -> FlowState:
        key_text, key_image = jax.random.split(key)
        return FlowState(
            embeds=self.objective.sample_x0(key_text, table, canvas.ids.shape[0]),
            latents=jax.random.normal(key_image, canvas.latents.shape),
        )


def interpolate(
    x0: FlowState,
    x1: FlowState,
    time: Float[Array, "*b L"],
    final_ids: Int[Array, "*b L"] | None = None,
) -> FlowState:
    """Interpolate text and images between noise and data, with a time for each slot."""
    return FlowState(
        embeds=gaussian.interpolate(x0.embeds, x1.embeds, time),
        latents=gaussian.interpolate(x0.latents, x1.latents, time),
        final_ids=final_ids,
    )


def _no_final_ids(
    canvas: Canvas, confidence_threshold: plan_values.Number
) -> Int[Array, "B L"] | None:
    if plan_values.is_neutral(confidence_threshold, 1.0):
        return None
    return jnp.full(canvas.ids.shape, -1)


def _document_times(canvas: Canvas, t: Float[Array, ""]) -> Float[Array, "B L"]:
    return jnp.where(canvas.to_generate, t, 1.0)


def _select(mask: Bool[Array, "*b L"], on_true: FlowState, on_false: FlowState) -> FlowState:
    return jax.tree.map(lambda x, y: jnp.where(mask[..., None], x, y), on_true, on_false)


def _last_frame(canvas: Canvas, last: Frame) -> Frame:
    """Return the frame at t=1, whose images are the x1 prediction of the last step."""
    image = (canvas.to_generate & canvas.is_image)[..., None]
    return last.replace(
        canvas=last.canvas.replace(latents=jnp.where(image, last.x1_hat, canvas.latents)),
        time=jnp.ones(canvas.ids.shape),
        run_time=jnp.float32(1.0),
    )
