"""`transfusion`: words one after another, and a flow for each picture between them.

Zhou et al., Transfusion: Predict the Next Token and Diffuse Images with One Multi-Modal Model,
2024, with flow matching in place of its DDPM, as the paradigms here that it is compared with.

    shown    words as they are; each picture at a time t of its own, x_t = (1 - t) eps + t patch
    network  a slot sees what comes before it, and all of its own picture       canvas.Attend.MIXED
    loss     -log p(next token), of every slot that a word comes after  +  |v̂ - v|^2 of patches
    sample   token by token with a cache; then an image's flow   samplers/autoregressive.py

In documents of the task `image_to_text` the pictures are clean, so that words are learned beside
what sampling shows them; Transfusion limits the noise of pictures before their captions instead. In
some of the task `text_to_image` pictures are shown alone, for guidance (`alone`).
"""

import dataclasses

import flax.struct
import jax
import jax.numpy as jnp
from clu import metrics

from oneflow_jax import canvas as canvases
from oneflow_jax.canvas import AttentionPattern, Canvas, EmbeddingTable, Head, NoisyCanvas
from oneflow_jax.flows import gaussian, losses, next_token, predictions, tasks, time_samplers
from oneflow_jax.paradigms import base
from oneflow_jax.samplers import ar_guidance, ar_images, ar_state, autoregressive
from oneflow_jax.samplers.base import SampleOutput, SamplingPlan
from oneflow_jax.shapes import Array, Bool, Float, Int, Key, Outputs, Sums


@flax.struct.dataclass
class Targets:
    """What one row is scored against; `text` and `image` are True where scored.

    `ids` are those of the next slots.
    """

    ids: Int[Array, "L"]
    noise: Float[Array, "L C"]
    latents: Float[Array, "L C"]
    clock: Float[Array, "L"]
    text: Bool[Array, "L"]
    image: Bool[Array, "L"]


@dataclasses.dataclass(frozen=True)
class Transfusion:
    """Next tokens, and flows of pictures.

    Attributes:
        alphabet: what may be written.
        image: what is predicted of patches.
        channels: numbers in a patch, C.
        mix: the tasks of training.
        clock: how often each time comes in training.
        weights: of the terms `text` and `image`; Transfusion has 1 and 5.
    """

    alphabet: ar_state.TokenSpace
    image: predictions.PredictionType
    channels: int
    mix: tasks.TaskMixture
    clock: time_samplers.TimeSampler
    weights: tuple[tuple[str, float], ...]
    attend = AttentionPattern.MIXED
    revises = False

    @property
    def heads(self) -> tuple[Head, ...]:
        """Logits of the next token, and one for patches."""
        return (
            Head("token_logits", self.alphabet.vocab, "vocab"),
            Head("image", self.channels, "channels", zero=True),
        )

    @property
    def in_step(self) -> "Transfusion":
        """The same, with all pictures of a document at its time u."""
        return dataclasses.replace(
            self, mix=tasks.ALL_TARGETS, clock=time_samplers.PowerTimeSampler()
        )

    def counts(self, canvas: Canvas) -> Sums:
        """The slots of each kind that are not given."""
        return base.target_counts(canvas)

    def corrupt(
        self, key: Key[Array, ""], u: Float[Array, "L"], canvas: Canvas, table: EmbeddingTable
    ) -> tuple[NoisyCanvas, Targets]:
        """The row with some of its pictures moved toward noise."""
        key_task, key_time, key_image = jax.random.split(key, 3)
        # At t=1 all that is below is what was dropped.
        draw = self.mix.draw(key_task, jnp.ones_like(u), canvas)
        flows = canvas.free & canvas.is_image & (draw.task != tasks.NAMES.index("image_to_text"))
        # Sums of a stratified and a free number, modulo 1, are uniform and independent.
        own = self.clock(jnp.mod(u + tasks.uniform_per_group(key_time, canvas.span), 1.0))
        clock = jnp.where(flows, own, 1.0)
        noise = jax.random.normal(key_image, canvas.latents.shape)
        latents = gaussian.interpolate(noise, canvas.latents, clock)
        ids, words = next_token.next_text_targets(canvas)
        shown = canvases.noisy_canvas(canvas, table.rows[canvas.ids], latents, clock)
        dropped = canvas.is_text & (draw.clock < 1)
        shown, bereft = ar_guidance.image_only_view(
            shown, canvas, dropped, self.alphabet.image_token
        )
        return shown, Targets(
            ids=ids,
            noise=noise,
            latents=canvas.latents,
            clock=clock,
            text=words & ~bereft,
            image=flows,
        )

    def loss(self, outputs: Outputs, targets: Targets) -> dict[str, metrics.Average]:
        """The terms `text`, -log p in nats, and `image`."""
        return {
            "text": losses.cross_entropy(outputs["token_logits"], targets.ids, targets.text),
            "image": self.image.loss(
                outputs["image"], targets.noise, targets.latents, targets.clock, targets.image
            ),
        }

    def check(self, plan: SamplingPlan) -> None:
        """Words are written for good, and one after another.

        Raises:
            UserError: the plan is to revise, to remask, to read in another order, or to
                guide words.
        """
        base.validate_autoregressive(type(self).__name__.lower(), plan)

    def evaluations(self, plan: SamplingPlan) -> int:
        """NFE of one picture; besides, words take one each, and so does a picture for the cache."""
        return self._flow(plan).passes(self.alphabet.patches) - 1

    def sample(
        self,
        apply: ar_guidance.CachedModel,
        table: EmbeddingTable,
        keys: Key[Array, "B"],
        canvas: Canvas,
        plan: SamplingPlan,
    ) -> SampleOutput:
        """Writes documents until all are finished."""
        return autoregressive.ARSampler(self.alphabet, self._flow(plan), plan)(
            apply, table, keys, canvas
        )

    def _flow(self, plan: SamplingPlan) -> ar_images.FlowImageSampler:
        guidance = ar_guidance.ARGuidance(plan.guidance, self.alphabet.image_token)
        return ar_images.FlowImageSampler(self.image, plan.schedule, guidance)
