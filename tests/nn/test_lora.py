"""Tests of LoRA: factors beside the matrices of the backbone."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import traverse_util

from oneflow_jax.nn import lora
from tests import tiny

ADAPTER = lora.LoRA(rank=3, new_ids=range(90, 95))


@pytest.fixture(scope="module")
def boxed():
    """Return boxed parameters of the tiny network."""
    view = tiny.noisy_canvas(tiny.training_rows(tiny.captions(1)))
    return jax.eval_shape(lambda key: tiny.network().init(key, view)["params"], jax.random.key(0))


@pytest.fixture(scope="module")
def params(boxed):
    """Return parameters of the tiny network with factors."""
    added = jax.eval_shape(lambda key: ADAPTER.add(key, boxed_zeros(boxed)), jax.random.key(0))
    keys = iter(jax.random.split(jax.random.key(1), 200))
    return jax.tree.map(lambda x: jax.random.normal(next(keys), x.shape), nn.unbox(added))


def boxed_zeros(boxed):
    return jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), boxed)


def test_only_the_backbone_and_new_rows_get_parameters(boxed):
    added = jax.eval_shape(lambda key: ADAPTER.add(key, boxed_zeros(boxed)), jax.random.key(0))
    flat = traverse_util.flatten_dict(nn.unbox(added[lora.NAME]), sep="/")
    shapes = {name: leaf.shape for name, leaf in flat.items()}
    width, layers = tiny.TRANSFORMER_CONFIG.width, tiny.TRANSFORMER_CONFIG.layers
    assert shapes["rows"] == (5, tiny.EMBED)
    assert shapes["outputs_text_logits/kernel"] == (width, 5)
    assert shapes["outputs_text_logits/bias"] == (5,)
    matrices = [name for name in shapes if name.endswith("/a")]
    assert all(name.startswith("backbone/") for name in matrices)
    assert all(shapes[name][-1] == 3 for name in matrices)
    (out,) = [name for name in matrices if "/out/" in name]
    assert shapes[out] == (layers, 2, 16, 3)
    assert shapes[f"{out[:-1]}b"] == (layers, 3, width)
    assert len(shapes) == 2 * len(matrices) + 3


def test_merged_equals_unmerged(params):
    """Check that x (W + A B) equals x W + (x A) B for every matrix."""
    merged = traverse_util.flatten_dict(ADAPTER.merge(params))
    flat = traverse_util.flatten_dict(params)
    matrices = [path[1:-1] for path in flat if path[0] == lora.NAME and path[-1] == "a"]
    assert matrices
    for path in matrices:
        a, b = flat[lora.NAME, *path, "a"][0], flat[lora.NAME, *path, "b"][0]
        kernel, whole = flat[path][0], merged[path][0]
        inputs = a.ndim - 1
        x = np.random.default_rng(0).standard_normal(a.shape[:-1])

        def apply(x, matrix, axes=inputs):
            return np.tensordot(x, np.asarray(matrix, np.float64), axes)

        unmerged = apply(x, kernel) + apply(apply(x, a), b, axes=1)
        scale = np.abs(unmerged).max()
        np.testing.assert_allclose(apply(x, whole) / scale, unmerged / scale, atol=1e-6)


def test_rows_of_other_ids_stay(params):
    merged = ADAPTER.merge(params)
    changed = np.flatnonzero(np.any(merged["rows"] != params["rows"], axis=1))
    assert list(changed) == list(ADAPTER.new_ids)
    assert lora.NAME not in merged
    assert ADAPTER.merge(merged) is merged


def test_factors_change_nothing_at_first(boxed):
    base = nn.unbox(boxed_zeros(boxed))
    base = jax.tree.map(lambda x: jnp.linspace(-1, 1, x.size).reshape(x.shape), base)
    reboxed = jax.tree.map(
        lambda box, value: box.replace_boxed(value),
        boxed,
        base,
        is_leaf=lambda x: isinstance(x, nn.LogicallyPartitioned),
    )
    added = nn.unbox(ADAPTER.add(jax.random.key(0), reboxed))
    assert all(np.any(a) for a in jax.tree.leaves(added[lora.NAME]["backbone"])[::2])
    tiny.assert_trees_close(ADAPTER.merge(added), base, atol=0)


def test_rank_0_adds_nothing(boxed):
    assert lora.LoRA().add(jax.random.key(0), boxed) is boxed
    assert lora.LoRA().freeze("norm") == "norm"


@pytest.mark.parametrize(
    ("pattern", "name", "frozen"),
    [
        ("", "backbone/norm/scale", True),
        ("", "lora/backbone/x/kernel/a", False),
        ("kernel/a", "lora/backbone/x/kernel/a", True),
        ("kernel/a", "lora/rows", False),
    ],
)
def test_frozen_parameters(pattern, name, frozen):
    import re

    assert bool(re.search(ADAPTER.freeze(pattern), name)) == frozen
