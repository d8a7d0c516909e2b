"""A document as one row of slots, and what the network is shown and asked of it.

    slot       0     1      2     3      4      5      6      7     8      9
               BOS   a      cat   <end>  patch  patch  patch  patch PAD    PAD
    kind       TEXT  TEXT   TEXT  TEXT   IMAGE  IMAGE  IMAGE  IMAGE PAD    PAD
    segment    1     1      1     1      1      1      1      1     0      0      which document
    span       1     2      2     2      3      3      3      3     0      0      which run of it
    position   0,0,0 1,0,0  2,0,0 3,0,0  4,0,0  4,0,1  4,1,0  4,1,1 0      0      order, row, column
    fixed      True  False  ...                                                   given, not made

Slots are storage, `position` is order, `kind == PAD` is non-existence. Several short documents
share a row; `segment` keeps them apart. All slots of one picture bear the same order.
"""

import dataclasses
import enum

import flax.struct

from oneflow_jax.shapes import Array, Bool, Float, Int


class Modality(enum.IntEnum):
    """What a slot holds."""

    PAD = 0
    TEXT = 1
    IMAGE = 2


class AttentionPattern(enum.Enum):
    """What a slot may see of its own document."""

    BIDIRECTIONAL = "all of it"
    CAUSAL = "what comes before it, and itself"
    MIXED = "what comes before it, and all of its own picture"


class InsertPolicy(enum.IntEnum):
    """What may be missing right after a slot, in a document whose length is not given."""

    CLOSED = 0
    WORDS = 1
    ANYTHING = 2


@flax.struct.dataclass
class Canvas:
    """Clean data or a sample; every field bears the same leading batch axes.

    Attributes:
        ids: token of a text slot; 0 elsewhere.
        latents: patch of an image slot, about unit variance; 0 elsewhere.
        kind: a `Modality`.
        segment: number of the slot's document within the row, from 1; 0 = PAD.
        span: number of the slot's text run or picture within the row, from 1; 0 = PAD.
        position: (order, row, column); row and column are 0 for text.
        fixed: given: never corrupted, never scored, never changed by a sampler.
        opening: an `InsertPolicy`; heeded by paradigms that insert, in sampling.
    """

    ids: Int[Array, "*b L"]
    latents: Float[Array, "*b L C"]
    kind: Int[Array, "*b L"]
    segment: Int[Array, "*b L"]
    span: Int[Array, "*b L"]
    position: Int[Array, "*b L 3"]
    fixed: Bool[Array, "*b L"]
    opening: Int[Array, "*b L"]

    @property
    def is_text(self) -> Bool[Array, "*b L"]:
        """True where the slot holds a token."""
        return self.kind == Modality.TEXT

    @property
    def is_image(self) -> Bool[Array, "*b L"]:
        """True where the slot holds a patch."""
        return self.kind == Modality.IMAGE

    @property
    def free(self) -> Bool[Array, "*b L"]:
        """True where the slot exists and is the model's to make."""
        return (self.kind != Modality.PAD) & ~self.fixed


@flax.struct.dataclass
class NoisyCanvas:
    """What the network is shown: the layout of a canvas, and its content at some time.

    Attributes:
        kind, segment, position: as in `Canvas`.
        embeds: x_t of text slots, a vector in the space of token embeddings.
        latents: x_t of image slots.
        clock: each slot's own time, 0 (corrupted) to 1 (clean).
    """

    kind: Int[Array, "*b L"]
    segment: Int[Array, "*b L"]
    position: Int[Array, "*b L 3"]
    embeds: Float[Array, "*b L E"]
    latents: Float[Array, "*b L C"]
    clock: Float[Array, "*b L"]


@dataclasses.dataclass(frozen=True)
class Head:
    """One thing that a paradigm asks the network to predict of every slot.

    Attributes:
        name: key in the network's outputs.
        width: how many numbers.
        axis: logical name of that axis, for `sharding.RULES`.
        zero: whether the head starts at zero.
    """

    name: str
    width: int
    axis: str
    zero: bool = False


@flax.struct.dataclass
class EmbeddingTable:
    """The vocabulary as vectors.

    Attributes:
        rows: a vector for each token, as learned.
        mask: the vector that stands for "some word".
    """

    rows: Float[Array, "V E"]
    mask: Float[Array, "E"]


def noisy_canvas(
    canvas: Canvas,
    embeds: Float[Array, "*b L E"],
    latents: Float[Array, "*b L C"],
    time: Float[Array, "*b L"],
) -> NoisyCanvas:
    """The view that shows `embeds` and `latents` at time `time` in the layout of `canvas`."""
    return NoisyCanvas(
        kind=canvas.kind,
        segment=canvas.segment,
        position=canvas.position,
        embeds=embeds,
        latents=latents,
        clock=time,
    )
