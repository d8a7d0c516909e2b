"""Networks that are optimal for insertion: for one long text, and for a small language."""

import dataclasses
import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np

from oneflow_jax.canvas import Canvas, EmbeddingTable, InsertPolicy, Modality

BOS = 1


def empty_prompts(
    rows: int, length: int, channels: int = 2, insertable=InsertPolicy.TEXT
) -> Canvas:
    """Return empty documents: BOS and free slots."""
    first = jnp.tile(jnp.arange(length) == 0, (rows, 1))
    return Canvas(
        ids=jnp.where(first, BOS, 0),
        latents=jnp.zeros((rows, length, channels)),
        modality=jnp.where(first, int(Modality.TEXT), int(Modality.PAD)),
        segment=jnp.where(first, 1, 0),
        span=jnp.where(first, 1, 0),
        position=jnp.zeros((rows, length, 3), int),
        is_given=first,
        insertable=jnp.where(first, int(insertable), 0),
    )


def one_hot_table(vocab: int) -> EmbeddingTable:
    """Return one-hot token embeddings, so that networks can read the ids."""
    return EmbeddingTable(embedding=jnp.eye(vocab), mask_embedding=jnp.zeros(vocab))


def decode_ids(view) -> jax.Array:
    return jnp.argmax(view.embeds, axis=-1)


def head_outputs(view, empty, count, logits):
    """Return head outputs for π (`empty`: a bool, or a logit), λ (`count`) and log Q (`logits`)."""
    raw = jnp.log(jnp.expm1(jnp.maximum(count - 1, 1e-6)))  # softplus(raw) = λ - 1
    return {
        "gap_empty": jnp.where(empty, 60.0, -60.0)[..., None] if empty.dtype == bool else empty,
        "gap_count": raw[..., None],
        "gap_logits": logits,
        "image": view.latents * 0,
    }


def counting_model(last: int, vocab: int):
    """Return the optimal network for the text BOS, 2, 3, ... `last`."""

    def apply(view):
        ids = jnp.where(view.modality == Modality.TEXT, decode_ids(view), vocab)
        after = jnp.where(ids[:, None, :] > ids[:, :, None], ids[:, None, :], last + 1)
        following = jnp.min(after, axis=-1)
        missing = following - ids - 1
        number = jnp.arange(vocab)[None, None]
        inside = (number > ids[..., None]) & (number < following[..., None])
        return head_outputs(view, missing <= 0, missing.astype(float), jnp.where(inside, 0.0, -1e9))

    return apply


@dataclasses.dataclass(frozen=True)
class Language:
    """A distribution over texts, possibly of different lengths."""

    texts: tuple[tuple[int, ...], ...]
    probs: tuple[float, ...]
    vocab: int

    @property
    def max_length(self) -> int:
        return max(map(len, self.texts))

    @functools.cached_property
    def deletions(self):
        """Enumerate all ways to delete tokens of a text.

        Each result has the kept tokens, the missing tokens of each gap, and the probability of the
        text.
        """
        slots, ways = self.max_length + 1, []
        for text, share in zip(self.texts, self.probs, strict=True):
            for keep_mask in itertools.product((False, True), repeat=len(text)):
                left, bags = [], np.zeros((slots, self.vocab))
                for token, is_kept in zip(text, keep_mask, strict=True):
                    if is_kept:
                        left.append(token)
                    else:
                        bags[len(left), token] += 1
                ways.append(
                    (left + [0] * (slots - 1 - len(left)), len(left), len(text), share, bags)
                )
        left, n, length, share, bags = (jnp.array(np.array(x)) for x in zip(*ways, strict=True))
        return left, n, length, share, bags

    def optimal_model(self, time_conditioned: bool):
        """Return the optimal network, which gets the kept tokens and, optionally, their time."""
        left, n, length, share, bags = self.deletions

        def row(ids, order, text, clock):
            slots = self.max_length + 1
            there = text & (order > 0)
            visible = (
                jnp.zeros(slots, int).at[jnp.where(there, order - 1, slots)].set(ids, mode="drop")
            )
            fits = jnp.all(left == visible[None, : slots - 1], axis=1) & (n == jnp.sum(there))
            t = clock[0] if time_conditioned else 0.5
            weight = share * fits * t**n * (1 - t) ** (length - n)
            weight = weight / jnp.maximum(jnp.sum(weight), 1e-30)
            sizes = jnp.sum(bags, axis=-1)
            empty = jnp.einsum("w,wg->g", weight, sizes == 0)
            expected = jnp.einsum("w,wg->g", weight, sizes)
            tokens = jnp.einsum("w,wgv->gv", weight, bags)
            known = jnp.sum(weight) > 0.5
            empty = jnp.where(known, jnp.clip(empty, 1e-7, 1 - 1e-7), 1 - 1e-7)
            at = jnp.clip(order, 0, slots - 1)
            return (
                jnp.log(empty / (1 - empty))[at],
                (expected / (1 - empty))[at],
                jnp.log(tokens + 1e-12)[at],
            )

        def apply(view):
            text = view.modality == Modality.TEXT
            # At t = 0 and t = 1, rows in which some of the tokens are kept would get no weight.
            clock = jnp.clip(view.time, 1e-4, 1 - 1e-4)
            heads = jax.vmap(row)(decode_ids(view), view.position[..., 0], text, clock)
            return head_outputs(view, heads[0][..., None], heads[1], heads[2])

        return apply

    def frequencies(self, canvas) -> np.ndarray:
        """Return the frequency of each text in samples, and of all other texts together."""
        text = np.asarray(canvas.is_text)
        order, ids = np.asarray(canvas.position[..., 0]), np.asarray(canvas.ids)
        came = [
            tuple(ids[b][text[b]][np.argsort(order[b][text[b]])][1:].tolist())
            for b in range(len(ids))
        ]
        hits = [np.mean([one == text for one in came]) for text in self.texts]
        return np.array([*hits, 1 - sum(hits)])
