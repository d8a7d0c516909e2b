"""FLOPs, weights and cache of the network, counted by hand.

FLOPs are those of matrix products: a multiplication and an addition for each weight used.

    layer    2 D H A (query, out) + 2 D K A (key, value) + 2 S H A (scores, gathering) + 3 D F
    network  N layers + E D (words) + C D (patches) + 256 D + D D (clock) + D O (heads)

multiply-adds for each slot, in the letters of `shapes`; S is the keys that a slot is multiplied
with, seen or masked, O the numbers that all heads say of it. Every slot goes through both input
maps and all heads. Training adds twice as much: gradients of inputs and of weights; patches and
the clock, which are data, need no gradient of inputs. What is not a matrix product (norms,
softmax, rotations, the optimizer) is not counted, nor what is recomputed (`backbone.REMAT`).
"""

import dataclasses

from oneflow_jax.nn.model import Model

TIME_FREQUENCIES = 256
"""Numbers in the clock's sinusoids: `layers.ClockEmbedding.frequencies` cosines and sines."""

BF16_BYTES = 2
"""Bytes of a number in bfloat16."""


@dataclasses.dataclass(frozen=True)
class Network:
    """Shape of a whole network.

    Attributes:
        layers, width, heads, kv_heads, head_width, hidden: of the backbone (`backbone.Size`).
        vocab: number of token ids, V.
        embed_width: width of a token's vector, E.
        channels: numbers in a patch, C.
        outputs: numbers that all heads together say of a slot, O.
        towers: sets of layers: one for all slots, or 2, for words and for pictures; a slot goes
            through one of them.
    """

    layers: int
    width: int
    heads: int
    kv_heads: int
    head_width: int
    hidden: int
    vocab: int
    embed_width: int
    channels: int
    outputs: int
    towers: int = 1

    @property
    def parameters(self) -> int:
        """Numbers that are learned."""
        return self._parameters(self.towers)

    def weights(self, kinds: int) -> int:
        """Bytes of bfloat16 that are read for slots of so many kinds, 1 or 2.

        All parameters but the vocabulary's vectors, of which only the slots' own are, and but the
        tower of a kind that is not there.
        """
        table = self.vocab * self.embed_width
        return BF16_BYTES * (self._parameters(min(kinds, self.towers)) - table)

    @property
    def kv_bytes_per_slot(self) -> int:
        """Bytes of bfloat16 that one slot takes in a cache: keys and values of all layers."""
        return BF16_BYTES * self.layers * 2 * self.kv_heads * self.head_width

    def _parameters(self, towers: int) -> int:
        d, a = self.width, self.head_width
        attention = 2 * d * self.heads * a + 2 * d * self.kv_heads * a + 2 * a
        layer = attention + 3 * d * self.hidden + 2 * d
        table = (self.vocab + 1) * self.embed_width
        inputs = (self.embed_width + 1) * d + (self.channels + 1) * d
        clock = (TIME_FREQUENCIES + 1) * d + (d + 1) * d
        return towers * self.layers * layer + d + table + inputs + clock + (d + 1) * self.outputs


def from_model(model: Model, channels: int) -> Network:
    """The shape of a model of patches of so many channels."""
    size = model.size
    return Network(
        layers=size.layers,
        width=size.width,
        heads=size.heads,
        kv_heads=size.kv_heads,
        head_width=size.head_width,
        hidden=size.hidden,
        vocab=model.vocab,
        embed_width=model.embed_width,
        channels=channels,
        outputs=sum(head.width for head in model.heads),
    )


def forward(network: Network, slots: int, keys: int) -> float:
    """FLOPs of one forward pass over `slots` slots of all rows, each of which meets `keys` keys."""
    n, d = network, network.width
    maps = 2 * d * (n.heads + n.kv_heads) * n.head_width
    layer = maps + 2 * keys * n.heads * n.head_width + 3 * d * n.hidden
    slot = n.layers * layer + n.embed_width * d + d * d + d * n.outputs + _input_params(n)
    return 2.0 * slots * slot


def train(network: Network, rows: int, length: int) -> float:
    """FLOPs of the forward and backward passes of one step over rows of `length` slots."""
    slots = rows * length
    return 3 * forward(network, slots, length) - 2.0 * slots * _input_params(network)


def _input_params(network: Network) -> int:
    return (network.channels + TIME_FREQUENCIES) * network.width
