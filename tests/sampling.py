"""Runs a sampler to its end, with or without a trajectory."""

import jax
import jax.numpy as jnp

from oneflow_jax.samplers import ode, steps
from oneflow_jax.samplers.base import SampleOutput, Trajectory


def sample(paradigm, *arguments) -> SampleOutput:
    """Sample with `paradigm.sampler(*arguments)` in one program."""
    return steps.sample(paradigm.sampler(*arguments))


def list_states(stepper: ode.Stepper, state, times):
    """Return the states of a solver at all times, stacked along a new first axis."""
    carry, states, step = stepper.init(state), [state], jax.jit(stepper.step)
    for number in range(len(times) - 1):
        carry = step(jnp.int32(number), carry)
        states.append(carry[0])
    return jax.tree.map(lambda *each: jnp.stack(each), *states)


def record(sampler) -> tuple[SampleOutput, Trajectory]:
    """Run a sampler step by step; return its documents and the frames of all steps."""
    advance, make_frame = jax.jit(sampler.advance), jax.jit(sampler.frame)
    progress, frames = jax.jit(sampler.start)(), []
    num_steps = int(progress.num_steps)
    for stop in [*steps.frame_steps(num_steps, progress.max_frames)[1:], num_steps]:
        if progress.is_done:
            break
        frames.append(make_frame(progress))
        progress = advance(progress, stop)
    out = jax.jit(sampler.finish)(progress)
    stacked = jax.tree.map(lambda *fields: jnp.stack(fields), *frames, out.frame)
    return out, Trajectory(
        stacked.canvas, stacked.time, stacked.confidence, stacked.x1_hat, stacked.run_time
    )
