"""`edit_flow`: generates documents by inserting tokens and images, and edits finished documents.

This is the published OneFlow (Nguyen et al., 2025); its text process is an Edit Flow (Havasi et
al., 2025).

    corrupt  each token is kept with probability κ(t) = t, else deleted          flows/deletion.py
             each image is noised to its own time, or absent before its insertion time
             for editing: items are missing, wrong or spurious     flows/edit_corruption.py
    network  for the gap after each item: π = P(nothing missing), λ = expected number of missing
             items if any are missing, Q = distribution of the missing tokens, including `<image>`
             for each item: P(keep), P(delete), P(substitute), R = distribution of the substitute
             for patches: v or x_1
    loss     -log Q of missing tokens  +  λ - k log λ where k > 0  +  BCE(π, k = 0)  +  |v̂ - v|^2
             - log P of the edit operation of each item  -  log R of the substitute
    sample   one forward pass per step; a token is inserted into a gap with probability
             (1 - π) (1 - ((1-s)/(1-t))^λ); `<image>` inserts an image of pure noise, whose own
             time starts at 0; sampling ends when text and all images are at t=1
    edit     as sample; in addition, items are deleted or substituted with probability
             P (s-t)/(1-t)

Loss totals are divided by the number of items of the clean document. Division by the number of
remaining items would give a single gap all the weight near t=0, with high variance. λ is trained by
the plain Poisson term, not by a zero-truncated one: (1-π) λ must be the expected number of missing
items, and a model trained with a zero-truncated Poisson term would insert too little.
"""

import dataclasses

import flax.struct
import jax
import jax.numpy as jnp
from clu import metrics

from oneflow_jax import canvas as canvases
from oneflow_jax.canvas import AttentionPattern, Canvas, EmbeddingTable, Head, NoisyCanvas
from oneflow_jax.errors import UserError
from oneflow_jax.flows import (
    deletion,
    edit_corruption,
    gaussian,
    losses,
    predictions,
    tasks,
    time_couplings,
    time_samplers,
)
from oneflow_jax.paradigms import base
from oneflow_jax.samplers import edit, guidance, token_sampling
from oneflow_jax.samplers.base import SamplingPlan, euler_nfe
from oneflow_jax.samplers.steps import StepSampler
from oneflow_jax.shapes import Array, Bool, Float, Int, Key, Outputs, Sums

LOSS_TERMS = ("insert_token", "insert_count", "insert_zero", "edit_op", "substitute", "image")
"""Names of the loss terms."""


@flax.struct.dataclass
class Targets:
    """Targets of one corrupted row.

    Attributes:
        ids: clean token ids; in the slots of an image, `image_token_id`.
        noise, latents, time: noise, clean content and time of patches.
        gaps: the gaps of the row, with their missing items.
        insert_scored: True for missing items that are scored.
        gap_scored: True for gaps that are scored.
        image_scored: True for patches that are scored.
        edit_op: edit operation that corrects each item.
        edit_scored: True for items whose edit operation is scored.
    """

    ids: Int[Array, "L"]
    noise: Float[Array, "L C"]
    latents: Float[Array, "L C"]
    time: Float[Array, "L"]
    gaps: deletion.Gaps
    insert_scored: Bool[Array, "L"]
    gap_scored: Bool[Array, "L"]
    image_scored: Bool[Array, "L"]
    edit_op: Int[Array, "L"]
    edit_scored: Bool[Array, "L"]


@dataclasses.dataclass(frozen=True)
class EditFlow:
    """Insertion, deletion and substitution of tokens, with a flow for each image.

    Attributes:
        token_space: the tokens that may be inserted.
        time_coupling: distribution of the times of text and images of a document.
        condition_on_text_time: whether the network gets the time of the text, as the time of the
            BOS slot. The published model does not get it.
        image_prediction: what the network predicts for patches: v or x_1.
        channels: numbers in a patch, C.
        task_mixture: the training tasks and their probabilities.
        weights: weights of `LOSS_TERMS`.
    """

    token_space: token_sampling.TokenSpace
    time_coupling: time_couplings.TimeCoupling
    condition_on_text_time: bool
    image_prediction: predictions.PredictionType
    channels: int
    task_mixture: tasks.TaskMixture
    weights: tuple[tuple[str, float], ...]
    attention_pattern = AttentionPattern.BIDIRECTIONAL

    @property
    def heads(self) -> tuple[Head, ...]:
        """The heads: logit of π, λ - 1 before softplus, logits of Q, P and R, and v or x_1."""
        return (
            Head("gap_empty", 1, "channels"),
            Head("gap_count", 1, "channels"),
            Head("gap_logits", self.token_space.vocab_size, "vocab"),
            Head("fate", len(edit_corruption.EditOp), "channels"),
            Head("word_logits", self.token_space.vocab_size, "vocab"),
            Head("image", self.channels, "channels", zero_init=True),
        )

    @property
    def supports_editing(self) -> bool:
        """Whether training includes documents with errors to correct."""
        return self.time_coupling.supports_editing

    @property
    def at_shared_time(self) -> "EditFlow":
        """Copy of this paradigm in which all slots of a document have the same time, t = u."""
        return dataclasses.replace(
            self, task_mixture=tasks.ALL_TARGETS, time_coupling=time_couplings.SHARED
        )

    def counts(self, canvas: Canvas) -> Sums:
        """Count what is to be generated: image slots for the term `image`, items for all others."""
        items = jnp.sum(canvas.to_generate & deletion.item_starts(canvas)).astype(jnp.float32)
        return dict.fromkeys(LOSS_TERMS, items) | {"image": base.target_counts(canvas)["image"]}

    def corrupt(
        self, key: Key[Array, ""], u: Float[Array, "L"], canvas: Canvas, table: EmbeddingTable
    ) -> tuple[NoisyCanvas, Targets]:
        """Delete items, and interpolate images toward noise.

        In documents with the time coupling `edited`, items are wrong, missing or spurious instead.
        Conditioning dropout deletes the text or the images that the task conditions on.
        """
        key_task, key_times, key_kept, key_image, key_wrong, key_extra = jax.random.split(key, 6)
        text_id_range = self.token_space.text_id_range
        draw = self.task_mixture.sample(key_task, u, canvas, time_samplers.PowerTimeSampler())
        dropped = canvas.to_generate & ~draw.scored & (draw.time == 0)
        times = self.time_coupling.sample(key_times, u, canvas, draw.task)
        errors = edit_corruption.sample(key_wrong, times.text, canvas, text_id_range, times.edited)
        time = jnp.where(canvas.is_image, times.image, times.text)
        time = jnp.where(draw.scored & ~times.edited, time, 1.0)
        survives = jax.random.uniform(key_kept, u.shape) < time
        is_kept = jnp.where(canvas.is_text, survives, time >= 0) & ~dropped & ~errors.deleted
        slot_time = jnp.where(errors.renoised, errors.time, jnp.clip(time, 0.0, 1.0))
        gaps = deletion.gaps(canvas, is_kept)
        compacted = deletion.compact(
            canvas.replace(ids=errors.ids, latents=errors.latents), is_kept
        )
        corrupted, owner = edit_corruption.insert_spurious(
            key_extra, times.text, compacted, gaps.anchor & times.edited, text_id_range
        )
        is_spurious = owner >= 0
        editable = draw.scored & (canvas.is_text | times.images_inserted | times.edited)
        same = canvas.segment == jnp.roll(canvas.segment, -1)
        noise = jax.random.normal(key_image, canvas.latents.shape)
        edit_op = jnp.where(
            errors.substituted,
            int(edit_corruption.EditOp.SUBSTITUTE),
            int(edit_corruption.EditOp.KEEP),
        )
        targets = Targets(
            ids=jnp.where(canvas.is_image, self.token_space.image_token_id, canvas.ids),
            noise=noise,
            latents=canvas.latents,
            time=slot_time,
            gaps=gaps,
            insert_scored=gaps.deleted & editable,
            gap_scored=is_spurious | (gaps.anchor & (editable | (jnp.roll(editable, -1) & same))),
            # An image at t=1 has no noise left to predict.
            image_scored=draw.scored & canvas.is_image & is_kept & (slot_time < 1),
            edit_op=jnp.where(is_spurious, int(edit_corruption.EditOp.DELETE), edit_op),
            edit_scored=is_spurious
            | (gaps.anchor & times.edited & canvas.to_generate & ~errors.renoised),
        )
        latents = gaussian.interpolate(noise, corrupted.latents, slot_time)
        network_time = edit.network_times(
            corrupted,
            slot_time,
            jnp.where(is_spurious, times.text[owner], times.text),
            times.edited | is_spurious,
            self.condition_on_text_time,
        )
        return canvases.noisy_canvas(
            corrupted, table.embedding[corrupted.ids], latents, network_time
        ), targets

    def loss(self, outputs: Outputs, targets: Targets) -> dict[str, metrics.Average]:
        """Return one loss term for each name in `LOSS_TERMS`."""
        gaps = targets.gaps
        has_missing = gaps.num_missing > 0
        is_word = targets.ids != self.token_space.image_token_id
        replaced = (
            targets.edit_scored & (targets.edit_op == edit_corruption.EditOp.SUBSTITUTE) & is_word
        )
        return {
            "insert_token": losses.cross_entropy(
                outputs["gap_logits"][gaps.gap_slot], targets.ids, targets.insert_scored
            ),
            "insert_count": losses.poisson(
                edit.log_num_missing(outputs["gap_count"]),
                gaps.num_missing,
                targets.gap_scored & has_missing,
            ),
            "insert_zero": losses.binary_cross_entropy(
                outputs["gap_empty"][:, 0], ~has_missing, targets.gap_scored
            ),
            "edit_op": losses.cross_entropy(outputs["fate"], targets.edit_op, targets.edit_scored),
            "substitute": losses.cross_entropy(outputs["word_logits"], targets.ids, replaced),
            "image": self.image_prediction.loss(
                outputs["image"], targets.noise, targets.latents, targets.time, targets.image_scored
            ),
        }

    def validate(self, plan: SamplingPlan) -> None:
        """Check that the plan uses Euler's method, and edits only if the model was trained for it.

        Raises:
            UserError: the plan has a solver other than Euler's, the model was not trained to edit,
                or the start time is below the times of edited documents in training.
        """
        base.require_euler("edit_flow", plan)
        start = plan.schedule.times[0]
        if plan.is_edit and not self.supports_editing:
            raise UserError(
                "paradigm.time_coupling.edited=0: this model was not trained to edit documents. "
                "Train one with a probability above 0."
            )
        if plan.is_edit and start < time_couplings.MIN_EDIT_TIME:
            raise UserError(
                f"sampling.edit_start={start}: edit_flow is trained to edit documents from "
                f"t={time_couplings.MIN_EDIT_TIME} on. Give at least this value."
            )

    def nfe(self, plan: SamplingPlan) -> int:
        """Return the NFE of documents whose images all have slots in the prompt.

        If the model inserts images, sampling takes up to twice as many forward passes.
        """
        return euler_nfe(plan)

    def sampler(
        self,
        apply: guidance.ApplyFn,
        table: EmbeddingTable,
        keys: Key[Array, "B"],
        canvas: Canvas,
        plan: SamplingPlan,
    ) -> StepSampler:
        """Insert into the prompts, or edit documents, until text and all images are at t=1."""
        sampler = edit.EditSampler(
            self.token_space, self.image_prediction, self.condition_on_text_time, plan
        )
        return sampler.bind(apply, table, keys, canvas)
