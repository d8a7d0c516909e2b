"""The canvas, which holds documents as one row of slots, and the network's input and output heads.

    slot       0     1      2     3      4      5      6      7     8      9
               BOS   a      cat   <end>  patch  patch  patch  patch PAD    PAD
    modality   TEXT  TEXT   TEXT  TEXT   IMAGE  IMAGE  IMAGE  IMAGE PAD    PAD
    segment    1     1      1     1      1      1      1      1     0      0      document
    span       1     2      2     2      3      3      3      3     0      0      text run or image
    position   0,0,0 1,0,0  2,0,0 3,0,0  4,0,0  4,0,1  4,1,0  4,1,1 0      0      order, row, column
    is_given   True  False  ...                                                   not generated

The index of a slot is only its place in memory: `position` gives the reading order. All slots of an
image have the same order. A slot with `modality == PAD` is unused. Several short documents share a
row; `segment` separates them.
"""

import dataclasses
import enum

import flax.struct
import jax
import jax.numpy as jnp

from oneflow_jax.shapes import Array, Bool, Float, Int


class Modality(enum.IntEnum):
    """The content of a slot."""

    PAD = 0
    TEXT = 1
    IMAGE = 2


class AttentionPattern(enum.Enum):
    """Which slots of its own document a slot may attend to."""

    BIDIRECTIONAL = "all slots"
    CAUSAL = "earlier slots, and itself"
    MIXED = "earlier slots, itself, and all slots of its own image"


class InsertPolicy(enum.IntEnum):
    """What a sampler may insert right after a slot: nothing, text, or text and images."""

    NONE = 0
    TEXT = 1
    ANY = 2


@flax.struct.dataclass
class Canvas:
    """Clean documents, from data or a sampler; all fields have the same leading batch axes.

    Attributes:
        ids: token of a text slot; image token of an image slot, if the codec has them; 0 elsewhere.
        latents: patch of an image slot, with about unit variance; 0 for text and image tokens.
        modality: a `Modality`.
        segment: number of the slot's document within the row, from 1; 0 for PAD.
        span: number of the slot's text run or image within the row, from 1; 0 for PAD.
        position: (order, row, column); row and column are 0 for text.
        is_given: True for fixed slots, such as BOS and prompts: training neither corrupts nor
            scores them, and samplers do not change them.
        insertable: `InsertPolicy` of the gap after the slot, for samplers that insert.
    """

    ids: Int[Array, "*b L"]
    latents: Float[Array, "*b L C"]
    modality: Int[Array, "*b L"]
    segment: Int[Array, "*b L"]
    span: Int[Array, "*b L"]
    position: Int[Array, "*b L 3"]
    is_given: Bool[Array, "*b L"]
    insertable: Int[Array, "*b L"]

    @property
    def is_text(self) -> Bool[Array, "*b L"]:
        """True where the slot holds a token."""
        return self.modality == Modality.TEXT

    @property
    def is_image(self) -> Bool[Array, "*b L"]:
        """True where the slot holds a patch."""
        return self.modality == Modality.IMAGE

    @property
    def to_generate(self) -> Bool[Array, "*b L"]:
        """True where a model has to generate the slot's content: not PAD and not given."""
        return (self.modality != Modality.PAD) & ~self.is_given


@flax.struct.dataclass
class NoisyCanvas:
    """The network's input: the slots of a canvas, with corrupted content.

    Attributes:
        modality, segment, position: as in `Canvas`.
        embeds: x_t of text slots, a vector in the space of token embeddings.
        latents: x_t of image slots.
        time: time of each slot, 0 (corrupted) to 1 (clean).
        interval: for models with a flow map: the network predicts the mean of the x1 predictions
            from `time` to `time + interval`; None means 0, the x1 prediction at `time`.
    """

    modality: Int[Array, "*b L"]
    segment: Int[Array, "*b L"]
    position: Int[Array, "*b L 3"]
    embeds: Float[Array, "*b L E"]
    latents: Float[Array, "*b L C"]
    time: Float[Array, "*b L"]
    interval: Float[Array, "*b L"] | None = None


@dataclasses.dataclass(frozen=True)
class Head:
    """An output head of the network, applied to every slot.

    Attributes:
        name: key in the network's outputs.
        width: size of the output.
        axis: logical name of the output's axis, for `sharding.RULES`.
        zero_init: whether the head is initialized to zero.
        adds_token_likelihood: whether log p(noisy embedding of the slot | token id) is added to the
            output of each token id; the width is then the number of token ids.
    """

    name: str
    width: int
    axis: str
    zero_init: bool = False
    adds_token_likelihood: bool = False


@flax.struct.dataclass
class EmbeddingTable:
    """The learned embeddings of the tokens and of the mask.

    Attributes:
        embedding: the learned vector of each token.
        mask_embedding: the learned vector of a masked token.
    """

    embedding: Float[Array, "V E"]
    mask_embedding: Float[Array, "E"]

    def normalize(self) -> "EmbeddingTable":
        """Return a table with embeddings of norm sqrt(E): components have about unit variance.

        Without a fixed norm, training would let the embeddings grow or collapse.
        """
        mean_square = jnp.mean(jnp.square(self.embedding), axis=-1, keepdims=True)
        return self.replace(embedding=self.embedding * jax.lax.rsqrt(mean_square + 1e-12))


def noisy_canvas(
    canvas: Canvas,
    embeds: Float[Array, "*b L E"],
    latents: Float[Array, "*b L C"],
    time: Float[Array, "*b L"],
    interval: Float[Array, "*b L"] | None = None,
) -> NoisyCanvas:
    """Build the network's input: the slots of `canvas` with corrupted embeddings and latents."""
    return NoisyCanvas(
        modality=canvas.modality,
        segment=canvas.segment,
        position=canvas.position,
        embeds=embeds,
        latents=latents,
        time=time,
        interval=interval,
    )
