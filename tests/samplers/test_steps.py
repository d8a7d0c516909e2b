"""Tests of samplers that run step by step."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from oneflow_jax.samplers import steps

STEPS = 7


def make_sampler(num_steps=STEPS, **options):
    """Return a sampler of a number, whose output is the number of steps and the number."""
    return steps.StepSampler(
        num_steps=num_steps,
        init=lambda: jnp.float32(0.3),
        step=lambda n, x: jnp.sin(3 * x) + n,
        make_frame=lambda n, x: (n, x),
        make_output=lambda n, x: (n, x),
        **options,
    )


@pytest.mark.parametrize("last_in_output", [False, True])
def test_steps_in_parts_are_those_of_one_call(last_in_output):
    sampler = make_sampler(last_in_output=last_in_output)
    whole = steps.sample(sampler)
    start, advance = jax.jit(sampler.start), jax.jit(sampler.advance)
    for stops in ((3, 4, STEPS), range(1, STEPS + 1), (STEPS + 5,)):
        progress = start()
        for stop in stops:
            assert not progress.is_done
            progress = advance(progress, stop)
        assert progress.is_done
        assert sampler.finish(progress) == whole
    assert whole[0] == STEPS
    shorter = steps.sample(make_sampler(STEPS - 1))
    assert (whole[1] == shorter[1]) == last_in_output


def test_a_sampler_stops_when_no_step_is_needed():
    sampler = make_sampler(is_active=lambda n, x: x < 2.5)
    done = sampler.advance(sampler.start(), STEPS)
    assert done.is_done
    assert 1 < done.step < STEPS
    again = sampler.advance(done, STEPS)
    assert (again.step, again.state) == (done.step, done.state)


def test_the_number_of_steps_is_an_argument():
    @jax.jit
    def run(count):
        return steps.sample(make_sampler(count))

    for count in (1, 4, STEPS):
        np.testing.assert_allclose(run(count)[1], steps.sample(make_sampler(count))[1], rtol=1e-6)
    assert run._cache_size() == 1


def test_trajectories_have_few_frames():
    assert steps.frame_steps(5, None) == steps.frame_steps(5, 8) == [0, 1, 2, 3, 4]
    numbers = steps.frame_steps(1000, 64)
    assert numbers[:32] == list(range(32))
    assert len(numbers) <= 64
    assert len({*np.diff(numbers[32:])}) == 1
    assert numbers[-1] > 900
