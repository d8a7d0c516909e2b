"""`transfusion`: autoregressive text, and a flow for each image.

Zhou et al., Transfusion: Predict the Next Token and Diffuse Images with One Multi-Modal Model,
2024. Flow matching replaces DDPM, so that all paradigms here train images in the same way.

    input    clean text; each image at its own time t, x_t = (1 - t) eps + t patch
    network  a slot attends to the slots before it, and to all slots of its own image
    loss     -log p(next token) at every slot that precedes text  +  |v̂ - v|^2 of patches
    sample   token by token with a KV cache; a flow for each image     samplers/autoregressive.py

In documents of the task `image_to_text` the images are clean, because in sampling text attends to
clean images. The paper instead limits the noise of images that precede their captions. In a
fraction of the documents of the task `text_to_image`, the network sees only the images. This trains
the unconditional branch of guidance (`samplers.ar_guidance`).
"""

import dataclasses
from collections.abc import Callable

import flax.struct
import jax
import jax.numpy as jnp
from clu import metrics

from oneflow_jax import canvas as canvases
from oneflow_jax.canvas import AttentionPattern, Canvas, EmbeddingTable, Head, NoisyCanvas
from oneflow_jax.flows import gaussian, losses, next_token, predictions, tasks, time_samplers
from oneflow_jax.paradigms import base
from oneflow_jax.samplers import ar_guidance, ar_images, autoregressive, token_sampling
from oneflow_jax.samplers.base import SamplingPlan
from oneflow_jax.shapes import Array, Bool, Float, Int, Key, Outputs, Sums


@flax.struct.dataclass
class Targets:
    """Targets of one row; `text_scored` and `image_scored` are True where scored.

    `ids` has the next token of each slot.
    """

    ids: Int[Array, "L"]
    noise: Float[Array, "L C"]
    latents: Float[Array, "L C"]
    time: Float[Array, "L"]
    text_scored: Bool[Array, "L"]
    image_scored: Bool[Array, "L"]


def own_image_times(key: Key[Array, ""], u: Float[Array, "L"], canvas: Canvas) -> Float[Array, "L"]:
    """Return a uniform number for each image, independent of those of other images.

    The number is u plus a random uniform number of the image, modulo 1; it is independent of u.
    """
    return jnp.mod(u + tasks.uniform_per_group(key, canvas.span), 1.0)


def shared_image_times(
    key: Key[Array, ""], u: Float[Array, "L"], canvas: Canvas
) -> Float[Array, "L"]:
    """Return the document's u for every image, so that all its images have the same time."""
    del key, canvas
    return u


@dataclasses.dataclass(frozen=True)
class Transfusion:
    """Next-token prediction for text, and a flow for each image.

    Attributes:
        token_space: the tokens that may be generated.
        image_prediction: what the network predicts for patches: v or x_1.
        channels: numbers in a patch, C.
        task_mixture: the training tasks and their probabilities.
        time_sampler: the distribution of t in training.
        weights: weights of the terms `text` and `image`; 1 and 5 in the paper.
        image_times: function that returns the uniform number of each image, from which
            `time_sampler` computes its time.
    """

    token_space: token_sampling.TokenSpace
    image_prediction: predictions.PredictionType
    channels: int
    task_mixture: tasks.TaskMixture
    time_sampler: time_samplers.TimeSampler
    weights: tuple[tuple[str, float], ...]
    image_times: Callable[[Key[Array, ""], Float[Array, "L"], Canvas], Float[Array, "L"]] = (
        own_image_times
    )
    attention_pattern = AttentionPattern.MIXED
    supports_editing = False

    @property
    def heads(self) -> tuple[Head, ...]:
        """Two heads: logits of the next token, and v or x_1 of patches."""
        return (
            Head("token_logits", self.token_space.vocab_size, "vocab"),
            Head("image", self.channels, "channels", zero_init=True),
        )

    @property
    def at_shared_time(self) -> "Transfusion":
        """Copy of this paradigm in which all images of a document have the same time, t = u."""
        return dataclasses.replace(
            self,
            task_mixture=tasks.ALL_TARGETS,
            time_sampler=time_samplers.PowerTimeSampler(),
            image_times=shared_image_times,
        )

    def counts(self, canvas: Canvas) -> Sums:
        """Count the slots of each modality to generate."""
        return base.target_counts(canvas)

    def corrupt(
        self, key: Key[Array, ""], u: Float[Array, "L"], canvas: Canvas, table: EmbeddingTable
    ) -> tuple[NoisyCanvas, Targets]:
        """Noise each image that is not given to its own time, except in `image_to_text` documents.

        In documents with conditioning dropout, the network's input has no text except `<image>`.
        """
        key_task, key_time, key_image = jax.random.split(key, 3)
        # With t = 1 for all slots, the task mixture returns time 0 exactly where the condition is
        # dropped.
        draw = self.task_mixture.sample(key_task, u, canvas, jnp.ones_like)
        flows = (
            canvas.to_generate & canvas.is_image & (draw.task != tasks.NAMES.index("image_to_text"))
        )
        image_time = self.time_sampler(self.image_times(key_time, u, canvas))
        time = jnp.where(flows, image_time, 1.0)
        noise = jax.random.normal(key_image, canvas.latents.shape)
        latents = gaussian.interpolate(noise, canvas.latents, time)
        ids, is_scored_text = next_token.next_text_targets(canvas)
        view = canvases.noisy_canvas(canvas, table.embedding[canvas.ids], latents, time)
        dropped = canvas.is_text & (draw.time < 1)
        view, image_only = ar_guidance.image_only_view(
            view, canvas, dropped, self.token_space.image_token_id
        )
        return view, Targets(
            ids=ids,
            noise=noise,
            latents=canvas.latents,
            time=time,
            text_scored=is_scored_text & ~image_only,
            image_scored=flows,
        )

    def loss(self, outputs: Outputs, targets: Targets) -> dict[str, metrics.Average]:
        """Return the loss terms `text` (-log p in nats) and `image`."""
        return {
            "text": losses.cross_entropy(outputs["token_logits"], targets.ids, targets.text_scored),
            "image": self.image_prediction.loss(
                outputs["image"], targets.noise, targets.latents, targets.time, targets.image_scored
            ),
        }

    def validate(self, plan: SamplingPlan) -> None:
        """Check that the plan suits an autoregressive paradigm.

        Raises:
            UserError: the plan edits, remasks, unmasks in another order, or guides text.
        """
        base.validate_autoregressive(type(self).__name__.lower(), plan)

    def nfe(self, plan: SamplingPlan) -> int:
        """Return the number of forward passes (NFE) of one image's flow, guidance included.

        Sampling takes further passes that are not counted: one per text token, and one per image,
        which adds the clean image to the KV cache.
        """
        return self._make_image_sampler(plan).nfe(self.token_space.patches_per_image) - 1

    def sampler(
        self,
        apply: ar_guidance.CachedModel,
        table: EmbeddingTable,
        keys: Key[Array, "B"],
        canvas: Canvas,
        plan: SamplingPlan,
    ) -> autoregressive.ARSampler:
        """Generate documents token by token until all are finished."""
        return autoregressive.make_sampler(
            self.token_space,
            self._make_image_sampler(plan),
            plan.token_sampling,
            apply,
            table,
            keys,
            canvas,
        )

    def _make_image_sampler(self, plan: SamplingPlan) -> ar_images.FlowImageSampler:
        guidance = ar_guidance.ARGuidance(
            plan.image_guidance_scale, self.token_space.image_token_id
        )
        return ar_images.FlowImageSampler(self.image_prediction, plan.schedule, guidance)
