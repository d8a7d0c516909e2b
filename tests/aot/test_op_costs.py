"""Tests of FLOPs and bytes of real programs against hand counts and XLA's cost analysis."""

import dataclasses

import jax
import jax.numpy as jnp
import pytest

from oneflow_jax.aot import hlo, op_costs
from oneflow_jax.costs.chips import Gpu, Tpu

CHIP = Tpu(
    peak_flops=1e9, hbm_bandwidth=1e6, hbm_bytes=1e9, ici_bandwidth=1e6, torus_dims=3, clock_hz=1e9
)


def compile_function(function, *arguments):
    return jax.jit(function).lower(*arguments).compile()


def measure_costs(function, *arguments):
    return op_costs.sum_op_costs(hlo.parse(compile_function(function, *arguments).as_text()), CHIP)


def test_matrix_product():
    done = measure_costs(jnp.matmul, jnp.ones((64, 32)), jnp.ones((32, 16)))
    assert done.flops == 2 * 64 * 32 * 16
    assert done.bytes == 4 * (64 * 32 + 32 * 16 + 64 * 16)
    # 65,536 FLOPs take 66 µs; 14,336 bytes take 14 ms.
    assert done.roofline_s == pytest.approx(done.bytes / 1e6)


def test_batched_and_looped_products():
    def function(x, y):
        return jax.lax.scan(lambda x, _: (jnp.einsum("bij,bjk->bik", x, y), None), x, length=7)[0]

    done = measure_costs(function, jnp.ones((4, 16, 16)), jnp.ones((4, 16, 16)))
    assert done.flops == 7 * 2 * 4 * 16**3


CONVOLUTIONS = {
    "plain": {"window_strides": (1,), "padding": "VALID"},
    "padded": {"window_strides": (1,), "padding": [(5, 3)]},
    "strided": {"window_strides": (3,), "padding": [(1, 1)]},
    "dilated": {"window_strides": (1,), "padding": [(2, 2)], "rhs_dilation": (2,)},
    "spread": {"window_strides": (2,), "padding": [(2, 2)], "lhs_dilation": (3,)},
    "grouped": {"window_strides": (1,), "padding": "SAME", "feature_group_count": 2},
}


@pytest.mark.parametrize("name", CONVOLUTIONS)
def test_convolutions_are_counted_as_xla_does(name):
    settings = CONVOLUTIONS[name]
    groups = settings.get("feature_group_count", 1)
    x, kernel = jnp.ones((2, 8, 13)), jnp.ones((4, 8 // groups, 5))

    def function(x, kernel):
        return jax.lax.conv_general_dilated(x, kernel, **settings)

    program = compile_function(function, x, kernel)
    done = op_costs.sum_op_costs(hlo.parse(program.as_text()), None)
    assert done.roofline_s is None
    assert done.flops == program.cost_analysis()["flops"]


SLICED = """HloModule step
%sliced (p0: f32[24,64,64], p1: s32[]) -> bf16[1,64,64] {
  %p0 = f32[24,64,64]{2,1,0:T(8,128)} parameter(0)
  %p1 = s32[]{:T(128)} parameter(1)
  %zero = s32[]{:T(128)} constant(0)
  %one = f32[1,64,64]{2,1,0} dynamic-slice(%p0, %p1, %zero, %zero), dynamic_slice_sizes={1,64,64}
  ROOT %narrow = bf16[1,64,64]{2,1,0:S(1)} convert(%one)
}
%updated (q0: f32[24,64,64], q1: f32[1,64,64], q2: s32[]) -> f32[24,64,64] {
  %q0 = f32[24,64,64]{2,1,0:T(8,128)} parameter(0)
  %q1 = f32[1,64,64]{2,1,0:T(8,128)S(1)} parameter(1)
  %q2 = s32[]{:T(128)} parameter(2)
  %zero.1 = s32[]{:T(128)} constant(0)
  ROOT %put = f32[24,64,64]{2,1,0} dynamic-update-slice(%q0, %q1, %q2, %zero.1, %zero.1)
}
ENTRY %main (a: f32[24,64,64], b: f32[1,64,64], c: s32[]) -> f32[24,64,64] {
  %a = f32[24,64,64]{2,1,0} parameter(0)
  %b = f32[1,64,64]{2,1,0:S(1)} parameter(1)
  %c = s32[] parameter(2)
  %f = bf16[1,64,64]{2,1,0:S(1)} fusion(%a, %c), kind=kLoop, calls=%sliced
  ROOT %g = f32[24,64,64]{2,1,0} fusion(%a, %b, %c), kind=kLoop, calls=%updated
}
"""


def test_slices_and_in_place_updates_count_only_the_slice():
    done = op_costs.sum_op_costs(hlo.parse(SLICED), CHIP)
    layer, index = 4 * 64 * 64, 4
    # The program reads one layer once and the layer index twice from HBM. On-chip data counts 0. It
    # writes one layer to HBM.
    assert done.bytes == layer + index + layer + index


KERNEL = """HloModule step
ENTRY %main (a: bf16[2,16,64,128], b: bf16[2,4,256,128]) -> bf16[2,16,64,128] {
  %a = bf16[2,16,64,128] parameter(0)
  %b = bf16[2,4,256,128] parameter(1)
  %seen = s8[1,4,4]{2,1,0:T(4,128)S(1)} iota(), iota_dimension=0
  %splash_mha_dq.1 = (f32[16]{0:S(1)}, bf16[2,16,64,128]) custom-call(%seen, %a, %b, %b), custom_call_target="tpu_custom_call", frontend_attributes={kernel_metadata={
"xprof_metadata":"{}"
}}, metadata={op_name="jit(step)/attention/pallas_call"}, backend_config={}
  ROOT %q = bf16[2,16,64,128] get-tuple-element(%splash_mha_dq.1), index=1
}
"""  # noqa: E501 - as XLA writes it


def test_kernel_instructions_span_several_lines():
    kernel = hlo.parse(KERNEL).computations["main"]["splash_mha_dq.1"]
    assert kernel.path == "jit(step)/attention/pallas_call"


def test_kernels_are_costed_by_name_at_half_the_peak():
    """Check a kernel of three products with 2 rows, 16 heads, 64 queries and 256 keys."""
    done = op_costs.sum_op_costs(hlo.parse(KERNEL), CHIP)
    assert done.flops == 3 * 2 * 2 * 16 * 64 * 256 * 128
    query, key = 2 * 2 * 16 * 64 * 128, 2 * 2 * 4 * 256 * 128
    assert done.bytes == 2 * query + 2 * key
    fast = dataclasses.replace(CHIP, hbm_bandwidth=1e12)
    quick = op_costs.sum_op_costs(hlo.parse(KERNEL), fast)
    assert quick.roofline_s == quick.compiler_s == done.flops / 0.5e9


GPU_KERNELS = """HloModule step
ENTRY %main (a: bf16[2,512,4,128], s: s32[2,512], d: f32[2,4,512]) -> bf16[2,512,4,128] {
  %a = bf16[2,512,4,128]{3,2,1,0} parameter(0)
  %s = s32[2,512]{1,0} parameter(1)
  %d = f32[2,4,512]{2,1,0} parameter(2)
  %p.0 = (bf16[2,512,4,128]{3,2,1,0}, f32[2,4,512]{2,1,0}) custom-call(%a, %a, %a, %s), custom_call_target="__gpu$xla.gpu.triton", metadata={op_name="jit(f)/jvp(jit(mha))/mha_forward/pallas_call"}
  %p.1 = f32[2,4,512]{2,1,0} custom-call(%a, %a), custom_call_target="__gpu$xla.gpu.triton", metadata={op_name="jit(f)/mha_preprocess_backward/pallas_call"}
  %p.2 = (bf16[2,512,4,128]{3,2,1,0}, bf16[2,512,4,128]{3,2,1,0}) custom-call(%a, %a, %a, %s, %d), custom_call_target="__gpu$xla.gpu.triton", metadata={op_name="jit(f)/transpose(jvp(mha_backward))/pallas_call"}
  ROOT %q = bf16[2,512,4,128] get-tuple-element(%p.2), index=0
}
"""  # noqa: E501 - as XLA writes it


def test_attention_kernels_of_gpus_are_counted_by_their_path():
    """Check 2 products forward and 7 backward, of 2 rows, 4 heads, and 512 queries and keys."""
    done = op_costs.sum_op_costs(hlo.parse(GPU_KERNELS), None)
    assert done.flops == 9 * 2 * 2 * 4 * 512 * 512 * 128


def test_other_custom_calls_have_no_flops():
    text = GPU_KERNELS.replace("__gpu$xla.gpu.triton", "other")
    assert op_costs.sum_op_costs(hlo.parse(text), None).flops == 0


CYCLES = """HloModule step
ENTRY %main (a: bf16[64,64]) -> bf16[64,64] {
  %a = bf16[64,64]{1,0} parameter(0)
  ROOT %k = bf16[64,64]{1,0} copy(%a), backend_config={"estimated_cycles":"77"}
}
"""


def test_compiler_cycles_are_read():
    assert op_costs.sum_op_costs(hlo.parse(CYCLES), CHIP).compiler_s == 77 / CHIP.clock_hz


def test_gpus_have_no_cycle_estimates():
    gpu = Gpu(peak_flops=1e9, hbm_bandwidth=1e6, hbm_bytes=1e9, link_bandwidth=1e6)
    done = op_costs.sum_op_costs(hlo.parse(CYCLES), gpu)
    assert done.compiler_s is None
    assert done.roofline_s == done.bytes / 1e6
