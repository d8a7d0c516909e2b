"""Contrastive image and text encoders: small MLPs on image features and on bags of words.

The training follows Radford et al., Learning Transferable Visual Models From Natural Language
Supervision (CLIP, 2021), fig. 3, with small MLPs ("heads") instead of large networks. Each encoder
returns vectors of length 1. The loss is the symmetric cross entropy over a batch, with a learned
temperature.
"""

from collections.abc import Mapping

import jax
import jax.numpy as jnp
import numpy as np
import optax

from oneflow_jax.shapes import Array, Float

EMBED_DIM = 256
"""Dimension of the shared embedding space."""

NUM_STEPS = 1200
"""Default number of optimizer steps: an emoji classifier then labels most training images right."""

BATCH_SIZE = 512
"""Image-text pairs per step, or all pairs if there are fewer.

Each image occurs at most once in a batch; otherwise its copy would be a negative example for it.
"""

LEARNING_RATE = 1e-3
"""Initial learning rate; it decays to 0 with a cosine schedule."""

WEIGHT_DECAY, DROPOUT_RATE = 0.1, 0.3
"""Weight decay of AdamW, and fraction of image features that training replaces by their mean.

Without this regularization the heads overfit, because there are few images.
"""

MAX_LOGIT_SCALE = 100.0
"""Largest inverse temperature, as in CLIP."""

Params = Mapping[str, Float[Array, "..."]]
"""Weights by name: image head, text head, and the log of the inverse temperature."""


def encode_image(params: Params, features: Float[Array, "n f"]) -> Float[Array, "n d"]:
    """Encode image features as vectors of length 1."""
    x = (features - params["mean"][None]) / params["deviation"][None]
    return _projection_head(x, params["picture/in"], params["picture/out"])


def encode_text(params: Params, bags: Float[Array, "n V"]) -> Float[Array, "n d"]:
    """Encode bags of words (word frequencies) as vectors of length 1; an empty bag gives zeros."""
    return _projection_head(bags @ params["words"], params["phrase/in"], params["phrase/out"])


def loss(
    params: Params, features: Float[Array, "b f"], bags: Float[Array, "b V"]
) -> Float[Array, ""]:
    """Return CLIP's loss (fig. 3) of a batch in which row i of both arguments is a matching pair.

    The loss is the mean of the image-to-phrase and the phrase-to-image cross entropy over all
    pairs.
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
    """Train both heads with the contrastive loss and return their weights.

    Args:
        features: features of each image's c versions; a batch uses one random version per image.
        bags: word frequencies of each image's phrase.
        rng: random generator of the initial weights, the batches and the dropout.
        steps: number of optimizer steps.
    """
    params = _init_params(features, bags.shape[1], rng)
    fixed = {name: params[name] for name in ("mean", "deviation")}
    free = {name: value for name, value in params.items() if name not in fixed}
    rate = optax.cosine_decay_schedule(LEARNING_RATE, steps)
    is_matrix = {name: value.ndim == 2 for name, value in free.items()}
    optimizer = optax.adamw(rate, weight_decay=WEIGHT_DECAY, mask=is_matrix)

    @jax.jit
    def step(free: Params, state: optax.OptState, batch: Array, words: Array) -> tuple:
        grads = jax.grad(lambda free: loss(free | fixed, batch, words))(free)
        change, state = optimizer.update(grads, state, free)
        return optax.apply_updates(free, change), state

    state = optimizer.init(free)
    count, copies = features.shape[:2]
    for _ in range(steps):
        chosen = rng.choice(count, min(BATCH_SIZE, count), replace=False)
        batch = features[chosen, rng.integers(0, copies, len(chosen))] - params["mean"]
        batch *= (rng.random(batch.shape, np.float32) >= DROPOUT_RATE) / np.float32(
            1 - DROPOUT_RATE
        )
        free, state = step(free, state, batch + params["mean"], bags[chosen])
    return {name: np.asarray(value) for name, value in (free | fixed).items()}


def _init_params(
    features: Float[np.ndarray, "n c f"], vocab_size: int, rng: np.random.Generator
) -> dict[str, Float[np.ndarray, "..."]]:
    """Return random weights to train, and the fixed mean and std of the features."""
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
    # Without biases, an input of zeros gives an output of zeros.
    y = jax.nn.gelu(x @ w_in) @ w_out
    return y / (jnp.linalg.norm(y, axis=-1, keepdims=True) + 1e-6)
