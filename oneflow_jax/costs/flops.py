"""Analytic FLOPs, weights and KV cache size of a network.

Only FLOPs of matrix products are counted, at 2 FLOPs (a multiplication and an addition) per
multiply-add. Multiply-adds per slot:

    layer    2 D H A (query, out) + 2 D K A (key, value) + 2 S H A (scores, values) + 3 D F (MLP)
    network  N layers + E D (tokens) + C D (patches) + 256 D + D D (time) + D O (heads)

`oneflow_jax.shapes` defines the letters. S is the number of keys that a query is multiplied with,
including masked keys. O is the total output width of all heads. Every slot passes through both
input projections and all heads. The backward pass costs twice the forward pass: it computes
gradients of inputs and of weights. Patches and the time are data, so their projections need no
gradient of the input. The count excludes everything that is not a matrix product (norms, softmax,
rotary embeddings, AdamW), and recomputation in the backward pass (`backbone.REMAT`). `muon` counts
the matrix products of the optimizer Muon.
"""

import dataclasses

from oneflow_jax.nn.model import Model

TIME_FREQUENCIES = 256
"""Width of the sinusoidal time embedding: `layers.TimestepEmbedding.frequencies` sines and cosines.
"""

BF16_BYTES = 2
"""Bytes of a number in bfloat16."""


@dataclasses.dataclass(frozen=True)
class Network:
    """Shape of a network.

    Attributes:
        layers, width, heads, kv_heads, head_width, hidden: as in `backbone.TransformerConfig`.
        vocab: number of token ids, V.
        embed_width: width of a token embedding, E.
        channels: values per patch, C.
        outputs: total output width of all heads, O.
        likelihood_heads: number of heads that also compute the likelihood of each token.
        num_biases: number of biases of queries, keys and values in a layer.
        qk_norm: whether queries and keys are normalized.
        post_norms: whether a norm also follows attention and the MLP.
        embed_projection: whether a linear map from E to D follows the token embeddings.
        tied_outputs: output width of the heads whose weights are the token embeddings.
        towers: number of towers (stacks of layers): 1 for all slots, or 2, one for text and one for
            images; each slot passes through one tower.
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
    likelihood_heads: int = 0
    num_biases: int = 0
    qk_norm: bool = True
    post_norms: bool = False
    embed_projection: bool = True
    tied_outputs: int = 0
    towers: int = 1

    @property
    def num_parameters(self) -> int:
        """Number of trainable parameters."""
        return self._num_parameters(self.towers)

    def weight_bytes(self, num_modalities: int) -> int:
        """Return the bytes of bfloat16 weights that a forward pass reads.

        The token embedding table is excluded, since a pass reads only the rows of its own tokens,
        unless a head is tied to it. With two towers, a pass over slots of one modality
        (`num_modalities` 1) reads one tower.
        """
        table = 0 if self.tied_outputs else self.vocab * self.embed_width
        return BF16_BYTES * (self._num_parameters(min(num_modalities, self.towers)) - table)

    @property
    def kv_bytes_per_slot(self) -> int:
        """KV cache size of one slot in bytes: bfloat16 keys and values of all layers."""
        return BF16_BYTES * self.layers * 2 * self.kv_heads * self.head_width

    def _num_parameters(self, towers: int) -> int:
        d, a = self.width, self.head_width
        attention = 2 * d * self.heads * a + 2 * d * self.kv_heads * a + 2 * a * self.qk_norm
        norms = (4 if self.post_norms else 2) * d
        layer = attention + self.num_biases + 3 * d * self.hidden + norms
        table = (self.vocab + 1) * self.embed_width
        inputs = (self.embed_width + 1) * d * self.embed_projection + (self.channels + 1) * d
        clock = (TIME_FREQUENCIES + 1) * d + (d + 1) * d
        heads = (d + 1) * (self.outputs - self.tied_outputs)
        return towers * self.layers * layer + d + table + inputs + clock + heads


def from_model(model: Model, channels: int) -> Network:
    """Return the shape of a model whose patches have `channels` values."""
    size = model.config
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
        likelihood_heads=sum(head.adds_token_likelihood for head in model.heads),
        num_biases=size.qkv_bias * (size.heads + 2 * size.kv_heads) * size.head_width,
        qk_norm=size.qk_norm,
        post_norms=size.post_norms,
        embed_projection=model.embed_projection,
        tied_outputs=sum(head.width for head in model.heads if model.is_tied(head)),
    )


def forward(network: Network, slots: int, keys: int) -> float:
    """Compute the FLOPs of a forward pass over `slots` slots that each attend to `keys` keys."""
    n, d = network, network.width
    maps = 2 * d * (n.heads + n.kv_heads) * n.head_width
    layer = maps + 2 * keys * n.heads * n.head_width + 3 * d * n.hidden
    slot = n.layers * layer + n.embed_width * d * n.embed_projection + d * d + d * n.outputs
    slot += _input_params(n) + _likelihood_products(n)
    return 2.0 * slots * slot


def train(network: Network, rows: int, length: int) -> float:
    """Compute the FLOPs of a training step, forward and backward, over rows of `length` slots."""
    slots = rows * length
    likelihood = 2.0 * slots * _likelihood_products(network)
    forward_only = 2.0 * slots * _input_params(network) + 2 * likelihood
    return 3 * forward(network, slots, length) - forward_only


def muon(network: Network, newton_schulz_steps: int) -> float:
    """Compute the FLOPs of orthogonalizing the momentum of all matrices of the backbone.

    For a matrix X of shape m x n with m <= n, each Newton-Schulz step computes A = X X', A A and
    (b A + c A A) X, which are 2 m² n + m³ multiply-adds.
    """
    d, a, f = network.width, network.head_width, network.hidden
    queries, keys = network.heads * a, network.kv_heads * a
    shapes = [(d, queries)] * 2 + [(d, keys)] * 2 + [(d, f)] * 3
    step = sum(2 * min(pair) ** 2 * max(pair) + min(pair) ** 3 for pair in shapes)
    return 2.0 * newton_schulz_steps * network.towers * network.layers * step


def _input_params(network: Network) -> int:
    return (network.channels + TIME_FREQUENCIES) * network.width


def _likelihood_products(network: Network) -> int:
    """Return the multiply-adds per slot of token likelihoods, which have no backward pass."""
    return network.likelihood_heads * network.vocab * network.embed_width
