"""`mask_flow`: words come out from behind masks while the pictures beside them flow.

    text    each token is kept with probability κ(t) = t, else the mask       flows/masking.py
    image   x_t = (1 - t) eps + t patch                                       flows/gaussian.py
    loss    κ'/(1-κ) · cross-entropy of hidden tokens (weight capped)  +  |v̂ - v|^2
    sample  in each step one forward pass; some hidden tokens are read and never change again,
            unless remasking is asked for; pictures take a step of Euler's method

Discrete flow matching (Gat et al., 2024) in the form that masked diffusion has (Sahoo et al., MDLM,
2024; Nie et al., LLaDA, 2025). A slot's clock is its own: 0 while hidden, 1 once read. So the words
are told no time, as those methods can do without, and the pictures are told theirs.
"""

import dataclasses
import functools

import flax.struct
import jax
import jax.numpy as jnp
from clu import metrics

from oneflow_jax import canvas as canvases
from oneflow_jax.canvas import AttentionPattern, Canvas, EmbeddingTable, Head, NoisyCanvas
from oneflow_jax.flows import gaussian, losses, masking, predictions, tasks, time_samplers
from oneflow_jax.paradigms import base
from oneflow_jax.samplers import guidance, token_sampling
from oneflow_jax.samplers.base import SampleOutput, SamplingPlan, Trajectory, euler_nfe, make_output
from oneflow_jax.shapes import Array, Bool, Float, Int, Key, Outputs, Sums


@flax.struct.dataclass
class Targets:
    """What one corrupted row is scored against; `text` and `image` are True where scored."""

    ids: Int[Array, "L"]
    noise: Float[Array, "L C"]
    latents: Float[Array, "L C"]
    clock: Float[Array, "L"]
    weight: Float[Array, "L"]
    text: Bool[Array, "L"]
    image: Bool[Array, "L"]


@flax.struct.dataclass
class NoisyState:
    """A document on its way: its tokens, which of them are hidden, and its patches."""

    ids: Int[Array, "*b L"]
    hidden: Bool[Array, "*b L"]
    latents: Float[Array, "*b L C"]


@flax.struct.dataclass
class Interval:
    """The n-th step of the sampler, from time t to time s."""

    n: Int[Array, ""]
    t: Float[Array, ""]
    s: Float[Array, ""]


@dataclasses.dataclass(frozen=True)
class MaskFlow:
    """Masked words beside flowing pictures.

    Attributes:
        vocab: number of token ids, V.
        legal: ranges of the ids that may be written.
        image: what is predicted of patches.
        channels: numbers in a patch, C.
        mix: the tasks of training.
        clock: how often each time comes in training.
        cap: the highest weight of a hidden token.
        weights: weight of the terms `text` and `image`.
    """

    vocab: int
    legal: tuple[tuple[int, int], ...]
    image: predictions.PredictionType
    channels: int
    mix: tasks.TaskMixture
    clock: time_samplers.TimeSampler
    cap: float
    weights: tuple[tuple[str, float], ...]
    attend = AttentionPattern.BIDIRECTIONAL

    @property
    def heads(self) -> tuple[Head, ...]:
        """Logits of the token behind each mask, and one for patches."""
        return (
            Head("text_logits", self.vocab, "vocab"),
            Head("image", self.channels, "channels", zero=True),
        )

    @property
    def revises(self) -> bool:
        """By taking a document back to an earlier time."""
        return True

    @property
    def in_step(self) -> "MaskFlow":
        """The same, showing all of a document at its time u."""
        return dataclasses.replace(
            self, mix=tasks.ALL_TARGETS, clock=time_samplers.PowerTimeSampler()
        )

    def counts(self, canvas: Canvas) -> Sums:
        """The slots of each kind that are not given."""
        return base.target_counts(canvas)

    def corrupt(
        self, key: Key[Array, ""], u: Float[Array, "L"], canvas: Canvas, table: EmbeddingTable
    ) -> tuple[NoisyCanvas, Targets]:
        """The row with some of its words hidden and some of its pictures moved toward noise."""
        key_task, key_text, key_image = jax.random.split(key, 3)
        draw = self.mix.draw(key_task, self.clock(u), canvas)
        hidden = canvas.is_text & ~masking.keep_mask(key_text, draw.clock)
        noise = jax.random.normal(key_image, canvas.latents.shape)
        latents = gaussian.interpolate(noise, canvas.latents, draw.clock)
        targets = Targets(
            ids=canvas.ids,
            noise=noise,
            latents=canvas.latents,
            clock=draw.clock,
            weight=masking.unmask_rate(draw.clock, self.cap),
            text=draw.scored & hidden,
            image=draw.scored & canvas.is_image,
        )
        return _make_noisy_canvas(
            canvas, NoisyState(canvas.ids, hidden, latents), draw.clock, table
        ), targets

    def loss(self, outputs: Outputs, targets: Targets) -> dict[str, metrics.Average]:
        """The terms `text`, a bound on -log p in nats, and `image`."""
        return {
            "text": losses.cross_entropy(
                outputs["text_logits"], targets.ids, targets.text, targets.weight
            ),
            "image": self.image.loss(
                outputs["image"], targets.noise, targets.latents, targets.clock, targets.image
            ),
        }

    def check(self, plan: SamplingPlan) -> None:
        """Words jump, so pictures beside them can only take plain steps.

        Raises:
            UserError: the plan has another solver than Euler's.
        """
        base.require_euler("mask_flow", plan)

    def evaluations(self, plan: SamplingPlan) -> int:
        """NFE: one pass a step; each kind of guidance asks the network once more."""
        return euler_nfe(plan)

    def sample(
        self,
        apply: guidance.ApplyFn,
        table: EmbeddingTable,
        keys: Key[Array, "B"],
        canvas: Canvas,
        plan: SamplingPlan,
    ) -> SampleOutput:
        """Reads hidden words and carries patches from noise to data, all at the same time t.

        With a start above 0, the given content of free slots is partly hidden and partly turned to
        noise first: that is how a document is revised.
        """
        times = jnp.array([*plan.schedule.times, 1.0], jnp.float32)
        steps = jnp.arange(len(plan.schedule.times))
        key_noise, key_kept, key_steps = jnp.moveaxis(
            jax.vmap(functools.partial(jax.random.split, num=3))(keys), 1, 0
        )
        noise = jax.vmap(lambda key, x: jax.random.normal(key, x.shape))(key_noise, canvas.latents)
        apply = guidance.cross_modal_cfg(
            apply,
            canvas,
            heads=("text_logits", "image"),
            placeholders=(table.mask.reshape(1, 1, -1), noise),
            scales=(plan.guidance, plan.text_guidance),
        )

        def step(state: NoisyState, interval: Interval) -> tuple[NoisyState, NoisyState | None]:
            clock = jnp.where(canvas.free, interval.t, 1.0)
            outputs = apply(_make_noisy_canvas(canvas, state, clock, table))
            luck = jax.vmap(jax.random.fold_in, (0, None))(key_steps, interval.n)
            read = functools.partial(self._words, plan.words, interval)
            ids, hidden = jax.vmap(read)(luck, outputs["text_logits"], state, canvas)
            guess = self.image.clean(outputs["image"], state.latents, clock)
            guess = jnp.where((canvas.free & canvas.is_image)[..., None], guess, canvas.latents)
            until = jnp.where(canvas.free, interval.s, 1.0)
            latents = gaussian.euler_step(state.latents, guess, clock, until)
            return NoisyState(ids, hidden, latents), (state, guess) if plan.record else None

        start = self._start(key_kept, noise, canvas, times[0])
        last, path = jax.lax.scan(step, start, Interval(steps, times[:-1], times[1:]))
        done = canvas.replace(ids=last.ids, latents=last.latents)
        moments = _make_trajectory(done, path, last, times) if path else None
        return make_output(done, moments, self.evaluations(plan))

    def _start(
        self,
        keys: Key[Array, "B"],
        noise: Float[Array, "B L C"],
        canvas: Canvas,
        t: Float[Array, ""],
    ) -> NoisyState:
        clock = jnp.where(canvas.free, t, 1.0)
        kept = jax.vmap(masking.keep_mask)(keys, clock)
        latents = gaussian.interpolate(noise, canvas.latents, clock)
        return NoisyState(canvas.ids, canvas.is_text & ~kept, latents)

    def _words(
        self,
        choice: token_sampling.TokenSampling,
        interval: Interval,
        key: Key[Array, ""],
        logits: Float[Array, "L V"],
        state: NoisyState,
        canvas: Canvas,
    ) -> tuple[Int[Array, "L"], Bool[Array, "L"]]:
        """Tokens and what is hidden of them after a step, for one row."""
        key_token, key_order, key_again = jax.random.split(key, 3)
        legal = token_sampling.allowed_ids(self.legal, self.vocab)
        drawn = jax.random.categorical(
            key_token, token_sampling.sampling_log_probs(logits, legal, choice)
        )
        sigma = masking.remask_probability(interval.t, interval.s, choice.remask)
        share = masking.unmask_probability(interval.t, interval.s, sigma)
        certainty = token_sampling.token_probability(logits, drawn)
        now = token_sampling.select_to_unmask(
            key_order, state.hidden, share, certainty, choice.order
        )
        again = canvas.free & canvas.is_text & ~state.hidden
        again &= jax.random.uniform(key_again, again.shape) < sigma
        return jnp.where(now, drawn, state.ids), (state.hidden & ~now) | again


def _make_noisy_canvas(
    canvas: Canvas, state: NoisyState, time: Float[Array, "*b L"], table: EmbeddingTable
) -> NoisyCanvas:
    """What the network is shown: hidden tokens as the mask at t=0, the others clean at t=1."""
    mask = table.mask.reshape((1,) * canvas.ids.ndim + table.mask.shape)
    embeds = jnp.where(state.hidden[..., None], mask, table.rows[state.ids])
    text = jnp.where(state.hidden, 0.0, 1.0)
    time = jnp.where(canvas.is_text, text, time)
    return canvases.noisy_canvas(canvas, embeds, state.latents, time)


def _make_trajectory(
    final_canvas: Canvas,
    path: tuple[NoisyState, Float[Array, "S B L C"]],
    final_state: NoisyState,
    times: Float[Array, "T"],
) -> Trajectory:
    """The states before each step, closed by the finished sample at t=1."""
    states, guesses = path
    states = jax.tree.map(lambda x, end: jnp.concatenate([x, end[None]]), states, final_state)
    canvas = jax.tree.map(lambda x: jnp.broadcast_to(x, (times.shape[0], *x.shape)), final_canvas)
    return Trajectory(
        canvas=canvas.replace(ids=states.ids, latents=states.latents),
        clock=jnp.where(final_canvas.free, times[:, None, None], 1.0),
        certainty=jnp.where(states.hidden, 0.0, 1.0),
        guess=jnp.concatenate([guesses, final_state.latents[None]]),
        times=times,
    )
