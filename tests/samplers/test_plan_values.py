"""Tests that the values of a plan are arguments of compiled programs, and its structure is not."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from oneflow_jax.samplers import guidance, ode, token_sampling
from oneflow_jax.samplers.base import SamplingPlan
from oneflow_jax.samplers.token_sampling import TokenSampling

CHOICE = TokenSampling(temperature=0.7, top_p=0.9, top_k=3, remask_prob=0.2)
PLAN = SamplingPlan(
    ode.make_schedule("heun", 4, "uniform", 0.3),
    image_guidance_scale=1.5,
    text_guidance_scale=2.0,
    token_sampling=CHOICE,
)


def signature(plan):
    """Return what `jax.jit` compiles a program for: the tree structure and the shapes of leaves."""
    leaves, structure = jax.tree.flatten(plan)
    return structure, [jnp.shape(leaf) for leaf in leaves]


def with_choice(**changes):
    return {"token_sampling": dataclasses.replace(CHOICE, **changes)}


@pytest.mark.parametrize(
    "changes",
    [
        {"image_guidance_scale": 1.6},
        {"text_guidance_scale": 0.0},
        {"schedule": ode.make_schedule("heun", 4, "cosine", 0.8)},
        {"schedule": ode.make_schedule("heun", 63, "uniform", 0.3)},
        {"schedule": ode.make_schedule("heun", 0, (0.0, 0.1, 0.2, 0.7), 0.1)},
        with_choice(temperature=1.0),
        with_choice(top_p=0.1),
        with_choice(top_k=1),
        with_choice(remask_prob=0.0),
    ],
)
def test_values_do_not_change_the_structure(changes):
    assert signature(dataclasses.replace(PLAN, **changes)) == signature(PLAN)


@pytest.mark.parametrize(
    "changes",
    [
        {"image_guidance_scale": 1.0},
        {"text_guidance_scale": 1.0},
        {"schedule": ode.make_schedule("midpoint", 4, "uniform", 0.3)},
        {"schedule": ode.make_schedule("heun", 64, "uniform", 0.3)},
        {"schedule": ode.make_schedule("heun", 4)},
        with_choice(temperature=0.0),
        with_choice(top_p=1.0),
        with_choice(top_k=0),
        with_choice(unmask_order="confidence"),
    ],
)
def test_omitted_operations_change_the_structure(changes):
    assert signature(dataclasses.replace(PLAN, **changes)) != signature(PLAN)


def test_thresholds_of_confidence_share_a_program_unless_there_is_none():
    schedule = ode.make_schedule("renoise", 4)
    none, low, high = (SamplingPlan(schedule, confidence_threshold=x) for x in (1.0, 0.5, 0.9))
    assert signature(low) == signature(high)
    assert signature(low) != signature(none)


def test_neutral_values_stay_numbers_in_a_program():
    seen = []

    @jax.jit
    def run(plan):
        seen.append((plan.image_guidance_scale, plan.token_sampling.top_k, plan.is_edit))
        return guidance.nfe_factor(plan.image_guidance_scale, plan.text_guidance_scale)

    schedule = ode.make_schedule("euler", 2)
    assert run(SamplingPlan(schedule)) == 1
    assert seen == [(1.0, 0, False)]
    assert run(SamplingPlan(schedule, 1.5, 2.5)) == 3
    assert run(SamplingPlan(schedule, 1.6, 0.5)) == 3
    assert len(seen) == 2


@pytest.mark.parametrize(
    "choice",
    [
        CHOICE,
        TokenSampling(),
        TokenSampling(temperature=0.0),
        TokenSampling(top_p=0.5),
        TokenSampling(top_k=2),
    ],
)
def test_log_probabilities_are_those_of_constants(choice):
    logits = jax.random.normal(jax.random.key(0), (3, 11))
    allowed = jnp.arange(11) > 1
    as_argument = jax.jit(token_sampling.sampling_log_probs)(logits, allowed, choice)
    as_constant = jax.jit(
        lambda logits: token_sampling.sampling_log_probs(logits, allowed, choice)
    )(logits)
    np.testing.assert_array_equal(np.isfinite(as_argument), np.isfinite(as_constant))
    np.testing.assert_allclose(as_argument, as_constant, rtol=1e-5)


@pytest.mark.parametrize("solver", ode.SOLVERS)
def test_programs_of_solvers_have_no_callbacks(solver):
    """JAX stores a program in its compilation cache only if it has no callbacks to Python."""
    plan = ode.make_schedule(solver, 3)

    @jax.jit
    def solve(plan):
        stepper = ode.make_stepper(lambda t, x: t * x, plan)
        return ode.solve(stepper, jnp.ones(2), plan.times)[0]

    assert "callback" not in solve.lower(plan).as_text()
