"""`edit_flow`: text and pictures grow out of an empty document by insertion.

The published OneFlow (Nguyen et al., 2025), whose text is an Edit Flow (Havasi et al., 2025).

    corrupt  each token is kept with probability κ(t) = t, else deleted          flows/deletion.py
             pictures are noised to times of their own, or absent before their birth
             or, to learn to revise: items are missing, wrong, or extra   flows/edit_corruption.py
    network  for the gap after each item: π = P(nothing missing), λ = expected number missing if
             any, Q = which tokens; `<image>` is one of them. For patches: v or the clean patch
             for each item: P(keep), P(delete), P(replace), R = by which token
    loss     -log Q of what is missing  +  λ - k log λ where k > 0  +  BCE(π, k = 0)  +  |v̂ - v|^2
             - log P of what is to become of each item  -  log R of what replaces it
    sample   in each step one forward pass; into a gap comes a token with probability
             (1 - π) (1 - ((1-s)/(1-t))^λ); `<image>` gives birth to a picture of pure noise, whose
             own clock runs from then on; until every clock has run out.
    revise   the same, and items are deleted or replaced with probability P (s-t)/(1-t)

Totals are divided by the number of items of the clean document, not by 1/n of what is left: near
t=0 one gap would hold all, with a variance to match. λ is fitted by the plain Poisson term, as
(1-π) λ must be the expected number missing; a truncated one would insert too little.
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
)
from oneflow_jax.paradigms import base
from oneflow_jax.samplers import edit, guidance
from oneflow_jax.samplers.base import SampleOutput, SamplingPlan, euler_nfe
from oneflow_jax.shapes import Array, Bool, Float, Int, Key, Outputs, Sums

LOSS_TERMS = ("tokens", "count", "empty", "fate", "words", "image")
"""Of the loss."""


@flax.struct.dataclass
class Targets:
    """What one corrupted row is scored against.

    Attributes:
        ids: of tokens; `image_token` where a picture's first slot is.
        noise, latents, clock: of patches.
        gaps: what is missing, and where.
        missing: True for missing items that are scored.
        open: True for gaps that are scored.
        image: True for patches that are scored.
        fate: what is to become of an item of a document with mistakes.
        judged: True for items whose fate is scored.
    """

    ids: Int[Array, "L"]
    noise: Float[Array, "L C"]
    latents: Float[Array, "L C"]
    clock: Float[Array, "L"]
    gaps: deletion.Gaps
    missing: Bool[Array, "L"]
    open: Bool[Array, "L"]
    image: Bool[Array, "L"]
    fate: Int[Array, "L"]
    judged: Bool[Array, "L"]


@dataclasses.dataclass(frozen=True)
class EditFlow:
    """Insertions, deletions and replacements beside flowing pictures.

    Attributes:
        alphabet: what may be inserted.
        schedules: what times documents are shown at.
        text_clock: whether BOS is told the time of the text. The published model is not.
        image: what is predicted of patches.
        channels: numbers in a patch, C.
        mix: the tasks of training.
        weights: of `LOSS_TERMS`.
    """

    alphabet: edit.TokenSpace
    schedules: time_couplings.TimeCoupling
    text_clock: bool
    image: predictions.PredictionType
    channels: int
    mix: tasks.TaskMixture
    weights: tuple[tuple[str, float], ...]
    attend = AttentionPattern.BIDIRECTIONAL

    @property
    def heads(self) -> tuple[Head, ...]:
        """π as a logit, λ - 1 before softplus, logits of Q; of fates and of R; one for patches."""
        return (
            Head("gap_empty", 1, "channels"),
            Head("gap_count", 1, "channels"),
            Head("gap_logits", self.alphabet.vocab, "vocab"),
            Head("fate", len(edit_corruption.EditOp), "channels"),
            Head("word_logits", self.alphabet.vocab, "vocab"),
            Head("image", self.channels, "channels", zero=True),
        )

    @property
    def revises(self) -> bool:
        """If mistakes were shown in training."""
        return self.schedules.revises

    @property
    def in_step(self) -> "EditFlow":
        """The same, showing all of a document at its time u."""
        return dataclasses.replace(self, mix=tasks.ALL_TARGETS, schedules=time_couplings.SHARED)

    def counts(self, canvas: Canvas) -> Sums:
        """Items that are not given, for all terms of the gaps and fates; slots for pictures."""
        items = jnp.sum(canvas.free & deletion.item_starts(canvas)).astype(jnp.float32)
        return dict.fromkeys(LOSS_TERMS, items) | {"image": base.target_counts(canvas)["image"]}

    def corrupt(
        self, key: Key[Array, ""], u: Float[Array, "L"], canvas: Canvas, table: EmbeddingTable
    ) -> tuple[NoisyCanvas, Targets]:
        """The row with some items deleted or wrong, and some pictures moved toward noise."""
        key_task, key_times, key_kept, key_image, key_wrong, key_extra = jax.random.split(key, 6)
        words = self.alphabet.words
        draw = self.mix.draw(key_task, u, canvas)
        dropped = canvas.free & ~draw.scored & (draw.clock == 0)
        times = self.schedules.draw(key_times, u, canvas, draw.task)
        wrong = edit_corruption.sample(key_wrong, times.text, canvas, words, times.revised)
        time = jnp.where(canvas.is_image, times.image, times.text)
        time = jnp.where(draw.scored & ~times.revised, time, 1.0)
        lives = jax.random.uniform(key_kept, u.shape) < time
        kept = jnp.where(canvas.is_text, lives, time >= 0) & ~dropped & ~wrong.missing
        clock = jnp.where(wrong.noisy, wrong.time, jnp.clip(time, 0.0, 1.0))
        gaps = deletion.gaps(canvas, kept)
        left = deletion.compact(canvas.replace(ids=wrong.ids, latents=wrong.latents), kept)
        shown, owner = edit_corruption.insert_spurious(
            key_extra, times.text, left, gaps.anchor & times.revised, words
        )
        extra = owner >= 0
        editable = draw.scored & (canvas.is_text | times.births | times.revised)
        same = canvas.segment == jnp.roll(canvas.segment, -1)
        noise = jax.random.normal(key_image, canvas.latents.shape)
        fate = jnp.where(
            wrong.wrong, int(edit_corruption.EditOp.REPLACE), int(edit_corruption.EditOp.KEEP)
        )
        targets = Targets(
            ids=jnp.where(canvas.is_image, self.alphabet.image_token, canvas.ids),
            noise=noise,
            latents=canvas.latents,
            clock=clock,
            gaps=gaps,
            missing=gaps.missing & editable,
            open=extra | (gaps.anchor & (editable | (jnp.roll(editable, -1) & same))),
            # A finished picture is context: nothing of its noise is left to be told.
            image=draw.scored & canvas.is_image & kept & (clock < 1),
            fate=jnp.where(extra, int(edit_corruption.EditOp.DELETE), fate),
            judged=extra | (gaps.anchor & times.revised & canvas.free & ~wrong.noisy),
        )
        latents = gaussian.interpolate(noise, shown.latents, clock)
        told = edit.network_times(
            shown,
            clock,
            jnp.where(extra, times.text[owner], times.text),
            times.revised | extra,
            self.text_clock,
        )
        return canvases.noisy_canvas(shown, table.rows[shown.ids], latents, told), targets

    def loss(self, outputs: Outputs, targets: Targets) -> dict[str, metrics.Average]:
        """One of each of `LOSS_TERMS`."""
        gaps = targets.gaps
        some = gaps.size > 0
        is_word = targets.ids != self.alphabet.image_token
        replaced = targets.judged & (targets.fate == edit_corruption.EditOp.REPLACE) & is_word
        return {
            "tokens": losses.cross_entropy(
                outputs["gap_logits"][gaps.gap], targets.ids, targets.missing
            ),
            "count": losses.poisson(
                edit.log_num_missing(outputs["gap_count"]), gaps.size, targets.open & some
            ),
            "empty": losses.binary_cross_entropy(outputs["gap_empty"][:, 0], ~some, targets.open),
            "fate": losses.cross_entropy(outputs["fate"], targets.fate, targets.judged),
            "words": losses.cross_entropy(outputs["word_logits"], targets.ids, replaced),
            "image": self.image.loss(
                outputs["image"], targets.noise, targets.latents, targets.clock, targets.image
            ),
        }

    def check(self, plan: SamplingPlan) -> None:
        """Words jump, so pictures beside them can only take plain steps.

        Raises:
            UserError: the plan has another solver than Euler's, or revises from a time at which
                the model was never shown mistakes.
        """
        base.require_euler("edit_flow", plan)
        start = plan.schedule.times[0]
        if plan.revises and not self.revises:
            raise UserError(
                "paradigm.revised=0: this model was not trained on mistakes, and cannot revise "
                "documents; train one with a share above 0."
            )
        if plan.revises and start < time_couplings.MIN_EDIT_TIME:
            raise UserError(
                f"sampling.start={start}: edit_flow is trained on documents of which at least "
                f"{time_couplings.MIN_EDIT_TIME} is right; give that or more."
            )

    def evaluations(self, plan: SamplingPlan) -> int:
        """NFE of documents whose pictures are laid out; those born on the way take up to twice."""
        return euler_nfe(plan)

    def sample(
        self,
        apply: guidance.ApplyFn,
        table: EmbeddingTable,
        keys: Key[Array, "B"],
        canvas: Canvas,
        plan: SamplingPlan,
    ) -> SampleOutput:
        """Grows documents out of their prompts until every clock has run out."""
        sampler = edit.EditSampler(self.alphabet, self.image, self.text_clock, plan)
        return sampler(apply, table, keys, canvas)
