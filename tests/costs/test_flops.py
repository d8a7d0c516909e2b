"""Tests of FLOP counts against counts by hand and against XLA's cost analysis."""

import dataclasses

import flax.linen as nn
import jax
import jax.numpy as jnp
import pytest

from oneflow_jax.canvas import Head, Modality, NoisyCanvas
from oneflow_jax.costs import flops
from oneflow_jax.nn import backbone, model

CHANNELS = 48
HEADS = (Head("words", 500, "vocab"), Head("image", CHANNELS, "channels"))
SIZE = backbone.TransformerConfig(
    layers=2,
    width=256,
    heads=4,
    kv_heads=2,
    head_width=64,
    hidden=688,
    remat="none",
    scan_unroll=2,  # The scan is unrolled, since XLA counts a loop body once.
    dtype=jnp.float32,
)
MODEL = model.Model(SIZE, vocab=500, embed_width=128, heads=HEADS)
NETWORK = flops.from_model(MODEL, CHANNELS)
UNIT = flops.Network(
    layers=1, width=1, heads=1, kv_heads=1, head_width=1, hidden=1, vocab=1, embed_width=1,
    channels=1, outputs=1,
)  # fmt: skip


def view(rows, length):
    shape = (rows, length)
    return NoisyCanvas(
        modality=jnp.full(shape, Modality.TEXT),
        segment=jnp.ones(shape, jnp.int32),
        position=jnp.zeros((*shape, 3), jnp.int32),
        embeds=jnp.zeros((*shape, MODEL.embed_width)),
        latents=jnp.zeros((*shape, CHANNELS)),
        time=jnp.ones(shape),
    )


def parameters():
    return nn.unbox(jax.eval_shape(MODEL.init, jax.random.key(0), view(1, 4))["params"])


def count_flops(function, *arguments):
    return jax.jit(function).lower(*arguments).cost_analysis()["flops"]


def total(outputs):
    # The loss is not a plain sum: the gradient of a sum would not need the heads' forward pass.
    return sum(jnp.sum(output**2) for output in outputs.values())


def test_parameters_of_language_models_are_counted():
    size = dataclasses.replace(SIZE, qk_norm=False, qkv_bias=True, post_norms=True)
    net = MODEL.clone(config=size, embed_width=256, embed_projection=False, tied_embeddings=True)
    embeds = view(1, 4).replace(embeds=jnp.zeros((1, 4, 256)))
    params = jax.eval_shape(net.init, jax.random.key(0), embeds)["params"]
    count = sum(leaf.size for leaf in jax.tree.leaves(nn.unbox(params)))
    network = flops.from_model(net, CHANNELS)
    assert network.num_parameters == count
    assert network.weight_bytes(1) == 2 * count  # The tied head reads all token embeddings.


def test_every_weight_of_a_network_of_ones_counts():
    # A layer has 4 projections (q, k, v, out), scores and weighted sum over 5 keys, 3 MLP matrices.
    # Outside of layers there are tokens, patches, 256 sinusoids, the time's second matrix, the
    # heads.
    slot = 4 + 2 * 5 + 3 + 1 + 1 + 256 + 1 + 1
    assert flops.forward(UNIT, slots=7, keys=5) == 2 * 7 * slot
    # Patches and sinusoids are inputs: no gradient is computed for them.
    assert flops.train(UNIT, rows=2, length=5) == 2 * 10 * (3 * slot - 257)


def test_from_model_reads_the_shape():
    assert dataclasses.asdict(NETWORK) == {
        name: getattr(SIZE, name)
        for name in ("layers", "width", "heads", "kv_heads", "head_width", "hidden")
    } | {
        "vocab": 500,
        "embed_width": 128,
        "channels": 48,
        "outputs": 548,
        "likelihood_heads": 0,
        "num_biases": 0,
        "qk_norm": True,
        "post_norms": False,
        "embed_projection": True,
        "tied_outputs": 0,
        "towers": 1,
    }


def test_num_parameters_equals_the_model():
    assert NETWORK.num_parameters == sum(leaf.size for leaf in jax.tree.leaves(parameters()))


def test_a_second_tower_is_a_second_set_of_layers():
    two = dataclasses.replace(NETWORK, towers=2)
    layers = sum(leaf.size for leaf in jax.tree.leaves(parameters()["backbone"]["blocks"]))
    assert two.num_parameters == NETWORK.num_parameters + layers
    assert two.weight_bytes(1) == NETWORK.weight_bytes(1) == NETWORK.weight_bytes(2)
    assert two.weight_bytes(2) == two.weight_bytes(1) + 2 * layers
    assert flops.forward(two, 8, 8) == flops.forward(NETWORK, 8, 8)


def test_weight_bytes_exclude_the_embedding_table():
    assert NETWORK.weight_bytes(1) == 2 * (NETWORK.num_parameters - 500 * 128)


def test_kv_bytes_equal_the_model_cache():
    cache = jax.eval_shape(lambda: MODEL.init_cache(3, 10))
    numbers = cache.key.size + cache.value.size
    assert 3 * 10 * NETWORK.kv_bytes_per_slot == flops.BF16_BYTES * numbers


@pytest.mark.parametrize("length", [64, 256])
def test_flops_equal_the_count_of_xla(length):
    def loss(params, embeds):
        noisy = view(2, length).replace(embeds=embeds)
        return total(MODEL.apply({"params": params}, noisy))

    params, embeds = parameters(), view(2, length).embeds
    forward = count_flops(loss, params, embeds)
    train = count_flops(jax.grad(loss, argnums=(0, 1)), params, embeds)
    # XLA also counts norms and softmax, so its count is slightly larger, never smaller.
    assert 1 < forward / flops.forward(NETWORK, 2 * length, length) < 1.01
    assert 1 < train / flops.train(NETWORK, 2, length) < 1.01


@pytest.mark.parametrize("slots", [1, 16])
def test_flops_with_a_cache_equal_the_count_of_xla(slots):
    def after(params, cache):
        return MODEL.apply({"params": params}, view(2, slots), cache, method="decode")[0]

    cache = jax.eval_shape(lambda: MODEL.init_cache(2, 200))
    ratio = count_flops(after, parameters(), cache) / flops.forward(NETWORK, 2 * slots, keys=200)
    assert 1 < ratio < 1.01


def test_a_likelihood_head_adds_one_product_with_the_table_to_the_forward_pass():
    plain = dataclasses.replace(NETWORK, likelihood_heads=0)
    likelihood = dataclasses.replace(NETWORK, likelihood_heads=1)
    rows, length = 3, 32
    product = 2 * rows * length * 500 * 128
    assert flops.forward(likelihood, rows * length, length) == pytest.approx(
        flops.forward(plain, rows * length, length) + product
    )
    # There is no backward pass: no gradient flows through the likelihood.
    assert flops.train(likelihood, rows, length) == pytest.approx(
        flops.train(plain, rows, length) + product
    )
    assert likelihood.num_parameters == plain.num_parameters
