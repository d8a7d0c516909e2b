"""`chameleon` and `dalle`: text tokens and image tokens in one vocabulary, autoregressive.

    input    clean tokens; a slot attends to the slots before it and itself (causal)
    loss     -log p(next token), for text and image tokens; z-loss (log Z)^2, which keeps logits
             small
    sample   token by token with a KV cache, image tokens too      samplers/autoregressive.py

Two paradigms use this code and differ only in layout and loss weights. `chameleon` follows
Chameleon Team, Chameleon: Mixed-Modal Early-Fusion Foundation Models, 2024: documents are in
reading order, queries and keys are normalized (as in all paradigms here), and the z-loss has weight
1e-5. `dalle` follows Ramesh et al., Zero-Shot Text-to-Image Generation, 2021: all text comes first
and then the image tokens, with loss weights 1:7.
"""

import dataclasses

import flax.struct
import jax.numpy as jnp
from clu import metrics

from oneflow_jax import canvas as canvases
from oneflow_jax.canvas import AttentionPattern, Canvas, EmbeddingTable, Head, Modality, NoisyCanvas
from oneflow_jax.flows import losses, next_token, tasks
from oneflow_jax.paradigms import base
from oneflow_jax.samplers import ar_guidance, ar_images, autoregressive, token_sampling
from oneflow_jax.samplers.base import SamplingPlan
from oneflow_jax.shapes import Array, Bool, Float, Int, Key, Outputs, Sums

LOSS_TERMS = ("text", "image", "z_loss")
"""Names of the loss terms."""


@flax.struct.dataclass
class Targets:
    """The next token of each slot, and masks of the slots whose next token is scored."""

    ids: Int[Array, "L"]
    text_scored: Bool[Array, "L"]
    image_scored: Bool[Array, "L"]


@dataclasses.dataclass(frozen=True)
class Chameleon:
    """Next-token prediction for text and image tokens.

    Attributes:
        token_space: the tokens that may be generated.
        code_id_range: range of the ids of image tokens.
        task_mixture: the training tasks and their probabilities. Where the text of a
            `text_to_image` document is dropped, the network sees only its images.
        weights: weights of `LOSS_TERMS`.
    """

    token_space: token_sampling.TokenSpace
    code_id_range: tuple[int, int]
    task_mixture: tasks.TaskMixture
    weights: tuple[tuple[str, float], ...]
    attention_pattern = AttentionPattern.CAUSAL
    supports_editing = False

    @property
    def heads(self) -> tuple[Head, ...]:
        """Logits of the next token."""
        return (Head("token_logits", self.token_space.vocab_size, "vocab"),)

    @property
    def at_shared_time(self) -> "Chameleon":
        """Copy of this paradigm without conditioning dropout; this paradigm has no times t."""
        return dataclasses.replace(self, task_mixture=tasks.ALL_TARGETS)

    def counts(self, canvas: Canvas) -> Sums:
        """Count the text slots and the image slots to generate, and their sum for the z-loss."""
        counts = base.target_counts(canvas)
        return counts | {"z_loss": counts["text"] + counts["image"]}

    def corrupt(
        self, key: Key[Array, ""], u: Float[Array, "L"], canvas: Canvas, table: EmbeddingTable
    ) -> tuple[NoisyCanvas, Targets]:
        """Return the clean row and its next-token targets.

        In documents with conditioning dropout, the network's input has no text except `<image>`.
        """
        time = jnp.ones_like(u)
        draw = self.task_mixture.sample(key, u, canvas, jnp.ones_like)
        dropped = canvas.is_text & (draw.time < 1)
        network_modality = jnp.where(canvas.is_image, int(Modality.TEXT), canvas.modality)
        view = canvases.noisy_canvas(
            canvas.replace(modality=network_modality),
            table.embedding[canvas.ids],
            canvas.latents,
            time,
        )
        view, image_only = ar_guidance.image_only_view(
            view, canvas, dropped, self.token_space.image_token_id
        )
        ids, is_scored_text = next_token.next_text_targets(canvas)
        targets = Targets(
            ids=ids,
            text_scored=is_scored_text & ~image_only,
            image_scored=next_token.next_image_token_mask(canvas),
        )
        return view, targets

    def loss(self, outputs: Outputs, targets: Targets) -> dict[str, metrics.Average]:
        """Return one loss term for each name in `LOSS_TERMS`; `text` and `image` are in nats."""
        logits = outputs["token_logits"]
        return {
            "text": losses.cross_entropy(logits, targets.ids, targets.text_scored),
            "image": losses.cross_entropy(logits, targets.ids, targets.image_scored),
            "z_loss": losses.z_loss(logits, targets.text_scored | targets.image_scored),
        }

    def validate(self, plan: SamplingPlan) -> None:
        """Check that the plan suits an autoregressive paradigm.

        Raises:
            UserError: the plan edits, remasks, unmasks in another order, or guides text.
        """
        base.validate_autoregressive("chameleon or dalle", plan)

    def nfe(self, plan: SamplingPlan) -> int:
        """Return 0: the plan does not set the NFE, since each token takes a forward pass."""
        del plan
        return 0

    def sampler(
        self,
        apply: ar_guidance.CachedModel,
        table: EmbeddingTable,
        keys: Key[Array, "B"],
        canvas: Canvas,
        plan: SamplingPlan,
    ) -> autoregressive.ARSampler:
        """Generate documents token by token until all are finished."""
        guidance = ar_guidance.ARGuidance(
            plan.image_guidance_scale, self.token_space.image_token_id
        )
        codes = ar_images.TokenImageSampler(
            self.token_space.vocab_size, self.code_id_range, plan.token_sampling, guidance
        )
        return autoregressive.make_sampler(
            self.token_space, codes, plan.token_sampling, apply, table, keys, canvas
        )
