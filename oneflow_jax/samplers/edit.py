"""The sampler of `edit_flow`: documents grow, one forward pass a step, until every clock is at 1.

The run's time τ follows the plan's grid from 0 to 1 and then once more to 2. Text is written until
τ=1. A picture that was there from the start has time τ; one born at τ' has time τ - τ'. A revision
begins at the plan's start, with all that is there at t=1.
"""

import dataclasses
import functools
from collections.abc import Callable

import flax.struct
import jax
import jax.numpy as jnp

from oneflow_jax import canvas as canvases
from oneflow_jax.canvas import Canvas, EmbeddingTable, InsertPolicy, NoisyCanvas
from oneflow_jax.flows import deletion, gaussian, predictions
from oneflow_jax.samplers import edit_ops, guidance, insertion, token_sampling
from oneflow_jax.samplers.base import SampleOutput, SamplingPlan, Trajectory, empty_trajectory
from oneflow_jax.shapes import Array, Bool, Float, Int, Key, Outputs

RowOp = Callable[..., insertion.GrowingCanvas]
"""Of one row in one step."""


@dataclasses.dataclass(frozen=True)
class TokenSpace:
    """What may be inserted.

    Attributes:
        vocab: number of token ids, V.
        words: range of the ids that may be written.
        image_token: the id whose insertion is the birth of a picture.
        grid: rows and columns of a picture, in patches.
    """

    vocab: int
    words: tuple[int, int]
    image_token: int
    grid: tuple[int, int]


@flax.struct.dataclass
class LoopState:
    """The documents after n steps, each row's key (the same all along), and the moments so far."""

    n: Int[Array, ""]
    keys: Key[Array, "B"]
    rows: insertion.GrowingCanvas
    moments: Trajectory | None


@dataclasses.dataclass(frozen=True)
class EditSampler:
    """Grows documents out of their prompts.

    Attributes:
        alphabet: what may be inserted.
        image: what is predicted of patches.
        text_clock: whether BOS is told the time of the text.
        plan: grid, guidance, how tokens are drawn.
    """

    alphabet: TokenSpace
    image: predictions.PredictionType
    text_clock: bool
    plan: SamplingPlan

    @property
    def taus(self) -> tuple[float, ...]:
        """All times of the run that there may be, up to 2: words until 1, then what is left."""
        grid = self.plan.schedule.times
        start = grid[0]
        return (*grid, *(1 + (t - start) / (1 - start) for t in grid), 2.0)

    def __call__(
        self, apply: guidance.ApplyFn, table: EmbeddingTable, keys: Key[Array, "B"], canvas: Canvas
    ) -> SampleOutput:
        """The finished documents; a key for each row."""
        both = jax.vmap(jax.random.split)(keys)
        noise = jax.vmap(lambda key, x: jax.random.normal(key, x.shape))(both[:, 0], canvas.latents)
        apply = self._with_guidance(apply)
        taus = jnp.array(self.taus, jnp.float32)

        def step(progress: LoopState) -> LoopState:
            n, rows = progress.n, progress.rows
            t, s = taus[n], taus[n + 1]
            outputs = apply(self._view(rows, t, table))
            clock = rows.clock(t)
            guess = self.image.clean(outputs["image"], rows.canvas.latents, clock)
            guess = jnp.where((clock < 1)[..., None], guess, rows.canvas.latents)
            latents = gaussian.euler_step(rows.canvas.latents, guess, clock, rows.clock(s))
            grown = rows.replace(canvas=rows.canvas.replace(latents=latents))
            luck = jax.vmap(jax.random.fold_in, (0, None))(progress.keys, n)
            for n_change, change in enumerate(self._changes):
                key = jax.vmap(jax.random.fold_in, (0, None))(luck, n_change)
                grown = jax.vmap(functools.partial(change, t, s))(key, outputs, grown, noise)
            moments = progress.moments and _record(progress.moments, n, rows, clock, guess, t)
            return progress.replace(n=n + 1, rows=grown, moments=moments)

        if self.plan.revises:
            rows = jax.vmap(insertion.from_document)(canvas)
        else:
            rows = jax.vmap(insertion.from_prompt)(canvas, noise)
        moments = empty_trajectory(rows.canvas, len(self.taus)) if self.plan.record else None
        end = jax.lax.while_loop(
            lambda p: (p.n < len(self.taus) - 1) & _is_active(p.rows, taus[p.n]),
            step,
            LoopState(jnp.int32(0), both[:, 1], rows, moments),
        )
        last, tau = end.rows, taus[end.n]
        if end.moments:
            moments = _record(end.moments, end.n, last, last.clock(tau), last.canvas.latents, tau)
        passes = end.n * guidance.nfe_factor(self.plan.guidance, self.plan.text_guidance)
        return SampleOutput(canvas=last.canvas, moments=moments, passes=passes, full=last.full)

    @property
    def _changes(self) -> tuple[RowOp, ...]:
        # First what is there, for of what comes in the network has said nothing yet.
        return (self._correct, self._write) if self.plan.revises else (self._write,)

    def _correct(
        self,
        t: Float[Array, ""],
        s: Float[Array, ""],
        key: Key[Array, ""],
        outputs: Outputs,
        row: insertion.GrowingCanvas,
        noise: Float[Array, "L C"],
    ) -> insertion.GrowingCanvas:
        """One row after the deletions and replacements of a step."""
        key_fate, key_word = jax.random.split(key)
        share = deletion.insert_probability(t, jnp.minimum(s, 1.0), jnp.float32(1.0))
        share = jnp.where(t < 1 - insertion.TIME_EPS, share, 0.0)
        judged = row.canvas.free & (row.canvas.is_text | (row.clock(t) == 1))
        legal = token_sampling.allowed_ids((self.alphabet.words,), self.alphabet.vocab)
        log_p = token_sampling.sampling_log_probs(outputs["word_logits"], legal, self.plan.words)
        return edit_ops.apply_edit_ops(
            row,
            edit_ops.sample_edit_ops(key_fate, outputs["fate"], share, judged, row.canvas),
            jax.random.categorical(key_word, log_p),
            noise=noise,
            run_time=s,
        )

    def _write(
        self,
        t: Float[Array, ""],
        s: Float[Array, ""],
        key: Key[Array, ""],
        outputs: Outputs,
        row: insertion.GrowingCanvas,
        noise: Float[Array, "L C"],
    ) -> insertion.GrowingCanvas:
        """One row after the insertions of a step."""
        key_event, key_token = jax.random.split(key)
        canvas, alphabet = row.canvas, self.alphabet
        some = jax.nn.sigmoid(-outputs["gap_empty"][:, 0])
        count = jnp.exp(outputs["gap_log_count"][:, 0])
        chance = some * deletion.insert_probability(t, jnp.minimum(s, 1.0), count)
        happens = jax.random.uniform(key_event, chance.shape) < chance
        wanted = happens & (canvas.opening != InsertPolicy.CLOSED) & (t < 1 - insertion.TIME_EPS)
        births = canvas.opening == InsertPolicy.ANYTHING
        token = alphabet.image_token
        legal = token_sampling.allowed_ids((alphabet.words, (token, token + 1)), alphabet.vocab)
        logits = outputs["gap_logits"].at[:, token].add(jnp.where(births, 0.0, -jnp.inf))
        log_p = token_sampling.sampling_log_probs(logits, legal, self.plan.words)
        return insertion.insert(
            row,
            wanted,
            jax.random.categorical(key_token, log_p),
            image_token_id=token,
            grid=alphabet.grid,
            noise=noise,
            run_time=s,
        )

    def _view(
        self, rows: insertion.GrowingCanvas, t: Float[Array, ""], table: EmbeddingTable
    ) -> NoisyCanvas:
        canvas = rows.canvas
        revised = canvas.is_text & self.plan.revises
        clock = network_times(canvas, rows.clock(t), jnp.minimum(t, 1.0), revised, self.text_clock)
        return canvases.noisy_canvas(canvas, table.rows[canvas.ids], canvas.latents, clock)

    def _with_guidance(self, apply: guidance.ApplyFn) -> guidance.ApplyFn:
        """With λ in logarithms, so that guidance mixes rates geometrically (OneFlow, eq. 12)."""

        def with_log(view: NoisyCanvas) -> Outputs:
            outputs = apply(view)
            return outputs | {"gap_log_count": log_num_missing(outputs["gap_count"])[..., None]}

        return guidance.cfg_by_removal(
            with_log,
            heads=(("gap_empty", "gap_log_count", "gap_logits"), ("image",)),
            scales=(self.plan.guidance, self.plan.text_guidance),
        )


def log_num_missing(raw: Float[Array, "*b L 1"]) -> Float[Array, "*b L"]:
    """Log of λ = 1 + softplus(raw): of a gap that lacks something, at least one is missing."""
    return jnp.log1p(jax.nn.softplus(raw[..., 0]))


def network_times(
    canvas: Canvas,
    time: Float[Array, "*b L"],
    t: Float[Array, "*t"],
    edited: Bool[Array, "*r"],
    condition_on_text_time: bool,
) -> Float[Array, "*b L"]:
    """What slots are told: pictures their `time`; text 1, for it is clean, unless it is `edited`.

    Then it is told the time t of the document; and so is BOS, if there is a
    `condition_on_text_time`.
    """
    begins = canvas.is_text & (canvas.position[..., 0] == 0)
    return jnp.where(
        canvas.is_image, time, jnp.where(edited | (begins & condition_on_text_time), t, 1.0)
    )


def _is_active(rows: insertion.GrowingCanvas, run_time: Float[Array, ""]) -> Bool[Array, ""]:
    words = jnp.any(rows.canvas.opening != InsertPolicy.CLOSED) & (
        run_time < 1 - insertion.TIME_EPS
    )
    return words | jnp.any(rows.clock(run_time) < 1)


def _record(
    trajectory: Trajectory,
    step: Int[Array, ""],
    rows: insertion.GrowingCanvas,
    time: Float[Array, "B L"],
    x1_hat: Float[Array, "B L C"],
    run_time: Float[Array, ""],
) -> Trajectory:
    """The moments with the n-th written down."""
    return trajectory.replace(
        canvas=jax.tree.map(lambda path, x: path.at[step].set(x), trajectory.canvas, rows.canvas),
        clock=trajectory.clock.at[step].set(time),
        guess=trajectory.guess.at[step].set(x1_hat),
        times=trajectory.times.at[step].set(run_time),
    )
