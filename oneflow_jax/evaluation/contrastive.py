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

EMBED_DIM = 256
"""Numbers of the vectors that are compared."""

NUM_STEPS = 1200
"""Of the optimizer: with them the judge of all emoji knows nearly every clean picture."""

BATCH_SIZE = 512
"""Pairs of a step, or all if there are fewer. One comes once, not to be its own rival."""

LEARNING_RATE = 1e-3
"""Of learning, at first; it falls to 0 like a cosine."""

WEIGHT_DECAY, DROPOUT_RATE = 0.1, 0.3
"""Of weights, by step and rate; and of a picture's numbers, in training, the share that are put at
their mean. With so few pictures the heads learn them by heart otherwise."""

MAX_LOGIT_SCALE = 100.0
"""Largest inverse temperature, as CLIP's."""

Params = Mapping[str, Float[Array, "..."]]
"""Weights by name: of the picture's head, of the phrase's, and the logarithm of the sharpness."""


def encode_image(params: Params, features: Float[Array, "n f"]) -> Float[Array, "n d"]:
    """Vectors of length 1, of pictures by their features."""
    x = (features - params["mean"][None]) / params["deviation"][None]
    return _projection_head(x, params["picture/in"], params["picture/out"])


def encode_text(params: Params, bags: Float[Array, "n V"]) -> Float[Array, "n d"]:
    """Vectors of length 1, of phrases by the shares of their words; 0 if there are no words."""
    return _projection_head(bags @ params["words"], params["phrase/in"], params["phrase/out"])


def loss(
    params: Params, features: Float[Array, "b f"], bags: Float[Array, "b V"]
) -> Float[Array, ""]:
    """Cross entropy of each picture's phrase among the batch's, and of each phrase's picture.

    CLIP's, fig. 3: the mean of both, over all pairs.
    """
    sharpness = jnp.minimum(jnp.exp(params["sharpness"]), MAX_LOGIT_SCALE)
    logits = sharpness * encode_image(params, features) @ encode_text(params, bags).T
    own = [jnp.diag(jax.nn.log_softmax(side)) for side in (logits, logits.T)]
    return -jnp.mean(jnp.stack(own))


def train(
    features: Float[np.ndarray, "n c f"],
    bags: Float[np.ndarray, "n V"],
    rng: np.random.Generator,
    steps: int,
) -> dict[str, Float[np.ndarray, "..."]]:
    """Weights that tell whose phrase is whose.

    Args:
        features: features of each picture's copies, of which a batch takes one.
        bags: the phrase of each, as shares of words.
        rng: of the first weights, the batches, and what is left out in them.
        steps: of the optimizer.
    """
    params = _init_params(features, bags.shape[1], rng)
    fixed = {name: params[name] for name in ("mean", "deviation")}
    free = {name: value for name, value in params.items() if name not in fixed}
    rate = optax.cosine_decay_schedule(LEARNING_RATE, steps)
    is_matrix = {name: value.ndim == 2 for name, value in free.items()}
    optimizer = optax.adamw(rate, weight_decay=WEIGHT_DECAY, mask=is_matrix)

    @jax.jit
    def step(free: Params, state: optax.OptState, some: Array, words: Array) -> tuple:
        slopes = jax.grad(lambda free: loss(free | fixed, some, words))(free)
        change, state = optimizer.update(slopes, state, free)
        return optax.apply_updates(free, change), state

    state = optimizer.init(free)
    count, copies = features.shape[:2]
    for _ in range(steps):
        chosen = rng.choice(count, min(BATCH_SIZE, count), replace=False)
        some = features[chosen, rng.integers(0, copies, len(chosen))] - params["mean"]
        some *= (rng.random(some.shape, np.float32) >= DROPOUT_RATE) / np.float32(1 - DROPOUT_RATE)
        free, state = step(free, state, some + params["mean"], bags[chosen])
    return {name: np.asarray(value) for name, value in (free | fixed).items()}


def _init_params(
    features: Float[np.ndarray, "n c f"], vocab_size: int, rng: np.random.Generator
) -> dict[str, Float[np.ndarray, "..."]]:
    """Random weights; and the features' means and deviations, which training leaves as they are."""
    hidden = 2 * EMBED_DIM

    def weights(rows: int, columns: int) -> np.ndarray:
        return (rng.standard_normal((rows, columns)) / np.sqrt(rows)).astype(np.float32)

    return {
        "mean": features.mean(axis=(0, 1)),
        "deviation": features.std(axis=(0, 1)) + np.float32(1e-3),
        "picture/in": weights(features.shape[-1], hidden),
        "picture/out": weights(hidden, EMBED_DIM),
        "words": weights(vocab_size, EMBED_DIM) * np.float32(np.sqrt(vocab_size)),
        "phrase/in": weights(EMBED_DIM, hidden),
        "phrase/out": weights(hidden, EMBED_DIM),
        "sharpness": np.log(np.float32(1 / 0.07)),
    }


def _projection_head(x: Float[Array, "n w"], w_in: Array, w_out: Array) -> Float[Array, "n d"]:
    # Without biases, so that nothing comes of nothing.
    y = jax.nn.gelu(x @ w_in) @ w_out
    return y / (jnp.linalg.norm(y, axis=-1, keepdims=True) + 1e-6)
