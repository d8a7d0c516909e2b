"""Networks that know what is missing: of one long text, and of a language small enough to list."""

import dataclasses
import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np

from oneflow_jax.canvas import Canvas, EmbeddingTable, InsertPolicy, Modality

BOS = 1


def empty_prompts(
    rows: int, length: int, channels: int = 2, insertable=InsertPolicy.WORDS
) -> Canvas:
    """Empty documents: BOS, and room."""
    first = jnp.tile(jnp.arange(length) == 0, (rows, 1))
    return Canvas(
        ids=jnp.where(first, BOS, 0),
        latents=jnp.zeros((rows, length, channels)),
        kind=jnp.where(first, int(Modality.TEXT), int(Modality.PAD)),
        segment=jnp.where(first, 1, 0),
        span=jnp.where(first, 1, 0),
        position=jnp.zeros((rows, length, 3), int),
        fixed=first,
        opening=jnp.where(first, int(insertable), 0),
    )


def one_hot_table(vocab: int) -> EmbeddingTable:
    """Rows from which ids can be read back."""
    return EmbeddingTable(rows=jnp.eye(vocab), mask=jnp.zeros(vocab))


def decode_ids(view) -> jax.Array:
    return jnp.argmax(view.embeds, axis=-1)


def head_outputs(view, empty, count, logits):
    """The outputs for π (True where nothing is missing), λ and Q of each slot's gap."""
    raw = jnp.log(jnp.expm1(jnp.maximum(count - 1, 1e-6)))  # softplus of it is λ - 1.
    return {
        "gap_empty": jnp.where(empty, 60.0, -60.0)[..., None] if empty.dtype == bool else empty,
        "gap_count": raw[..., None],
        "gap_logits": logits,
        "image": view.latents * 0,
    }


def counting_model(last: int, vocab: int):
    """The network that knows the text BOS, 2, 3, ... `last`."""

    def apply(view):
        ids = jnp.where(view.kind == Modality.TEXT, decode_ids(view), vocab)
        after = jnp.where(ids[:, None, :] > ids[:, :, None], ids[:, None, :], last + 1)
        following = jnp.min(after, axis=-1)
        missing = following - ids - 1
        number = jnp.arange(vocab)[None, None]
        inside = (number > ids[..., None]) & (number < following[..., None])
        return head_outputs(view, missing <= 0, missing.astype(float), jnp.where(inside, 0.0, -1e9))

    return apply


@dataclasses.dataclass(frozen=True)
class Language:
    """Texts, perhaps of different lengths, and how often each comes."""

    texts: tuple[tuple[int, ...], ...]
    shares: tuple[float, ...]
    vocab: int

    @property
    def longest(self) -> int:
        return max(map(len, self.texts))

    @functools.cached_property
    def ways(self):
        """All ways to delete: what is left, its probability apart from κ, and what is missing."""
        slots, ways = self.longest + 1, []
        for text, share in zip(self.texts, self.shares, strict=True):
            for kept in itertools.product((False, True), repeat=len(text)):
                left, bags = [], np.zeros((slots, self.vocab))
                for token, stays in zip(text, kept, strict=True):
                    if stays:
                        left.append(token)
                    else:
                        bags[len(left), token] += 1
                ways.append(
                    (left + [0] * (slots - 1 - len(left)), len(left), len(text), share, bags)
                )
        left, n, length, share, bags = (jnp.array(np.array(x)) for x in zip(*ways, strict=True))
        return left, n, length, share, bags

    def network(self, sees_time: bool):
        """The heads at their optimum, given what is there and, if it sees it, the time."""
        left, n, length, share, bags = self.ways

        def row(ids, order, text, clock):
            slots = self.longest + 1
            there = text & (order > 0)
            seen = (
                jnp.zeros(slots, int).at[jnp.where(there, order - 1, slots)].set(ids, mode="drop")
            )
            fits = jnp.all(left == seen[None, : slots - 1], axis=1) & (n == jnp.sum(there))
            t = clock[0] if sees_time else 0.5
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
            text = view.kind == Modality.TEXT
            # At t=0 nothing is there, and the weights are those of the whole language.
            clock = jnp.clip(view.clock, 1e-4, 1 - 1e-4)
            found = jax.vmap(row)(decode_ids(view), view.position[..., 0], text, clock)
            return head_outputs(view, found[0][..., None], found[1], found[2])

        return apply

    def frequencies(self, canvas) -> np.ndarray:
        """How often each text came; and last, how often something else did."""
        text = np.asarray(canvas.is_text)
        order, ids = np.asarray(canvas.position[..., 0]), np.asarray(canvas.ids)
        came = [
            tuple(ids[b][text[b]][np.argsort(order[b][text[b]])][1:].tolist())
            for b in range(len(ids))
        ]
        hits = [np.mean([one == text for one in came]) for text in self.texts]
        return np.array([*hits, 1 - sum(hits)])
