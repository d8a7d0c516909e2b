"""FLOPs of the network, counted by hand: a multiplication and an addition for each weight used.

    layer    2 D H A (query, out) + 2 D K A (key, value) + 2 L H A (scores, gathering) + 3 D F
    network  N layers + E D (words) + C D (patches) + 256 D + D D (clock) + D V + D C (heads)

multiply-adds for each slot; L is the slots that a slot sees. Every slot goes through both input
maps and both heads. Training adds twice as much: gradients of inputs and of weights; patches and
the clock, which are data, need no gradient of inputs. What is not a matrix product (norms,
softmax, rotations, the optimizer) is not counted.
"""

from benchmarks.problem import Sizes

FREQUENCIES = 256
"""Numbers in the clock's sinusoids: `layers.ClockEmbedding.frequencies` cosines and sines."""


def forward(sizes: Sizes, batch: int) -> float:
    """FLOPs of one forward pass over `batch` documents."""
    s = sizes
    heads = s.heads * s.head_width
    layer = 4 * s.width * heads + 2 * s.slots * heads + 3 * s.width * s.hidden
    words = s.embed * s.width
    clock = s.width * s.width
    outputs = s.width * (s.vocab + s.channels)
    slot = s.layers * layer + words + clock + outputs + _from_data(s)
    return 2.0 * batch * s.slots * slot


def train(sizes: Sizes, batch: int) -> float:
    """FLOPs of the forward and backward passes of one step over `batch` documents."""
    data = 2.0 * batch * sizes.slots * _from_data(sizes)
    return 3 * forward(sizes, batch) - data


def _from_data(s: Sizes) -> int:
    return (s.channels + FREQUENCIES) * s.width
