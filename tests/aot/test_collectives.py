"""Tests of finding collectives in real programs for 8 devices, with known counts and bytes."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import PartitionSpec as P

from oneflow_jax.aot import collective_roles, collectives, hlo, op_costs

SHARD_BYTES = 4 * 256  # bytes of float32[1, 256]


def compile_and_find(function, out_specs, *, slice_of=(0,) * 8, mesh=None):
    """Compile a function of f32[1, 256] for a 2 x 4 mesh and return its collectives."""
    mesh = jax.make_mesh((2, 4), ("a", "b"), axis_types=(jax.sharding.AxisType.Auto,) * 2)
    mapped = jax.shard_map(
        function, mesh=mesh, in_specs=P(("a", "b")), out_specs=out_specs, check_vma=False
    )
    text = jax.jit(mapped).lower(jnp.ones((8, 256))).compile().as_text()
    return collectives.find_collectives(hlo.parse(text), slice_of)


ALL = ("a", "b")
CASES = {
    "all-gather": (lambda x: jax.lax.all_gather(x, "b", tiled=True), P("a"), 3 * SHARD_BYTES, 4),
    "all-reduce": (lambda x: jax.lax.psum(x, ALL), P(), 2 * 7 / 8 * SHARD_BYTES, 8),
    "reduce-scatter": (
        lambda x: jax.lax.psum_scatter(x, "b", scatter_dimension=1, tiled=True),
        P("a", "b"),
        3 / 4 * SHARD_BYTES,
        4,
    ),
    "all-to-all": (
        lambda x: jax.lax.all_to_all(x, "a", split_axis=1, concat_axis=0, tiled=True),
        P(None, ALL),
        1 / 2 * SHARD_BYTES,
        2,
    ),
    "collective-permute": (
        lambda x: jax.lax.ppermute(x, "b", [(0, 1), (1, 2), (2, 3), (3, 0)]),
        P(ALL),
        SHARD_BYTES,
        2,
    ),
}


@pytest.mark.parametrize("kind", CASES)
def test_kind_bytes_and_group(kind):
    function, out, sent, chips = CASES[kind]
    (one,) = compile_and_find(function, out)
    assert (one.kind, one.bytes, one.group_size, one.count) == (kind, sent, chips, 1)
    assert collectives.sum_by_kind([one]) == {kind: {"count": 1, "bytes": sent}}


def test_collectives_in_a_loop_count_once_per_iteration():
    def function(x):
        return jax.lax.scan(lambda y, _: (jax.lax.psum(y, "b") / 4, None), x, length=6)[0]

    (one,) = compile_and_find(function, P(ALL))
    assert (one.count, one.bytes) == (6, 6 * 2 * 3 / 4 * SHARD_BYTES)
    assert collectives.sum_by_kind([one])["all-reduce"]["count"] == 6


@pytest.mark.parametrize(("axis", "slices"), [("a", 2), ("b", 1)])
def test_collectives_across_slices_are_marked(axis, slices):
    function = functools.partial(jax.lax.psum, axis_name=axis)
    (one,) = compile_and_find(function, P(ALL), slice_of=(0, 0, 0, 0, 1, 1, 1, 1))
    assert one.num_slices == slices


GROUP_FORMATS = {
    "replica_groups={{0,1},{2,3}}, x": [[0, 1], [2, 3]],
    "replica_groups=[2,2]<=[4], x": [[0, 1], [2, 3]],
    "replica_groups=[2,2]<=[2,2]T(1,0), x": [[0, 2], [1, 3]],
    "replica_groups=mesh['axis_0'=2,'axis_1'=2] {'axis_0'}, x": [[0, 2], [1, 3]],
    "replica_groups=mesh['axis_0'=4] {'axis_0':(1)2}, x": [[0, 2], [1, 3]],
    "replica_groups=mesh['axis_0'=4] {'axis_0':(2)2}, x": [[0, 1], [2, 3]],
    "replica_groups=mesh['a'=1,'b'=2,'c'=2], device_ids=([2,2]T(1,0)) {'b'}, x": [[0, 1], [2, 3]],
    "replica_groups=mesh['a'=1,'b'=2,'c'=2], device_ids=([2,2]T(1,0)) {'c'}, x": [[0, 2], [1, 3]],
    "replica_groups={}, x": [[0, 1, 2, 3]],
}


@pytest.mark.parametrize("form", GROUP_FORMATS)
def test_replica_groups_in_every_format(form):
    line = hlo.Instruction("all-reduce.1", "all-reduce", (), (), form, is_root=False)
    np.testing.assert_array_equal(collectives._device_groups(line, 4), GROUP_FORMATS[form])


FUSED = """HloModule step
%all-reduce-scatter.7 (x: bf16[512,64]) -> bf16[128,64] {
  %x = bf16[512,64]{1,0:T(8,128)(2,1)} parameter(0)
  %sum = bf16[512,64]{1,0:T(8,128)(2,1)} all-reduce(%x), replica_groups={{0,1,2,3}}, to_apply=%add
  %me = u32[] partition-id()
  %none = u32[] constant(0)
  ROOT %mine = bf16[128,64]{1,0} dynamic-slice(%sum, %me, %none), dynamic_slice_sizes={128,64}
}
ENTRY %main (a: bf16[512,64]) -> bf16[128,64] {
  %a = bf16[512,64]{1,0} parameter(0)
  ROOT %f = bf16[128,64]{1,0} fusion(%a), kind=kCustom, calls=%all-reduce-scatter.7
}
"""


def test_all_reduce_followed_by_a_slice_is_a_reduce_scatter():
    (one,) = collectives.find_collectives(hlo.parse(FUSED), (0,) * 4)
    assert (one.kind, one.bytes, one.shape) == ("reduce-scatter", 3 / 4 * 65536, "bf16[512,64]")


STARTED = """HloModule step
ENTRY %main (a: bf16[4,64]) -> bf16[16,64] {
  %a = bf16[4,64]{1,0} parameter(0)
  %s = (bf16[4,64]{1,0}, bf16[16,64]{1,0}) all-gather-start(%a), replica_groups=[1,4]<=[4]
  ROOT %d = bf16[16,64]{1,0} all-gather-done(%s)
}
"""


def test_asynchronous_collective_counts_once():
    (one,) = collectives.find_collectives(hlo.parse(STARTED), (0,) * 4)
    assert (one.kind, one.bytes, one.shape) == ("all-gather", 3 * 512, "bf16[16,64]")


COMBINED = """HloModule step
ENTRY %main (a: bf16[4,64], b: f32[8]) -> (bf16[16,64], f32[32]) {
  %a = bf16[4,64]{1,0} parameter(0)
  %b = f32[8]{0} parameter(1)
  %s = ((bf16[4,64]{1,0}, f32[8]{0}), (bf16[16,64]{1,0}, f32[32]{0})) all-gather-start(%a, %b), replica_groups=[1,4]<=[4]
  ROOT %d = (bf16[16,64]{1,0}, f32[32]{0}) all-gather-done(%s)
}
"""  # noqa: E501 - as XLA writes it


def test_combined_collective_has_all_its_shapes(monkeypatch):
    program = hlo.parse(COMBINED)
    (one,) = collectives.find_collectives(program, (0,) * 4)
    assert (one.bytes, one.shape) == (3 * (512 + 32), "bf16[16,64] f32[32]")
    assert op_costs.sum_op_costs(program, None).bytes == 5 * (512 + 32)
    monkeypatch.setattr(collective_roles, "SMALL_BYTES", 0)
    assert collective_roles.classify(one, {16 * 64, 32}) == collective_roles.PARAMETERS
    assert collective_roles.classify(one, {16 * 64}) == collective_roles.ACTIVATIONS


OVERLAPPED = """HloModule step
%begun (x: bf16[4,64]) -> bf16[16,64] {
  %x = bf16[4,64]{1,0} parameter(0)
  ROOT %g = bf16[16,64] all-gather(%x), channel_id=5, replica_groups=[1,4]<=[4], dimensions={0}
}
%ended (y: bf16[4,64]) -> bf16[16,64] {
  %y = bf16[4,64]{1,0} parameter(0)
  ROOT %h = bf16[16,64] all-gather(%y), channel_id=5, replica_groups=[1,4]<=[4], dimensions={0}
}
ENTRY %main (a: bf16[4,64]) -> bf16[16,64] {
  %a = bf16[4,64]{1,0} parameter(0)
  %b = bf16[16,64] fusion(%a), kind=kCustom, calls=%begun, metadata={op_name="jit(step)/mlp/up"}
  ROOT %c = bf16[16,64] fusion(%a), kind=kCustom, calls=%ended
}
"""


def test_overlapped_collective_counts_once_with_its_module():
    (one,) = collectives.find_collectives(hlo.parse(OVERLAPPED), (0,) * 4)
    assert (one.bytes, one.path) == (3 * 512, "jit(step)/mlp/up")
