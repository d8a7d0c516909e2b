"""`chameleon` and `dalle`: words and codes of pictures in one vocabulary, one after another.

    shown    tokens as they are; a slot sees what comes before it and itself    canvas.Attend.CAUSAL
    loss     -log p(next token), of words and of codes; and (log Z)^2, which holds logits down
    sample   token by token with a cache; then an image's codes   samplers/autoregressive.py

Chameleon Team, Chameleon: Mixed-Modal Early-Fusion Foundation Models, 2024: documents in reading
order, normalized queries and keys (here all paradigms have them), z-loss of weight 1e-5. Ramesh et
al., Zero-Shot Text-to-Image Generation, 2021 (DALL-E): the text first, then the codes, and losses
of weights 1 to 7: that is the layout's and the weights' doing, and nothing here.
"""

import dataclasses

import flax.struct
import jax.numpy as jnp
from clu import metrics

from oneflow_jax import canvas as canvases
from oneflow_jax.canvas import AttentionPattern, Canvas, EmbeddingTable, Head, Modality, NoisyCanvas
from oneflow_jax.flows import losses, next_token, tasks
from oneflow_jax.paradigms import base
from oneflow_jax.samplers import ar_guidance, ar_images, ar_state, autoregressive
from oneflow_jax.samplers.base import SampleOutput, SamplingPlan
from oneflow_jax.shapes import Array, Bool, Float, Int, Key, Outputs, Sums

LOSS_TERMS = ("text", "image", "z")
"""Of the loss."""


@flax.struct.dataclass
class Targets:
    """The tokens of the next slots; `text` and `image` are True where one is to be told."""

    ids: Int[Array, "L"]
    text: Bool[Array, "L"]
    image: Bool[Array, "L"]


@dataclasses.dataclass(frozen=True)
class Chameleon:
    """Next tokens, of words and of codes.

    Attributes:
        alphabet: what may be written.
        codes: range of the ids of codes.
        mix: how many documents are of the task `text_to_image`, and show their pictures alone.
        weights: of `LOSS_TERMS`.
    """

    alphabet: ar_state.TokenSpace
    codes: tuple[int, int]
    mix: tasks.TaskMixture
    weights: tuple[tuple[str, float], ...]
    attend = AttentionPattern.CAUSAL
    revises = False

    @property
    def heads(self) -> tuple[Head, ...]:
        """Logits of the next token."""
        return (Head("token_logits", self.alphabet.vocab, "vocab"),)

    @property
    def in_step(self) -> "Chameleon":
        """The same with whole documents alone: it knows no time."""
        return dataclasses.replace(self, mix=tasks.ALL_TARGETS)

    def counts(self, canvas: Canvas) -> Sums:
        """The slots of each kind that are not given, and of both."""
        made = base.target_counts(canvas)
        return made | {"z": made["text"] + made["image"]}

    def corrupt(
        self, key: Key[Array, ""], u: Float[Array, "L"], canvas: Canvas, table: EmbeddingTable
    ) -> tuple[NoisyCanvas, Targets]:
        """The row as it is, but for pictures that are shown alone."""
        clock = jnp.ones_like(u)
        dropped = canvas.is_text & (self.mix.draw(key, clock, canvas).clock < 1)
        told = jnp.where(canvas.is_image, int(Modality.TEXT), canvas.kind)
        shown = canvases.noisy_canvas(
            canvas.replace(kind=told), table.rows[canvas.ids], canvas.latents, clock
        )
        shown, bereft = ar_guidance.image_only_view(
            shown, canvas, dropped, self.alphabet.image_token
        )
        ids, words = next_token.next_text_targets(canvas)
        targets = Targets(
            ids=ids, text=words & ~bereft, image=next_token.next_image_token_mask(canvas)
        )
        return shown, targets

    def loss(self, outputs: Outputs, targets: Targets) -> dict[str, metrics.Average]:
        """One of each of `LOSS_TERMS`; the first two in nats."""
        logits = outputs["token_logits"]
        return {
            "text": losses.cross_entropy(logits, targets.ids, targets.text),
            "image": losses.cross_entropy(logits, targets.ids, targets.image),
            "z": losses.z_loss(logits, targets.text | targets.image),
        }

    def check(self, plan: SamplingPlan) -> None:
        """Tokens are written for good, and one after another.

        Raises:
            UserError: the plan is to revise, to remask, to read in another order, or to
                guide words.
        """
        base.validate_autoregressive("chameleon or dalle", plan)

    def evaluations(self, plan: SamplingPlan) -> int:
        """None that are of the plan's choosing: each token takes one."""
        del plan
        return 0

    def sample(
        self,
        apply: ar_guidance.CachedModel,
        table: EmbeddingTable,
        keys: Key[Array, "B"],
        canvas: Canvas,
        plan: SamplingPlan,
    ) -> SampleOutput:
        """Writes documents until all are finished."""
        guidance = ar_guidance.ARGuidance(plan.guidance, self.alphabet.image_token)
        codes = ar_images.TokenImageSampler(self.alphabet.vocab, self.codes, plan.words, guidance)
        return autoregressive.ARSampler(self.alphabet, codes, plan)(apply, table, keys, canvas)
