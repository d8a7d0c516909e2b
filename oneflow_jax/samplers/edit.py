"""Sampler of `edit_flow`: tokens and images are inserted until every slot has time t = 1.

The global time τ follows the plan's time grid from 0 to 1, and then the same grid again from 1 to
2. Tokens are inserted while τ < 1. An image that the prompt asks for has time τ, at most 1; an
image that the model inserts at τ' has time τ - τ'. Editing starts with τ at the first time of the
plan and with every item of the document at t = 1. Without guidance, each step takes one forward
pass.
"""

import dataclasses
import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp

from oneflow_jax import canvas as canvases
from oneflow_jax.canvas import Canvas, EmbeddingTable, InsertPolicy, NoisyCanvas
from oneflow_jax.flows import deletion, gaussian, predictions
from oneflow_jax.samplers import edit_ops, guidance, insertion, plan_values, token_sampling
from oneflow_jax.samplers.base import Frame, SampleOutput, SamplingPlan
from oneflow_jax.samplers.steps import StepSampler
from oneflow_jax.shapes import Array, Bool, Float, Int, Key, Outputs

RowOp = Callable[..., insertion.GrowingCanvas]
"""Function that applies one kind of edit operation to one row in one step."""


@dataclasses.dataclass(frozen=True)
class EditSampler:
    """Generates documents from prompts by insertion, and edits finished documents.

    Attributes:
        token_space: token ids that may be inserted.
        image_prediction: prediction type of patches.
        condition_on_text_time: whether the network gets the text time as the time of BOS.
        plan: sampling plan.
    """

    token_space: token_sampling.TokenSpace
    image_prediction: predictions.PredictionType
    condition_on_text_time: bool
    plan: SamplingPlan

    def run_time(self, step: Int[Array, ""]) -> Float[Array, ""]:
        """Return the global time τ before a step; text changes until 1, images from 0 to 2."""
        times, count = plan_values.step_times(self.plan.schedule.times)
        start, later = times[0], times[jnp.maximum(step - count, 0)]
        return jnp.where(step < count, times[step], 1 + (later - start) / (1 - start))

    def bind(
        self, apply: guidance.ApplyFn, table: EmbeddingTable, keys: Key[Array, "B"], canvas: Canvas
    ) -> StepSampler:
        """Return the steps for a batch of prompts or documents, with one PRNG key per row."""
        key_noise, key_steps = jnp.moveaxis(jax.vmap(jax.random.split)(keys), 1, 0)
        noise = jax.vmap(lambda key, x: jax.random.normal(key, x.shape))(key_noise, canvas.latents)
        apply = self._with_guidance(apply)

        def init() -> insertion.GrowingCanvas:
            if self.plan.is_edit:
                return jax.vmap(insertion.from_document)(canvas)
            return jax.vmap(insertion.from_prompt)(canvas, noise)

        def predict(
            t: Float[Array, ""], rows: insertion.GrowingCanvas
        ) -> tuple[Outputs, Float[Array, "B L C"]]:
            """Return the network's outputs and the x1 prediction of the patches."""
            outputs, time = apply(self._make_noisy_canvas(rows, t, table)), rows.slot_times(t)
            x1_hat = self.image_prediction.to_x1(outputs["image"], rows.canvas.latents, time)
            return outputs, jnp.where((time < 1)[..., None], x1_hat, rows.canvas.latents)

        def step(n: Int[Array, ""], rows: insertion.GrowingCanvas) -> insertion.GrowingCanvas:
            t, s = self.run_time(n), self.run_time(n + 1)
            outputs, x1_hat = predict(t, rows)
            latents = gaussian.euler_step(
                rows.canvas.latents, x1_hat, rows.slot_times(t), rows.slot_times(s)
            )
            grown = rows.replace(canvas=rows.canvas.replace(latents=latents))
            step_keys = jax.vmap(jax.random.fold_in, (0, None))(key_steps, n)
            for n_change, change in enumerate(self._ops):
                key = jax.vmap(jax.random.fold_in, (0, None))(step_keys, n_change)
                grown = jax.vmap(functools.partial(change, t, s))(key, outputs, grown, noise)
            return grown

        def make_frame(n: Int[Array, ""], rows: insertion.GrowingCanvas) -> Frame:
            tau = self.run_time(n)
            _, x1_hat = predict(tau, rows)
            return _make_frame(rows, x1_hat, tau)

        return StepSampler(
            num_steps=2 * plan_values.count_steps(self.plan.schedule.times),
            init=init,
            step=step,
            make_frame=make_frame,
            make_output=lambda n, rows: self._make_output(rows, n, self.run_time(n)),
            is_active=lambda n, rows: _is_active(rows, self.run_time(n)),
            end_time=2.0,
        )

    def _make_output(
        self, rows: insertion.GrowingCanvas, step: Int[Array, ""], run_time: Float[Array, ""]
    ) -> SampleOutput:
        return SampleOutput(
            canvas=rows.canvas,
            frame=_make_frame(rows, rows.canvas.latents, run_time),
            nfe=step
            * guidance.nfe_factor(self.plan.image_guidance_scale, self.plan.text_guidance_scale),
            truncated=rows.truncated,
        )

    @property
    def _ops(self) -> tuple[RowOp, ...]:
        # Edit existing items before inserting new ones, for which the network has no prediction
        # yet.
        return (self._edit, self._insert) if self.plan.is_edit else (self._insert,)

    def _edit(
        self,
        t: Float[Array, ""],
        s: Float[Array, ""],
        key: Key[Array, ""],
        outputs: Outputs,
        row: insertion.GrowingCanvas,
        noise: Float[Array, "L C"],
    ) -> insertion.GrowingCanvas:
        """Apply the deletions and substitutions of one step to one row."""
        key_op, key_word = jax.random.split(key)
        share = deletion.insert_probability(t, jnp.minimum(s, 1.0), jnp.float32(1.0))
        share = jnp.where(t < 1 - insertion.TIME_EPS, share, 0.0)
        judged = row.canvas.to_generate & (row.canvas.is_text | (row.slot_times(t) == 1))
        legal = token_sampling.allowed_ids(
            (self.token_space.text_id_range,), self.token_space.vocab_size
        )
        log_p = token_sampling.sampling_log_probs(
            outputs["word_logits"], legal, self.plan.token_sampling
        )
        return edit_ops.apply_edit_ops(
            row,
            edit_ops.sample_edit_ops(key_op, outputs["fate"], share, judged, row.canvas),
            jax.random.categorical(key_word, log_p),
            noise=noise,
            run_time=s,
        )

    def _insert(
        self,
        t: Float[Array, ""],
        s: Float[Array, ""],
        key: Key[Array, ""],
        outputs: Outputs,
        row: insertion.GrowingCanvas,
        noise: Float[Array, "L C"],
    ) -> insertion.GrowingCanvas:
        """Apply the insertions of one step to one row."""
        key_event, key_token = jax.random.split(key)
        canvas, alphabet = row.canvas, self.token_space
        has_missing = jax.nn.sigmoid(-outputs["gap_empty"][:, 0])
        count = jnp.exp(outputs["gap_log_count"][:, 0])
        chance = has_missing * deletion.insert_probability(t, jnp.minimum(s, 1.0), count)
        happens = jax.random.uniform(key_event, chance.shape) < chance
        wanted = happens & (canvas.insertable != InsertPolicy.NONE) & (t < 1 - insertion.TIME_EPS)
        allows_images = canvas.insertable == InsertPolicy.ANY
        token = alphabet.image_token_id
        legal = token_sampling.allowed_ids(
            (alphabet.text_id_range, (token, token + 1)), alphabet.vocab_size
        )
        logits = outputs["gap_logits"].at[:, token].add(jnp.where(allows_images, 0.0, -jnp.inf))
        log_p = token_sampling.sampling_log_probs(logits, legal, self.plan.token_sampling)
        return insertion.insert(
            row,
            wanted,
            jax.random.categorical(key_token, log_p),
            image_token_id=token,
            grid=alphabet.grid,
            noise=noise,
            run_time=s,
        )

    def _make_noisy_canvas(
        self, rows: insertion.GrowingCanvas, t: Float[Array, ""], table: EmbeddingTable
    ) -> NoisyCanvas:
        canvas = rows.canvas
        revised = canvas.is_text & self.plan.is_edit
        time = network_times(
            canvas, rows.slot_times(t), jnp.minimum(t, 1.0), revised, self.condition_on_text_time
        )
        return canvases.noisy_canvas(canvas, table.embedding[canvas.ids], canvas.latents, time)

    def _with_guidance(self, apply: guidance.ApplyFn) -> guidance.ApplyFn:
        """Add guidance; it acts on log λ, so it combines rates geometrically (OneFlow, eq. 12)."""

        def with_log(view: NoisyCanvas) -> Outputs:
            outputs = apply(view)
            return outputs | {"gap_log_count": log_num_missing(outputs["gap_count"])[..., None]}

        return guidance.cfg_by_removal(
            with_log,
            heads=(("gap_empty", "gap_log_count", "gap_logits"), ("image",)),
            scales=(self.plan.image_guidance_scale, self.plan.text_guidance_scale),
        )


def log_num_missing(raw: Float[Array, "*b L 1"]) -> Float[Array, "*b L"]:
    """Return log λ; λ = 1 + softplus(raw) is the mean number of missing items of non-empty gaps."""
    return jnp.log1p(jax.nn.softplus(raw[..., 0]))


def network_times(
    canvas: Canvas,
    time: Float[Array, "*b L"],
    t: Float[Array, "*t"],
    edited: Bool[Array, "*r"],
    condition_on_text_time: bool,
) -> Float[Array, "*b L"]:
    """Return, for each slot, the time that the network gets as input.

    Args:
        canvas: the rows, for the modality and position of each slot.
        time: time of each image slot.
        t: text time of the document.
        edited: True for text that may contain errors and gets the time t. All other text gets the
            time 1.
        condition_on_text_time: whether BOS gets the time t in every document.
    """
    begins = canvas.is_text & (canvas.position[..., 0] == 0)
    return jnp.where(
        canvas.is_image, time, jnp.where(edited | (begins & condition_on_text_time), t, 1.0)
    )


def _is_active(rows: insertion.GrowingCanvas, run_time: Float[Array, ""]) -> Bool[Array, ""]:
    text_active = jnp.any(rows.canvas.insertable != InsertPolicy.NONE) & (
        run_time < 1 - insertion.TIME_EPS
    )
    return text_active | jnp.any(rows.slot_times(run_time) < 1)


def _make_frame(
    rows: insertion.GrowingCanvas, x1_hat: Float[Array, "B L C"], run_time: Float[Array, ""]
) -> Frame:
    return Frame(
        canvas=rows.canvas,
        time=rows.slot_times(run_time),
        confidence=jnp.ones(rows.canvas.ids.shape),
        x1_hat=x1_hat,
        run_time=run_time,
    )
