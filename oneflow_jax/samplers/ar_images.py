"""Image samplers of autoregressive models: a flow over patches, or image tokens one by one.

A sampler generates one image for each row of a batch at the same time.
"""

import dataclasses
from typing import Protocol

import flax.struct
import jax
import jax.numpy as jnp

from oneflow_jax.canvas import EmbeddingTable, Modality, NoisyCanvas
from oneflow_jax.flows import gaussian, predictions
from oneflow_jax.samplers import ar_guidance, ode, solve, token_sampling
from oneflow_jax.samplers.ar_guidance import CachedModel
from oneflow_jax.shapes import Array, Bool, Float, Int, Key, PyTree


@flax.struct.dataclass
class ImageContent:
    """Content of the slots of one image per row.

    Attributes:
        ids: image tokens; 0 if the paradigm uses patches.
        latents: patches; 0 if the paradigm uses image tokens.
    """

    ids: Int[Array, "B N"]
    latents: Float[Array, "B N C"]


@flax.struct.dataclass
class ImageContext:
    """Inputs of an image sampler, with one image to generate in each row.

    Attributes:
        view: network input of the image's slots at time 1.
        prompt_image: image of the prompt; used in rows where `is_given` is True.
        is_given: True for rows whose image the prompt gives: the sampler copies it and only writes
            it to the KV cache.
        logits: logits of the next token after the last written slot.
        cache: KV cache of everything before the image.
    """

    view: NoisyCanvas
    prompt_image: ImageContent
    is_given: Bool[Array, "B"]
    logits: Float[Array, "B V"]
    cache: PyTree


@flax.struct.dataclass
class ImageResult:
    """A finished image, the logits of the next token, and the KV cache with the image.

    The caller must still advance the cache by the image's slots.
    """

    image: ImageContent
    logits: Float[Array, "B V"]
    cache: PyTree


class ImageSampler(Protocol):
    """Generates the next image of each row.

    Attributes:
        network_modality: modality of image slots in the network's input: IMAGE for patches, TEXT
            for image tokens.
    """

    network_modality: Modality

    def nfe(self, num_patches: int) -> int:
        """Return the NFE of an image of `num_patches` slots."""

    def __call__(
        self,
        network: CachedModel,
        table: EmbeddingTable,
        keys: Key[Array, "B"],
        context: ImageContext,
    ) -> ImageResult:
        """Generate the next image of each row, with one PRNG key per row."""


@dataclasses.dataclass(frozen=True)
class FlowImageSampler:
    """Generates patches with a flow; one more forward pass adds the clean image to the KV cache."""

    image_prediction: predictions.PredictionType
    schedule: ode.SolverSchedule
    guidance: ar_guidance.ARGuidance
    network_modality = Modality.IMAGE

    def nfe(self, num_patches: int) -> int:
        """Return the NFE, which does not depend on the number of slots."""
        del num_patches
        return self.guidance.nfe(self.schedule.nfe) + 1

    def __call__(
        self,
        network: CachedModel,
        table: EmbeddingTable,
        keys: Key[Array, "B"],
        context: ImageContext,
    ) -> ImageResult:
        """Generate the next image of each row, with one PRNG key per row."""
        is_given, source, guidance = context.is_given, context.prompt_image, self.guidance
        read = is_given[:, None, None]
        draw = jax.vmap(lambda key: jax.random.normal(key, source.latents.shape[1:]))
        cache, _ = guidance.init_unconditional(
            network, table, context.view, context.cache, context.logits
        )

        def predict_x1(
            t: Float[Array, ""], _: Float[Array, ""], x: Float[Array, "B N C"]
        ) -> Float[Array, "B N C"]:
            time = jnp.broadcast_to(jnp.where(is_given, 1.0, t)[:, None], x.shape[:2])
            latents = jnp.where(read, source.latents, x)
            view = guidance.repeat(context.view.replace(latents=latents, time=time))
            # The returned cache, which has the keys and values of the noisy image, is discarded. So
            # every forward pass begins with the cache of the slots before the image.
            outputs, _ = network.decode(view, cache)
            return self.image_prediction.to_x1(guidance.combine(outputs["image"]), latents, time)

        def corrupt(
            step: Int[Array, ""], s: Float[Array, ""], clean: Float[Array, "B N C"]
        ) -> Float[Array, "B N C"]:
            fresh = draw(solve.step_keys(keys, step))
            return gaussian.interpolate(fresh, clean, jnp.broadcast_to(s, clean.shape[:2]))

        stepper = solve.make_stepper(predict_x1, corrupt, self.schedule)
        state, t = ode.solve(stepper, draw(keys), self.schedule.times)
        latents = jnp.where(read, source.latents, predict_x1(t, t, state))
        outputs, after = network.decode(context.view.replace(latents=latents), context.cache)
        return ImageResult(source.replace(latents=latents), outputs["token_logits"][:, -1], after)


@dataclasses.dataclass(frozen=True)
class TokenImageSampler:
    """Generates image tokens one by one, in reading order.

    Attributes:
        vocab_size: number of token ids, V.
        code_id_range: range of the ids of image tokens.
        token_sampling: sampling parameters of image tokens.
        guidance: classifier-free guidance of image tokens.
    """

    vocab_size: int
    code_id_range: tuple[int, int]
    token_sampling: token_sampling.TokenSampling
    guidance: ar_guidance.ARGuidance
    network_modality = Modality.TEXT

    def nfe(self, num_patches: int) -> int:
        """Return the NFE; without guidance, it is one forward pass per slot."""
        return self.guidance.nfe(num_patches)

    def __call__(
        self,
        network: CachedModel,
        table: EmbeddingTable,
        keys: Key[Array, "B"],
        context: ImageContext,
    ) -> ImageResult:
        """Generate the next image of each row, with one PRNG key per row."""
        is_given, source, guidance = context.is_given, context.prompt_image, self.guidance
        legal = token_sampling.allowed_ids((self.code_id_range,), self.vocab_size)
        rows, count = source.ids.shape
        cache, logits = guidance.init_unconditional(
            network, table, context.view, context.cache, context.logits
        )

        def write(n: Int[Array, ""], drawn: ImageResult) -> ImageResult:
            logits = guidance.combine(drawn.logits)
            log_p = token_sampling.sampling_log_probs(logits[:, None], legal, self.token_sampling)[
                :, 0
            ]
            luck = jax.vmap(jax.random.fold_in, (0, None))(keys, n)
            code = jax.vmap(jax.random.categorical)(luck, log_p)
            code = jnp.where(is_given, source.ids[:, n], code)
            slot = jax.tree.map(
                lambda x: jax.lax.dynamic_slice_in_dim(x, n, 1, axis=1), context.view
            )
            slot = guidance.repeat(slot.replace(embeds=table.embedding[code][:, None]))
            outputs, cache = network.decode(slot, drawn.cache)
            picture = drawn.image.replace(ids=drawn.image.ids.at[:, n].set(code))
            one = jnp.ones(slot.modality.shape[0], jnp.int32)
            return ImageResult(picture, outputs["token_logits"][:, 0], cache.advance(one))

        drawn = jax.lax.fori_loop(0, count, write, ImageResult(source, logits, cache))
        # Keep only the conditional rows, since the token after the image is not guided. Undo the
        # advances of the loop, since the caller advances the cache.
        after = drawn.cache.first_rows(rows)
        return ImageResult(
            drawn.image,
            drawn.logits[:rows],
            after.advance(jnp.full(rows, -count, jnp.int32)),
        )
