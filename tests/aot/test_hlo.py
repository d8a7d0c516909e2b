"""Tests of parsing HLO: which instructions a program runs, and how often."""

import jax
import jax.numpy as jnp

from oneflow_jax.aot import hlo


def compile_program(function, *arguments):
    return hlo.parse(jax.jit(function).lower(*arguments).compile().as_text())


def matmul_run_count(program):
    """Return how often the program's only matrix product runs, which may be inside a fusion."""
    (times,) = (
        times
        for name, times in program.run_counts.items()
        for line in program.computations[name].values()
        if line.opcode == "dot"
    )
    return times


def nested_scan(x):
    def round_(x, _):
        inner, _ = jax.lax.scan(lambda y, _: (jnp.tanh(y @ y), None), x, length=3)
        return inner, None

    return jax.lax.scan(round_, x, length=5)[0]


def test_trip_counts_of_nested_loops_multiply():
    program = compile_program(nested_scan, jnp.ones((16, 16)))
    times = matmul_run_count(program)
    assert times == 15
    assert program.dynamic_loops == ()


def test_loop_of_unknown_trip_count_counts_once_and_is_listed():
    program = compile_program(
        lambda x: jax.lax.while_loop(lambda x: jnp.sum(x) < 9.0, lambda x: jnp.tanh(x @ x), x),
        jnp.ones((16, 16)),
    )
    times = matmul_run_count(program)
    assert times == 1
    assert len(program.dynamic_loops) == 1


TPU = """HloModule step
%cond (p: (s32[], f32[8,128])) -> pred[] {
  %limit = s32[]{:T(128)} constant(23)
  %p = (s32[]{:T(128)}, f32[8,128]{1,0:T(8,128)S(1)}) parameter(0)
  %n = s32[]{:T(128)} get-tuple-element(%p), index=0
  ROOT %lt = pred[]{:T(512)} compare(%n, %limit), direction=LT
}
%body (p.1: (s32[], f32[8,128])) -> (s32[], f32[8,128]) {
  %p.1 = (s32[]{:T(128)}, f32[8,128]{1,0:T(8,128)S(1)}) parameter(0)
  %x = f32[8,128]{1,0:T(8,128)S(1)} get-tuple-element(%p.1), index=1
  %y = bf16[8,128]{1,0:T(8,128)(2,1)} convert(%x), metadata={op_name="jit(step)/mlp/convert"}
  %n.0 = s32[]{:T(128)} get-tuple-element(%p.1), index=0
  %step = s32[]{:T(128)} constant(2)
  %n.1 = s32[]{:T(128)} add(%n.0, %step)
  ROOT %t = (s32[]{:T(128)}, f32[8,128]{1,0:T(8,128)S(1)}) tuple(%n.1, /*index=1*/%x)
}
ENTRY %main (a: (s32[], f32[8,128])) -> (s32[], f32[8,128]) {
  %a = (s32[]{:T(128)}, f32[8,128]{1,0:T(8,128)S(1)}) parameter(0)
  ROOT %w = (s32[]{:T(128)}, f32[8,128]{1,0}) while(%a), condition=%cond, body=%body
}
"""


def test_tpu_hlo_syntax():
    """Check TPU syntax: trip counts of loops with step 2, and arrays in on-chip memory, `S(1)`."""
    program = hlo.parse(TPU)
    assert program.run_counts == {"main": 1, "body": 12}
    line = program.computations["body"]["y"]
    assert line.shapes == (hlo.Shape("bf16", (8, 128)),)
    assert (line.shapes[0].bytes, line.path, line.operands) == (
        2048,
        "jit(step)/mlp/convert",
        ("x",),
    )
    assert not program.computations["body"]["x"].shapes[0].in_hbm
    assert program.computations["body"]["t"].operands == ("n.1", "x")
