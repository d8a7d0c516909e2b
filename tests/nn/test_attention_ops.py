"""Tests of attention implementations: values and gradients, on one device and on eight."""

import functools
import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from oneflow_jax.canvas import AttentionPattern
from oneflow_jax.errors import UserError
from oneflow_jax.nn import attention_mask, attention_ops, blockwise_attention, partitioning
from oneflow_jax.runtime import sharding
from tests.nn import test_attention_mask


def naive_attention(query, key, value, mask, score_cap=np.inf):
    """Compute attention query by query in float64; query head h uses key head h // (H / K)."""
    query, key, value = (np.asarray(x, np.float64) for x in (query, key, value))
    rows, slots, heads, width = query.shape
    group = heads // key.shape[2]
    out = np.zeros(query.shape)
    for b, i, h in np.ndindex(rows, slots, heads):
        visible = np.flatnonzero(mask[b, i])
        scores = key[b, visible, h // group] @ query[b, i, h] / np.sqrt(width)
        if score_cap < np.inf:
            scores = score_cap * np.tanh(scores / score_cap)
        weights = np.exp(scores - scores.max())
        out[b, i, h] = weights / weights.sum() @ value[b, visible, h // group]
    return out


@pytest.fixture(autouse=True)
def _short_blocks(monkeypatch):
    """Use short key blocks, so that a row has several blocks and the last one is partial."""
    monkeypatch.setattr(blockwise_attention, "BLOCK_K", 20)


@pytest.fixture
def _interpreter(monkeypatch):
    """Run the kernels of TPUs and GPUs in interpreter mode."""
    monkeypatch.setattr(attention_ops, "INTERPRET_KERNELS", True)


def random_qkv(batch_size=6, num_slots=48, heads=6, kv_heads=3, width=8, dtype=jnp.float32):
    """Return queries, keys and values; neighboring axes differ in size, so that the tests detect
    confused axes."""
    keys = jax.random.split(jax.random.key(0), 3)
    shapes = [(batch_size, num_slots, count, width) for count in (heads, kv_heads, kv_heads)]
    normals = [jax.random.normal(k, shape) for k, shape in zip(keys, shapes, strict=True)]
    return [x.astype(dtype) for x in (2 * normals[0], 2 * normals[1], normals[2])]


def output_and_gradients(implementation, qkv, mask, score_cap=0.0):
    """Return the output, and the gradients of a random projection of the output."""
    direction = jax.random.normal(jax.random.key(1), qkv[0].shape)

    def loss_and_output(*arrays):
        output = attention_ops.dot_product_attention(*arrays, mask, implementation, score_cap)
        return jnp.sum(output * direction), output

    run = jax.jit(jax.value_and_grad(loss_and_output, argnums=(0, 1, 2), has_aux=True))
    (_, output), gradients = run(*qkv)
    return [output, *gradients]


@functools.cache
def xla_reference(pattern, kv_heads):
    """Return the result of "xla", which another test compares with `naive_attention`."""
    mask = attention_mask.from_canvas(test_attention_mask.random_view(seed=2), pattern)
    return output_and_gradients("xla", random_qkv(kv_heads=kv_heads), mask)


def long_rows(pattern, num_slots=150, width=8):
    """Return arguments of attention for rows of several blocks, most with several documents."""
    rng = np.random.default_rng(3)
    segment = np.sort(rng.integers(1, 5, (2, num_slots)), axis=1)
    segment[1, -20:] = 0  # PAD slots
    view = test_attention_mask.make_view(segment > 0, segment, 0 * segment)
    qkv = random_qkv(batch_size=2, num_slots=num_slots, heads=4, kv_heads=2, width=width)
    return qkv, attention_mask.from_canvas(view, pattern)


def assert_close(actual, expected, atol=1e-5):
    for name, a, b in zip(("found", "query", "key", "value"), actual, expected, strict=True):
        np.testing.assert_allclose(a, b, atol=atol, err_msg=name)


@pytest.mark.parametrize("kv_heads", [6, 3, 1])
def test_xla_attention_matches_naive_attention(kv_heads):
    qkv, mask = (
        random_qkv(kv_heads=kv_heads),
        attention_mask.from_canvas(test_attention_mask.random_view(2), AttentionPattern.MIXED),
    )
    expected = naive_attention(*qkv, np.asarray(mask.materialize()))
    np.testing.assert_allclose(
        xla_reference(AttentionPattern.MIXED, kv_heads)[0], expected, atol=1e-5
    )


@pytest.mark.parametrize(
    ("way", "attend", "kv_heads"),
    [
        *(("blockwise", attend, 3) for attend in AttentionPattern),
        ("blockwise", AttentionPattern.MIXED, 1),
        ("blockwise", AttentionPattern.MIXED, 6),
        ("splash", AttentionPattern.BIDIRECTIONAL, 3),
        ("splash", AttentionPattern.CAUSAL, 6),
        ("triton", AttentionPattern.BIDIRECTIONAL, 3),
        ("triton", AttentionPattern.CAUSAL, 6),
    ],
)
@pytest.mark.usefixtures("_interpreter")
def test_every_implementation_matches_xla_attention(way, attend, kv_heads):
    """Check every implementation against "xla"; kernels run in interpreter mode."""
    mask = attention_mask.from_canvas(test_attention_mask.random_view(seed=2), attend)
    actual = output_and_gradients(way, random_qkv(kv_heads=kv_heads), mask)
    assert_close(actual, xla_reference(attend, kv_heads))


@pytest.mark.parametrize(
    ("pattern", "num_slots", "width"),
    [
        (AttentionPattern.BIDIRECTIONAL, 150, 8),
        (AttentionPattern.BIDIRECTIONAL, 250, 80),  # half as long blocks of keys
        (AttentionPattern.CAUSAL, 250, 24),
    ],
)
@pytest.mark.usefixtures("_interpreter")
def test_triton_attention_matches_xla_attention_on_rows_of_several_blocks(
    pattern, num_slots, width
):
    qkv, mask = long_rows(pattern, num_slots, width)
    expected = output_and_gradients("xla", qkv, mask)
    greatest = max(float(jnp.abs(x).max()) for x in expected)
    assert_close(output_and_gradients("triton", qkv, mask), expected, atol=1e-5 * greatest)


@pytest.mark.parametrize("pattern", [AttentionPattern.BIDIRECTIONAL, AttentionPattern.CAUSAL])
@pytest.mark.parametrize("kernel", ["splash", "triton"])
@pytest.mark.usefixtures("_interpreter")
def test_kernels_match_xla_attention_on_eight_devices(kernel, pattern):
    view = test_attention_mask.random_view(seed=2, batch_size=8)
    mask = attention_mask.from_canvas(view, pattern)
    qkv = random_qkv(batch_size=8, heads=4, kv_heads=2)
    expected = output_and_gradients("xla", qkv, mask)
    mesh = sharding.make_mesh({"data": 2, "fsdp": 2, "tensor": 2})
    with sharding.mesh_context(mesh):
        actual = output_and_gradients(kernel, qkv, mask)
    assert len(actual[0].sharding.device_set) == 8
    assert_close(actual, expected)


@pytest.mark.parametrize("way", ["blockwise", "splash", "triton"])
@pytest.mark.usefixtures("_interpreter")
def test_fewer_queries_than_keys_match_xla_attention(way):
    """Check masks with fewer queries than keys, as in decoding with a cache."""
    view = jax.tree.map(lambda x: x[:, :5], test_attention_mask.random_view(seed=2))
    mask = attention_mask.for_decode(view, jnp.arange(6) * 7, num_keys=48)
    query, key, value = random_qkv()
    qkv = query[:, :5], key, value
    assert_close(output_and_gradients(way, qkv, mask), output_and_gradients("xla", qkv, mask))


RINGS = [
    ({"context": 8}, 6),
    ({"context": 2, "data": 4}, 8),
    ({"data": 2, "context": 2, "tensor": 2}, 6),
    ({"fsdp": 2, "context": 4}, 6),
]


@pytest.mark.parametrize("attend", AttentionPattern)
@pytest.mark.parametrize(("sizes", "heads"), RINGS, ids=str)
def test_ring_attention_matches_xla_attention(sizes, heads, attend):
    view = test_attention_mask.random_view(seed=2, batch_size=8)
    mask = attention_mask.from_canvas(view, attend)
    qkv = random_qkv(batch_size=8, heads=2 * heads, kv_heads=heads)
    expected = output_and_gradients("xla", qkv, mask)
    with sharding.mesh_context(sharding.make_mesh({"data": 1} | sizes)):
        assert partitioning.sharded_axis("slots") == "context"
        assert_close(output_and_gradients("xla", qkv, mask), expected)


CAP, WINDOW = 1.5, 9


@functools.cache
def capped_reference(window):
    """Return queries, keys, values and mask with images, and the results of "xla" with a cap."""
    view = test_attention_mask.random_view(seed=2, batch_size=8)
    mask = attention_mask.from_canvas(view, AttentionPattern.MIXED)
    mask = mask.limit(jnp.int32(window)) if window else mask
    qkv = random_qkv(batch_size=8, heads=4, kv_heads=2)
    return qkv, mask, output_and_gradients("xla", qkv, mask, CAP)


@pytest.mark.parametrize("window", [0, WINDOW])
def test_capped_scores_of_xla_attention_match_naive_attention(window):
    qkv, mask, (output, *gradients) = capped_reference(window)
    seen = np.asarray(mask.materialize())
    np.testing.assert_allclose(output, naive_attention(*qkv, seen, CAP), atol=1e-5)
    assert np.abs(output - naive_attention(*qkv, seen)).max() > 0.1
    moved = [x.at[3, 7, 1, 2].add(1e-2) for x in qkv]
    direction = np.asarray(jax.random.normal(jax.random.key(1), output.shape), np.float64)
    for n, gradient in enumerate(gradients):
        changed = [*qkv[:n], moved[n], *qkv[n + 1 :]]
        change = naive_attention(*changed, seen, CAP) - naive_attention(*qkv, seen, CAP)
        slope = np.sum(direction * change) / 1e-2
        np.testing.assert_allclose(gradient[3, 7, 1, 2], slope, atol=2e-2)


@pytest.mark.parametrize("window", [0, WINDOW])
@pytest.mark.parametrize("sizes", [None, {"context": 2, "data": 2, "tensor": 2}], ids=str)
def test_blockwise_attention_with_caps_and_windows_matches_xla_attention(sizes, window):
    """Check one device, and the ring of several devices."""
    qkv, mask, expected = capped_reference(window)
    if sizes is None:
        assert_close(output_and_gradients("blockwise", qkv, mask, CAP), expected)
        return
    with sharding.mesh_context(sharding.make_mesh(sizes)):
        assert_close(output_and_gradients("xla", qkv, mask, CAP), expected)


@pytest.mark.usefixtures("_interpreter")
def test_splash_attention_with_capped_scores_matches_xla_attention():
    qkv, mask = long_rows(CAUSAL)
    expected = output_and_gradients("xla", qkv, mask, CAP)
    assert_close(output_and_gradients("splash", qkv, mask, CAP), expected)


@pytest.mark.parametrize("implementation", ["splash", "triton"])
@pytest.mark.usefixtures("_interpreter")
def test_kernels_refuse_windows(implementation):
    qkv, mask = long_rows(BIDIRECTIONAL)
    with pytest.raises(UserError, match=r"does not support rows longer than model\.sliding_window"):
        attention_ops.dot_product_attention(*qkv, mask.limit(jnp.int32(9)), implementation)


def make_problem(platform="cpu", pattern=AttentionPattern.BIDIRECTIONAL, length=2_048, **changes):
    """Return a problem of bfloat16 heads of width 128 on an H100 or another platform."""
    values = {"dtype": jnp.bfloat16, "head_width": 128, "compute_capability": (9, 0)} | changes
    return attention_ops.AttentionProblem(platform, pattern, length, **values)


BIDIRECTIONAL, CAUSAL, MIXED = AttentionPattern
NO_PATTERN = None  # with a KV cache


@pytest.mark.parametrize(
    ("platform", "pattern", "changes", "expected"),
    [
        ("cpu", BIDIRECTIONAL, {"length": 96}, "xla"),
        ("cpu", MIXED, {"length": 1_024}, "xla"),
        ("cpu", CAUSAL, {"length": 1_025}, "blockwise"),
        ("cpu", NO_PATTERN, {"length": 96}, "xla"),
        ("cpu", NO_PATTERN, {}, "blockwise"),
        ("tpu", BIDIRECTIONAL, {}, "splash"),
        ("tpu", CAUSAL, {"dtype": jnp.float32, "head_width": 256}, "splash"),
        ("tpu", CAUSAL, {"length": 128}, "splash"),
        ("tpu", BIDIRECTIONAL, {"length": 96}, "xla"),
        ("tpu", MIXED, {}, "blockwise"),
        ("tpu", NO_PATTERN, {}, "blockwise"),
        ("gpu", BIDIRECTIONAL, {}, "triton"),
        ("gpu", CAUSAL, {"dtype": jnp.float32, "head_width": 80}, "triton"),
        ("gpu", CAUSAL, {"length": 257}, "triton"),
        ("gpu", BIDIRECTIONAL, {"length": 96}, "xla"),
        ("gpu", BIDIRECTIONAL, {"compute_capability": None}, "triton"),  # another machine's GPU
        ("gpu", BIDIRECTIONAL, {"compute_capability": (7, 5)}, "blockwise"),  # T4
        ("gpu", CAUSAL, {"compute_capability": (7, 5), "length": 512}, "xla"),
        ("gpu", CAUSAL, {"head_width": 256}, "blockwise"),
        ("gpu", MIXED, {}, "cudnn"),
        ("gpu", MIXED, {"dtype": jnp.float16}, "cudnn"),
        ("gpu", MIXED, {"dtype": jnp.float32}, "blockwise"),
        ("gpu", MIXED, {"head_width": 256}, "blockwise"),
        ("gpu", MIXED, {"length": 2_049}, "blockwise"),
        ("gpu", MIXED, {"compute_capability": (7, 5)}, "blockwise"),
        ("gpu", MIXED, {"compute_capability": None}, "blockwise"),
        ("gpu", MIXED, {"has_window": True}, "cudnn"),
        ("gpu", CAUSAL, {"has_window": True}, "cudnn"),
        ("gpu", CAUSAL, {"score_cap": 50.0}, "blockwise"),
        ("tpu", CAUSAL, {"score_cap": 50.0}, "splash"),
        ("tpu", CAUSAL, {"has_window": True}, "blockwise"),
        ("gpu", NO_PATTERN, {"length": 512}, "xla"),
        ("gpu", NO_PATTERN, {}, "blockwise"),
    ],
)
def test_automatic_choice(platform, pattern, changes, expected):
    chosen, reason = attention_ops.choose_implementation(make_problem(platform, pattern, **changes))
    assert chosen == expected
    assert reason


@pytest.mark.parametrize(
    ("implementation", "platform", "changes", "message_part"),
    [
        ("splash", "cpu", {}, "runs on a TPU, not on a CPU"),
        ("splash", "gpu", {}, "runs on a TPU, not on a GPU"),
        ("triton", "cpu", {}, "runs on a GPU, not on a CPU"),
        ("triton", "tpu", {"pattern": NO_PATTERN}, "runs on a GPU, not on a TPU"),
        ("triton", "gpu", {"pattern": MIXED}, "bidirectional and causal"),
        ("triton", "gpu", {"compute_capability": (7, 5)}, "8.0"),
        ("cudnn", "gpu", {"dtype": jnp.float32}, "bfloat16"),
        ("cudnn", "gpu", {"head_width": 256}, "128"),
        ("cudnn", "gpu", {"score_cap": 50.0}, r"does not support model\.score_cap"),
        ("triton", "gpu", {"score_cap": 50.0}, r"does not support model\.score_cap"),
        ("splash", "tpu", {"has_window": True}, r"rows longer than model\.sliding_window"),
    ],
)
def test_kernel_that_does_not_support_the_problem(implementation, platform, changes, message_part):
    problem = make_problem(platform, **changes)
    with pytest.raises(UserError, match=f"model.attention='{implementation}'.*{message_part}"):
        attention_ops.resolve_implementation(implementation, problem)


@pytest.mark.parametrize("implementation", ["splash", "triton", "cudnn"])
def test_kernels_of_other_platforms_are_not_interpreted(implementation):
    qkv, mask = long_rows(AttentionPattern.BIDIRECTIONAL)
    with pytest.raises(UserError, match="not on a CPU"):
        attention_ops.dot_product_attention(*qkv, mask, implementation)


def test_automatic_attention_on_this_platform_is_xla_attention():
    """Check that short rows get the program of "xla", which was the default before "auto"."""
    qkv, mask = long_rows(AttentionPattern.MIXED)
    programs = [
        jax.jit(attention_ops.dot_product_attention, static_argnums=4).lower(*qkv, mask, name)
        for name in ("auto", "xla")
    ]
    assert programs[0].as_text() == programs[1].as_text()


@pytest.mark.parametrize(
    ("kind", "capability", "expected"),
    [
        ("Tesla T4", "", "xla"),
        ("NVIDIA H100 80GB HBM3", "", "triton"),
        ("NVIDIA H100 80GB HBM3", "9.0", "triton"),
        ("Tesla V100-SXM2-16GB", "7.0", "xla"),
    ],
)
def test_problem_describes_the_gpu_of_the_mesh(kind, capability, expected, monkeypatch):
    """Check the choice for GPUs that are attached, with a capability, and that are not."""
    mesh = jax.sharding.AbstractMesh(
        (1,), ("data",), abstract_device=jax.sharding.AbstractDevice(kind, 1, "gpu")
    )
    device = types.SimpleNamespace(compute_capability=capability)
    monkeypatch.setattr(jax, "local_devices", lambda: [device])
    with jax.sharding.use_abstract_mesh(mesh):
        problem = attention_ops.describe_problem(CAUSAL, 512, jnp.bfloat16, 64)
    assert problem.platform == "gpu"
    assert attention_ops.choose_implementation(problem)[0] == expected
