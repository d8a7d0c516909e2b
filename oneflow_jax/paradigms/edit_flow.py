"""`edit_flow`: text and pictures grow out of an empty document by insertion.

The published OneFlow (Nguyen et al., 2025), whose text is an Edit Flow (Havasi et al., 2025).

    corrupt  each token is kept with probability κ(t) = t, else deleted          flows/deletion.py
             pictures are noised to times of their own, or absent before their birth
    network  for the gap after each item: π = P(nothing missing), λ = expected number missing if
             any, Q = which tokens; `<image>` is one of them. For patches: v or the clean patch
    loss     -log Q of what is missing  +  λ - k log λ where k > 0  +  BCE(π, k = 0)  +  |v̂ - v|^2
    sample   in each step one forward pass; into a gap comes a token with probability
             (1 - π) (1 - ((1-s)/(1-t))^λ); `<image>` gives birth to a picture of pure noise, whose
             own clock runs from then on; until every clock has run out

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
from oneflow_jax.canvas import Canvas, Head, Table, View
from oneflow_jax.errors import UserError
from oneflow_jax.flows import clocks, deletion, gaussian, losses, predictions, tasks
from oneflow_jax.paradigms import base, growth
from oneflow_jax.paradigms.base import Plan, Sample
from oneflow_jax.samplers import guidance
from oneflow_jax.shapes import Array, Bool, Float, Int, Key, Outputs, Sums

JOINT = tasks.NAMES.index("joint")
SCHEDULES = ("interleaved", "independent", "together")


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
    """

    ids: Int[Array, "L"]
    noise: Float[Array, "L C"]
    latents: Float[Array, "L C"]
    clock: Float[Array, "L"]
    gaps: deletion.Gaps
    missing: Bool[Array, "L"]
    open: Bool[Array, "L"]
    image: Bool[Array, "L"]


@dataclasses.dataclass(frozen=True)
class EditFlow:
    """Insertions beside flowing pictures.

    Attributes:
        alphabet: what may be inserted.
        schedules: share of joint documents with each of `SCHEDULES`: pictures born on the way, all
            times independent, or one time for all.
        text_clock: whether BOS is told the time of the text. The published model is not.
        image: what is predicted of patches.
        channels: numbers in a patch, C.
        mix: the tasks of training.
        clock: how often each time comes in training, where it is not drawn by (12).
        weights: of the terms `tokens`, `count`, `empty` and `image`.
    """

    alphabet: growth.Alphabet
    schedules: tuple[float, float, float]
    text_clock: bool
    image: predictions.Prediction
    channels: int
    mix: tasks.Mix
    clock: clocks.Clock
    weights: tuple[tuple[str, float], ...]

    @property
    def heads(self) -> tuple[Head, ...]:
        """π as a logit, λ - 1 before softplus, logits of Q, and one for patches."""
        return (
            Head("gap_empty", 1, "channels"),
            Head("gap_count", 1, "channels"),
            Head("gap_logits", self.alphabet.vocab, "vocab"),
            Head("image", self.channels, "channels", zero=True),
        )

    def counts(self, canvas: Canvas) -> Sums:
        """Items that are not given, for all three terms of the gaps; slots for pictures."""
        items = jnp.sum(canvas.free & deletion.first_slots(canvas)).astype(jnp.float32)
        image = base.slots_to_make(canvas)["image"]
        return {"tokens": items, "count": items, "empty": items, "image": image}

    def corrupt(
        self, key: Key[Array, ""], u: Float[Array, "L"], canvas: Canvas, table: Table
    ) -> tuple[View, Targets]:
        """The row with some items deleted and some pictures moved toward noise."""
        key_task, key_times, key_kept, key_image = jax.random.split(key, 4)
        draw = self.mix.draw(key_task, u, canvas)
        dropped = canvas.free & ~draw.scored & (draw.clock == 0)
        text, image, births = self._times(key_times, u, canvas, draw)
        time = jnp.where(draw.scored, jnp.where(canvas.is_image, image, text), 1.0)
        lives = jax.random.uniform(key_kept, u.shape) < time
        kept = jnp.where(canvas.is_text, lives, time >= 0) & ~dropped
        clock = jnp.clip(time, 0.0, 1.0)
        gaps = deletion.gaps(canvas, kept)
        editable = draw.scored & (canvas.is_text | births)
        same = canvas.segment == jnp.roll(canvas.segment, -1)
        noise = jax.random.normal(key_image, canvas.latents.shape)
        targets = Targets(
            ids=jnp.where(canvas.is_image, self.alphabet.image_token, canvas.ids),
            noise=noise,
            latents=canvas.latents,
            clock=clock,
            gaps=gaps,
            missing=gaps.missing & editable,
            open=gaps.anchor & (editable | (jnp.roll(editable, -1) & same)),
            # A finished picture is context: nothing of its noise is left to be told.
            image=draw.scored & canvas.is_image & kept & (clock < 1),
        )
        shown = deletion.left_over(canvas, kept)
        latents = gaussian.interpolate(noise, canvas.latents, clock)
        told = growth.text_clock(canvas, clock, text, self.text_clock)
        return canvases.view(shown, table.rows[canvas.ids], latents, told), targets

    def loss(self, outputs: Outputs, targets: Targets) -> dict[str, metrics.Average]:
        """The terms `tokens`, `count`, `empty` and `image`."""
        gaps = targets.gaps
        some = gaps.size > 0
        return {
            "tokens": losses.cross_entropy(
                outputs["gap_logits"][gaps.gap], targets.ids, targets.missing
            ),
            "count": losses.poisson(
                growth.log_count(outputs["gap_count"]), gaps.size, targets.open & some
            ),
            "empty": losses.binary_cross_entropy(outputs["gap_empty"][:, 0], ~some, targets.open),
            "image": self.image.loss(
                outputs["image"], targets.noise, targets.latents, targets.clock, targets.image
            ),
        }

    def check(self, plan: Plan) -> None:
        """Words jump, so pictures beside them can only take plain steps; and from the start.

        Raises:
            UserError: the plan has another solver than Euler's, or starts above t=0.
        """
        base.check_euler("edit_flow", plan)
        if plan.schedule.times[0] > 0:
            raise UserError(
                f"sampling.start={plan.schedule.times[0]}: edit_flow inserts, and cannot take back "
                "what a document says; to revise one, use oneflow or mask_flow."
            )

    def evaluations(self, plan: Plan) -> int:
        """NFE of documents whose pictures are laid out; those born on the way take up to twice."""
        return base.one_pass_a_step(plan)

    def sample(
        self,
        apply: guidance.Apply,
        table: Table,
        keys: Key[Array, "B"],
        canvas: Canvas,
        plan: Plan,
    ) -> Sample:
        """Grows documents out of their prompts until every clock has run out."""
        sampler = growth.Sampler(self.alphabet, self.image, self.text_clock, plan)
        return sampler(apply, table, keys, canvas)

    def _times(
        self, key: Key[Array, ""], u: Float[Array, "L"], canvas: Canvas, draw: tasks.Draw
    ) -> tuple[Float[Array, "L"], Float[Array, "L"], Bool[Array, "L"]]:
        """Times of text and of pictures, below 0 where not yet born, and where births happen."""
        key_schedule, key_birth, key_text, key_image = jax.random.split(key, 4)
        which = tasks.uniform(key_schedule, canvas.segment)
        joint = draw.task == JOINT
        births = joint & (which < self.schedules[0])
        together = joint & (which >= self.schedules[0] + self.schedules[1])
        # Sums of a stratified and a free number, modulo 1, are uniform and independent.
        apart_text = jnp.mod(u + tasks.uniform(key_text, canvas.segment), 1.0)
        apart_image = jnp.mod(u + tasks.uniform(key_image, canvas.span), 1.0)
        text = self.clock(jnp.where(together, u, apart_text))
        image = self.clock(jnp.where(together, u, apart_image))
        birth = tasks.uniform(key_birth, canvas.span)
        return (
            jnp.where(births, jnp.minimum(2 * u, 1.0), text),
            jnp.where(births, deletion.interleaved(u, birth), image),
            births,
        )
