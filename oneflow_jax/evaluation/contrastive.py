"""Two encoders that agree on what belongs together: pictures by their features, phrases by words.

Radford et al., Learning Transferable Visual Models From Natural Language Supervision (CLIP, 2021),
fig. 3, with small heads in the place of large networks: each side ends in vectors of length 1, and
the symmetric cross entropy over a batch, its temperature learned, draws those of a pair together.
"""

from collections.abc import Mapping

import jax
import jax.numpy as jnp
import numpy as np
import optax

from oneflow_jax.shapes import Array, Float

WIDTH = 256
"""Numbers of the vectors that are compared."""

STEPS = 1200
"""Of the optimizer: with them the judge of all emoji knows nearly every clean picture."""

BATCH = 512
"""Pairs of a step, or all if there are fewer. One comes once, not to be its own rival."""

RATE = 1e-3
"""Of learning, at first; it falls to 0 like a cosine."""

DECAY, DROPPED = 0.1, 0.3
"""Of weights, by step and rate; and of a picture's numbers, in training, the share that are put at
their mean. With so few pictures the heads learn them by heart otherwise."""

SHARPEST = 100.0
"""Largest inverse temperature, as CLIP's."""

Params = Mapping[str, Float[Array, "..."]]
"""Weights by name: of the picture's head, of the phrase's, and the logarithm of the sharpness."""


def picture(params: Params, seen: Float[Array, "n f"]) -> Float[Array, "n d"]:
    """Vectors of length 1, of pictures by their features."""
    x = (seen - params["mean"][None]) / params["deviation"][None]
    return _headed(x, params["picture/in"], params["picture/out"])


def phrase(params: Params, bags: Float[Array, "n V"]) -> Float[Array, "n d"]:
    """Vectors of length 1, of phrases by the shares of their words; 0 if there are no words."""
    return _headed(bags @ params["words"], params["phrase/in"], params["phrase/out"])


def loss(params: Params, seen: Float[Array, "b f"], bags: Float[Array, "b V"]) -> Float[Array, ""]:
    """Cross entropy of each picture's phrase among the batch's, and of each phrase's picture.

    CLIP's, fig. 3: the mean of both, over all pairs.
    """
    sharpness = jnp.minimum(jnp.exp(params["sharpness"]), SHARPEST)
    logits = sharpness * picture(params, seen) @ phrase(params, bags).T
    own = [jnp.diag(jax.nn.log_softmax(side)) for side in (logits, logits.T)]
    return -jnp.mean(jnp.stack(own))


def trained(
    seen: Float[np.ndarray, "n c f"],
    bags: Float[np.ndarray, "n V"],
    rng: np.random.Generator,
    steps: int,
) -> dict[str, Float[np.ndarray, "..."]]:
    """Weights that tell whose phrase is whose.

    Args:
        seen: features of each picture's copies, of which a batch takes one.
        bags: the phrase of each, as shares of words.
        rng: of the first weights, the batches, and what is left out in them.
        steps: of the optimizer.
    """
    params = _initial(seen, bags.shape[1], rng)
    fixed = {name: params[name] for name in ("mean", "deviation")}
    free = {name: value for name, value in params.items() if name not in fixed}
    rate = optax.cosine_decay_schedule(RATE, steps)
    is_matrix = {name: value.ndim == 2 for name, value in free.items()}
    optimizer = optax.adamw(rate, weight_decay=DECAY, mask=is_matrix)

    @jax.jit
    def step(free: Params, state: optax.OptState, some: Array, words: Array) -> tuple:
        slopes = jax.grad(lambda free: loss(free | fixed, some, words))(free)
        change, state = optimizer.update(slopes, state, free)
        return optax.apply_updates(free, change), state

    state = optimizer.init(free)
    count, copies = seen.shape[:2]
    for _ in range(steps):
        chosen = rng.choice(count, min(BATCH, count), replace=False)
        some = seen[chosen, rng.integers(0, copies, len(chosen))] - params["mean"]
        some *= (rng.random(some.shape, np.float32) >= DROPPED) / np.float32(1 - DROPPED)
        free, state = step(free, state, some + params["mean"], bags[chosen])
    return {name: np.asarray(value) for name, value in (free | fixed).items()}


def _initial(
    seen: Float[np.ndarray, "n c f"], words: int, rng: np.random.Generator
) -> dict[str, Float[np.ndarray, "..."]]:
    """Random weights; and the features' means and deviations, which training leaves as they are."""
    hidden = 2 * WIDTH

    def weights(rows: int, columns: int) -> np.ndarray:
        return (rng.standard_normal((rows, columns)) / np.sqrt(rows)).astype(np.float32)

    return {
        "mean": seen.mean(axis=(0, 1)),
        "deviation": seen.std(axis=(0, 1)) + np.float32(1e-3),
        "picture/in": weights(seen.shape[-1], hidden),
        "picture/out": weights(hidden, WIDTH),
        "words": weights(words, WIDTH) * np.float32(np.sqrt(words)),
        "phrase/in": weights(WIDTH, hidden),
        "phrase/out": weights(hidden, WIDTH),
        "sharpness": np.log(np.float32(1 / 0.07)),
    }


def _headed(x: Float[Array, "n w"], into: Array, out: Array) -> Float[Array, "n d"]:
    # Without biases, so that nothing comes of nothing.
    y = jax.nn.gelu(x @ into) @ out
    return y / (jnp.linalg.norm(y, axis=-1, keepdims=True) + 1e-6)
