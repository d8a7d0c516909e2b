"""How a model that writes from left to right makes the picture that comes next.

All rows that wait for one get theirs together: by a flow over all of its slots, or code by code.
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
    """Slots of a picture: codes or patches, as the paradigm has it, the others 0."""

    ids: Int[Array, "B N"]
    latents: Float[Array, "B N C"]


@flax.struct.dataclass
class ImageContext:
    """Where the next picture of each row is to be.

    Attributes:
        view: of the picture's slots, all given.
        source: the pictures of the rows whose picture is `given`.
        given: which rows' pictures are only to be read.
        logits: of the token after the last slot.
        cache: of all that comes before.
    """

    view: NoisyCanvas
    source: ImageContent
    given: Bool[Array, "B"]
    logits: Float[Array, "B V"]
    cache: PyTree


@flax.struct.dataclass
class ImageResult:
    """A picture that is made; the next token's logits, and the cache with it, not yet advanced."""

    picture: ImageContent
    logits: Float[Array, "B V"]
    cache: PyTree


class ImageSampler(Protocol):
    """Makes pictures.

    Attributes:
        shown: the kind that the network is told slots of pictures are of.
    """

    shown: Modality

    def passes(self, patches: int) -> int:
        """NFE of a picture of so many slots."""

    def __call__(
        self,
        network: CachedModel,
        table: EmbeddingTable,
        keys: Key[Array, "B"],
        place: ImageContext,
    ) -> ImageResult:
        """The pictures of all rows; a key for each row's picture."""


@dataclasses.dataclass(frozen=True)
class FlowImageSampler:
    """From noise to patches along a flow; one more pass puts the clean picture into the cache."""

    image: predictions.PredictionType
    schedule: ode.SolverSchedule
    guidance: ar_guidance.ARGuidance
    shown = Modality.IMAGE

    def passes(self, patches: int) -> int:
        """NFE, however many slots there are."""
        del patches
        return self.guidance.passes(self.schedule.evaluations) + 1

    def __call__(
        self,
        network: CachedModel,
        table: EmbeddingTable,
        keys: Key[Array, "B"],
        place: ImageContext,
    ) -> ImageResult:
        """The pictures of all rows; a key for each row's picture."""
        given, source, guidance = place.given, place.source, self.guidance
        read = given[:, None, None]
        draw = jax.vmap(lambda key: jax.random.normal(key, source.latents.shape[1:]))
        cache, _ = guidance.init_unconditional(
            network, table, place.view, place.cache, place.logits
        )

        def belief(t: Float[Array, ""], x: Float[Array, "B N C"]) -> Float[Array, "B N C"]:
            clock = jnp.broadcast_to(jnp.where(given, 1.0, t)[:, None], x.shape[:2])
            shown = jnp.where(read, source.latents, x)
            view = guidance.repeat(place.view.replace(latents=shown, clock=clock))
            # The cache is not advanced: the next pass overwrites what this one puts there.
            outputs, _ = network.after(view, cache)
            return self.image.clean(guidance.combine(outputs["image"]), shown, clock)

        def corrupt(
            step: Int[Array, ""], s: Float[Array, ""], clean: Float[Array, "B N C"]
        ) -> Float[Array, "B N C"]:
            fresh = draw(solve.step_keys(keys, step))
            return gaussian.interpolate(fresh, clean, jnp.broadcast_to(s, clean.shape[:2]))

        solution = solve.solve(belief, corrupt, draw(keys), self.schedule)
        made = jnp.where(read, source.latents, belief(solution.times[-1], solution.last))
        outputs, after = network.after(place.view.replace(latents=made), place.cache)
        return ImageResult(source.replace(latents=made), outputs["token_logits"][:, -1], after)


@dataclasses.dataclass(frozen=True)
class TokenImageSampler:
    """Code by code, in reading order.

    Attributes:
        vocab: number of token ids, V.
        codes: range of the ids of codes.
        choice: how they are drawn.
        guidance: of codes by words.
    """

    vocab: int
    codes: tuple[int, int]
    choice: token_sampling.TokenSampling
    guidance: ar_guidance.ARGuidance
    shown = Modality.TEXT

    def passes(self, patches: int) -> int:
        """NFE: one for each slot, or two."""
        return self.guidance.passes(patches)

    def __call__(
        self,
        network: CachedModel,
        table: EmbeddingTable,
        keys: Key[Array, "B"],
        place: ImageContext,
    ) -> ImageResult:
        """The pictures of all rows; a key for each row's picture."""
        given, source, guidance = place.given, place.source, self.guidance
        legal = token_sampling.allowed_ids((self.codes,), self.vocab)
        rows, count = source.ids.shape
        cache, logits = guidance.init_unconditional(
            network, table, place.view, place.cache, place.logits
        )

        def write(n: Int[Array, ""], drawn: ImageResult) -> ImageResult:
            logits = guidance.combine(drawn.logits)
            log_p = token_sampling.sampling_log_probs(logits[:, None], legal, self.choice)[:, 0]
            luck = jax.vmap(jax.random.fold_in, (0, None))(keys, n)
            code = jax.vmap(jax.random.categorical)(luck, log_p)
            code = jnp.where(given, source.ids[:, n], code)
            slot = jax.tree.map(lambda x: jax.lax.dynamic_slice_in_dim(x, n, 1, axis=1), place.view)
            slot = guidance.repeat(slot.replace(embeds=table.rows[code][:, None]))
            outputs, cache = network.after(slot, drawn.cache)
            picture = drawn.picture.replace(ids=drawn.picture.ids.at[:, n].set(code))
            one = jnp.ones(slot.kind.shape[0], jnp.int32)
            return ImageResult(picture, outputs["token_logits"][:, 0], cache.advanced(one))

        drawn = jax.lax.fori_loop(0, count, write, ImageResult(source, logits, cache))
        # What comes after the picture is not guided; and the cache is not yet to be advanced.
        after = drawn.cache.top(rows)
        return ImageResult(
            drawn.picture,
            drawn.logits[:rows],
            after.advanced(jnp.full(rows, -count, jnp.int32)),
        )
