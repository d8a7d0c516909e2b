"""Tests of models whose layers have arrays of their own: same outputs, and no stacked arrays."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from oneflow_jax.canvas import AttentionPattern
from oneflow_jax.nn import bound_model, two_tower, unstack
from tests import tiny
from tests.nn import test_kv_cache

LAYERS = 2


@functools.cache
def make_pair(kind):
    """Return a network with stacked layers, and the same network unstacked."""
    local = test_kv_cache.LOCAL if kind == "local layers" else {}
    model = tiny.network(scan_unroll=LAYERS, **{"layers": LAYERS} | local)
    model = dataclasses.replace(model, attention_pattern=AttentionPattern.CAUSAL)
    if kind == "two towers":
        fields = {field.name: getattr(model, field.name) for field in dataclasses.fields(model)}
        fields = {name: fields[name] for name in fields if name not in ("parent", "name")}
        model = two_tower.TwoTowerModel(**fields)
    params = tiny.parameters(model)
    unstacked = unstack.unstack_layers(model, params)
    return bound_model.BoundModel(model, params), bound_model.BoundModel(*unstacked)


@pytest.mark.parametrize("kind", ["one tower", "two towers", "local layers"])
def test_outputs_and_cache_are_those_of_the_stacked_model(kind):
    canvas, lengths = test_kv_cache.make_canvas()
    view = tiny.noisy_canvas(canvas)
    results = []
    for net in make_pair(kind):
        cache = net.init_cache(len(lengths), test_kv_cache.NUM_SLOTS + 8)
        first, cache = jax.jit(net.prefill)(view, cache)
        cache = cache.advance(jnp.asarray(lengths - 1))
        token = test_kv_cache.slice_slots(view, lengths - 1, 1)
        both = cache.concat_rows(cache)
        twice = jax.tree.map(lambda x: jnp.concatenate([x, x]), token)
        after, both = jax.jit(net.decode)(twice, both)
        rest = both.first_rows(len(lengths))
        results.append((first, after, jnp.stack([*rest.key]), jnp.stack([*rest.value])))
    tiny.assert_trees_close(*results, atol=1e-5)


def test_parameters_are_those_of_the_layers_in_order():
    stacked, single = make_pair("one tower")
    blocks = stacked.params["backbone"]["blocks"]
    for number in range(LAYERS):
        layer = single.params["backbone"][f"block_{number}"]
        jax.tree.map(lambda x, y, n=number: np.testing.assert_array_equal(x[n], y), blocks, layer)
    assert set(single.params["backbone"]) == {"block_0", "block_1", "norm"}
    rest = {name for name in stacked.params if name != "backbone"}
    assert all(single.params[name] is stacked.params[name] for name in rest)


def test_model_that_scans_its_layers_in_a_loop_stays_stacked():
    model = tiny.network(layers=LAYERS, scan_unroll=1)
    params = tiny.parameters(model)
    assert unstack.unstack_layers(model, params) == (model, params)


def test_decoding_copies_no_weight_matrix():
    """Check the compiled loop over tokens: no instruction outputs a weight matrix."""
    _, net = make_pair("one tower")
    canvas, lengths = test_kv_cache.make_canvas()
    view = tiny.noisy_canvas(canvas)
    shape = net.params["backbone"]["block_0"]["mlp"]["up"]["kernel"].shape
    text = "f32[" + ",".join(map(str, shape)) + "]"

    def write(params, cache):
        network = bound_model.BoundModel(net.model, params)
        slot = test_kv_cache.slice_slots(view, 0 * lengths, 1)

        def step(_, cache):
            _, cache = network.decode(slot, cache)
            return cache.advance(jnp.ones(len(lengths), jnp.int32))

        return jax.lax.fori_loop(0, 5, step, cache)

    cache = net.init_cache(len(lengths), 8)
    program = jax.jit(write).lower(net.params, cache).compile().as_text()
    made = [
        line
        for line in program.splitlines()
        if f"= {text}" in line and not any(w in line for w in ("parameter(", "get-tuple-element("))
    ]
    assert not made, made
