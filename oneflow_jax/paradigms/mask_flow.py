"""`mask_flow`: masked tokens are unmasked step by step, while images flow from noise to data.

    text    each token is kept with probability κ(t) = t, else masked         flows/masking.py
    image   x_t = (1 - t) eps + t patch                                       flows/gaussian.py
    loss    κ'/(1-κ) · cross-entropy of masked tokens (weight capped)  +  |v̂ - v|^2
    sample  one forward pass per step: some masked tokens are sampled and then stay (unless
            remasking is on), and images take a step of Euler's method

This is discrete flow matching (Gat et al., 2024) in the form of masked diffusion (Sahoo et al.,
MDLM, 2024; Nie et al., LLaDA, 2025). As in those methods, the network does not get the time of the
text: the time of a text slot in its input is 0 if the token is masked, else 1. Image slots have
their own t.
"""

import dataclasses
import functools

import flax.struct
import jax
import jax.numpy as jnp
from clu import metrics

from oneflow_jax import canvas as canvases
from oneflow_jax.canvas import AttentionPattern, Canvas, EmbeddingTable, Head, NoisyCanvas
from oneflow_jax.flows import gaussian, losses, masking, predictions, tasks, time_samplers
from oneflow_jax.paradigms import base
from oneflow_jax.samplers import guidance, plan_values, token_sampling
from oneflow_jax.samplers.base import (
    Frame,
    SampleOutput,
    SamplingPlan,
    euler_nfe,
    finished_frame,
    make_output,
)
from oneflow_jax.samplers.steps import StepSampler
from oneflow_jax.shapes import Array, Bool, Float, Int, Key, Outputs, Sums


@flax.struct.dataclass
class Targets:
    """Targets of one corrupted row; `text_scored` and `image_scored` are True where scored."""

    ids: Int[Array, "L"]
    noise: Float[Array, "L C"]
    latents: Float[Array, "L C"]
    time: Float[Array, "L"]
    weight: Float[Array, "L"]
    text_scored: Bool[Array, "L"]
    image_scored: Bool[Array, "L"]


@flax.struct.dataclass
class NoisyState:
    """State of partly generated documents; `masked` is True where the token is still masked."""

    ids: Int[Array, "*b L"]
    masked: Bool[Array, "*b L"]
    latents: Float[Array, "*b L C"]


@flax.struct.dataclass
class Interval:
    """The n-th step of the sampler, from time t to time s."""

    step: Int[Array, ""]
    t: Float[Array, ""]
    s: Float[Array, ""]


@dataclasses.dataclass(frozen=True)
class MaskFlow:
    """Masked diffusion for text, with a flow for images.

    Attributes:
        vocab_size: number of token ids, V.
        allowed_ranges: ranges of the ids that may be generated.
        image_prediction: what the network predicts for patches: v or x_1.
        channels: numbers in a patch, C.
        task_mixture: the training tasks and their probabilities.
        time_sampler: the distribution of t in training.
        max_mask_weight: upper limit of the loss weight of a masked token.
        weights: weights of the terms `text` and `image`.
    """

    vocab_size: int
    allowed_ranges: tuple[tuple[int, int], ...]
    image_prediction: predictions.PredictionType
    channels: int
    task_mixture: tasks.TaskMixture
    time_sampler: time_samplers.TimeSampler
    max_mask_weight: float
    weights: tuple[tuple[str, float], ...]
    attention_pattern = AttentionPattern.BIDIRECTIONAL

    @property
    def heads(self) -> tuple[Head, ...]:
        """Two heads: logits of the masked token, and the prediction for patches."""
        return (
            Head("text_logits", self.vocab_size, "vocab"),
            Head("image", self.channels, "channels", zero_init=True),
        )

    @property
    def supports_editing(self) -> bool:
        """True: sampling can mask and noise a document in part, and generate these parts again."""
        return True

    @property
    def at_shared_time(self) -> "MaskFlow":
        """Copy of this paradigm in which all slots of a document have the same time, t = u."""
        return dataclasses.replace(
            self, task_mixture=tasks.ALL_TARGETS, time_sampler=time_samplers.PowerTimeSampler()
        )

    def counts(self, canvas: Canvas) -> Sums:
        """Count the slots of each modality to generate."""
        return base.target_counts(canvas)

    def corrupt(
        self, key: Key[Array, ""], u: Float[Array, "L"], canvas: Canvas, table: EmbeddingTable
    ) -> tuple[NoisyCanvas, Targets]:
        """Mask tokens and interpolate images toward noise, in the slots that the task corrupts.

        All corrupted slots of a document have the document's time t. Conditioning dropout sets the
        condition to t=0: its tokens are masked, and its images are pure noise.
        """
        key_task, key_text, key_image = jax.random.split(key, 3)
        draw = self.task_mixture.sample(key_task, u, canvas, self.time_sampler)
        hidden = canvas.is_text & ~masking.keep_mask(key_text, draw.time)
        noise = jax.random.normal(key_image, canvas.latents.shape)
        latents = gaussian.interpolate(noise, canvas.latents, draw.time)
        targets = Targets(
            ids=canvas.ids,
            noise=noise,
            latents=canvas.latents,
            time=draw.time,
            weight=masking.unmask_rate(draw.time, self.max_mask_weight),
            text_scored=draw.scored & hidden,
            image_scored=draw.scored & canvas.is_image,
        )
        return _make_noisy_canvas(
            canvas, NoisyState(canvas.ids, hidden, latents), draw.time, table
        ), targets

    def loss(self, outputs: Outputs, targets: Targets) -> dict[str, metrics.Average]:
        """Return the loss terms `text` (a bound on -log p in nats) and `image`."""
        return {
            "text": losses.cross_entropy(
                outputs["text_logits"], targets.ids, targets.text_scored, targets.weight
            ),
            "image": self.image_prediction.loss(
                outputs["image"], targets.noise, targets.latents, targets.time, targets.image_scored
            ),
        }

    def validate(self, plan: SamplingPlan) -> None:
        """Check that the plan uses Euler's method, since tokens jump at each step.

        Raises:
            UserError: the plan has another solver.
        """
        base.require_euler("mask_flow", plan)

    def nfe(self, plan: SamplingPlan) -> int:
        """Return the NFE: one pass per step, and one more for each guidance scale other than 1."""
        return euler_nfe(plan)

    def sampler(
        self,
        apply: guidance.ApplyFn,
        table: EmbeddingTable,
        keys: Key[Array, "B"],
        canvas: Canvas,
        plan: SamplingPlan,
    ) -> StepSampler:
        """Unmask tokens and move patches from noise to data, all at the same time t.

        Editing is a plan that starts above t=0: it first masks a part of the document's tokens, and
        interpolates its patches with noise.
        """
        times, count = plan_values.step_times(plan.schedule.times)
        key_noise, key_kept, key_steps = jnp.moveaxis(
            jax.vmap(functools.partial(jax.random.split, num=3))(keys), 1, 0
        )
        noise = jax.vmap(lambda key, x: jax.random.normal(key, x.shape))(key_noise, canvas.latents)
        apply = guidance.cross_modal_cfg(
            apply,
            canvas,
            heads=("text_logits", "image"),
            placeholders=(table.mask_embedding.reshape(1, 1, -1), noise),
            scales=(plan.image_guidance_scale, plan.text_guidance_scale),
        )

        predict = functools.partial(self._predict, apply, table, canvas)

        def step(number: Int[Array, ""], state: NoisyState) -> NoisyState:
            interval = Interval(number, times[number], times[number + 1])
            logits, x1_hat = predict(interval.t, state)
            step_keys = jax.vmap(jax.random.fold_in, (0, None))(key_steps, number)
            read = functools.partial(self._unmask_tokens, plan.token_sampling, interval)
            ids, hidden = jax.vmap(read)(step_keys, logits, state, canvas)
            time, until = (jnp.where(canvas.to_generate, t, 1.0) for t in (interval.t, interval.s))
            return NoisyState(ids, hidden, gaussian.euler_step(state.latents, x1_hat, time, until))

        def make_frame(number: Int[Array, ""], state: NoisyState) -> Frame:
            _, x1_hat = predict(times[number], state)
            return Frame(
                canvas=canvas.replace(ids=state.ids, latents=state.latents),
                time=jnp.where(canvas.to_generate, times[number], 1.0),
                confidence=jnp.where(state.masked, 0.0, 1.0),
                x1_hat=x1_hat,
                run_time=times[number],
            )

        def finish(_: Int[Array, ""], state: NoisyState) -> SampleOutput:
            done = canvas.replace(ids=state.ids, latents=state.latents)
            return make_output(finished_frame(done, 1.0), self.nfe(plan))

        return StepSampler(
            num_steps=count,
            init=lambda: self._init_state(key_kept, noise, canvas, times[0]),
            step=step,
            make_frame=make_frame,
            make_output=finish,
        )

    def _predict(
        self,
        apply: guidance.ApplyFn,
        table: EmbeddingTable,
        canvas: Canvas,
        t: Float[Array, ""],
        state: NoisyState,
    ) -> tuple[Float[Array, "B L V"], Float[Array, "B L C"]]:
        """Return the logits of the tokens and the x1 prediction of the patches."""
        time = jnp.where(canvas.to_generate, t, 1.0)
        outputs = apply(_make_noisy_canvas(canvas, state, time, table))
        x1_hat = self.image_prediction.to_x1(outputs["image"], state.latents, time)
        is_free = (canvas.to_generate & canvas.is_image)[..., None]
        return outputs["text_logits"], jnp.where(is_free, x1_hat, canvas.latents)

    def _init_state(
        self,
        keys: Key[Array, "B"],
        noise: Float[Array, "B L C"],
        canvas: Canvas,
        t: Float[Array, ""],
    ) -> NoisyState:
        time = jnp.where(canvas.to_generate, t, 1.0)
        is_clean = jax.vmap(masking.keep_mask)(keys, time)
        latents = gaussian.interpolate(noise, canvas.latents, time)
        return NoisyState(canvas.ids, canvas.is_text & ~is_clean, latents)

    def _unmask_tokens(
        self,
        sampling: token_sampling.TokenSampling,
        interval: Interval,
        key: Key[Array, ""],
        logits: Float[Array, "L V"],
        state: NoisyState,
        canvas: Canvas,
    ) -> tuple[Int[Array, "L"], Bool[Array, "L"]]:
        """Return the tokens of one row after a step, and which slots are masked after the step."""
        key_token, key_order, key_again = jax.random.split(key, 3)
        legal = token_sampling.allowed_ids(self.allowed_ranges, self.vocab_size)
        drawn = jax.random.categorical(
            key_token, token_sampling.sampling_log_probs(logits, legal, sampling)
        )
        sigma = masking.remask_probability(interval.t, interval.s, sampling.remask_prob)
        unmask_prob = masking.unmask_probability(interval.t, interval.s, sigma)
        confidence = token_sampling.token_probability(logits, drawn)
        now = token_sampling.select_to_unmask(
            key_order, state.masked, unmask_prob, confidence, sampling.unmask_order
        )
        again = canvas.to_generate & canvas.is_text & ~state.masked
        again &= jax.random.uniform(key_again, again.shape) < sigma
        return jnp.where(now, drawn, state.ids), (state.masked & ~now) | again


def _make_noisy_canvas(
    canvas: Canvas, state: NoisyState, time: Float[Array, "*b L"], table: EmbeddingTable
) -> NoisyCanvas:
    """Build the network's input: masked tokens at t=0, other tokens clean at t=1."""
    mask = table.mask_embedding.reshape((1,) * canvas.ids.ndim + table.mask_embedding.shape)
    embeds = jnp.where(state.masked[..., None], mask, table.embedding[state.ids])
    text = jnp.where(state.masked, 0.0, 1.0)
    time = jnp.where(canvas.is_text, text, time)
    return canvases.noisy_canvas(canvas, embeds, state.latents, time)
