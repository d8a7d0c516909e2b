"""Tests of oneflow with a flow map: losses, the zero-initialized input, and sampling."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from etils import epath

from configs import common, quickstart
from oneflow_jax import evaluate
from oneflow_jax.build import sampling
from oneflow_jax.build import system as system_lib
from oneflow_jax.data import prompt as prompts
from oneflow_jax.errors import UserError
from oneflow_jax.generation.generator import Generator
from oneflow_jax.runtime import sharding
from oneflow_jax.samplers import jump, ode
from oneflow_jax.training import flow_map, loop, step, train_state
from tests import runs
from tests.sampling import list_states


def make_config(data_dir, **changes):
    config = common.shrink_for_debugging(quickstart.get_config())
    config.data.dir = str(data_dir)
    config.batch_size = 16  # two rows for each of the 8 devices
    config.evaluation.every = 10
    config.update_from_flattened_dict(changes)
    return config


@pytest.fixture(scope="module")
def parent(tmp_path_factory):
    """Train a run without a flow map for two steps."""
    top = tmp_path_factory.mktemp("flow_map")
    folder = epath.Path(top / "parent")
    loop.run(runs.prepare_system(folder, make_config(top / "data").lock()), folder)
    return folder


@pytest.fixture(scope="module")
def system(parent):
    """Return a system with a flow map that is initialized from the parent."""
    changes = {"init_from": str(parent), "paradigm.flow_map": True, "sampling.solver": "jump"}
    folder = parent.parent / "child"
    return runs.prepare_system(folder, make_config(parent.parent / "data", **changes).lock())


@pytest.fixture(scope="module")
def state(system):
    return system.initialize_from(train_state.init_sharded(system))


@pytest.fixture(scope="module")
def canvas(system):
    return next(iter(system.train_batches()))


def make_rows(canvas):
    """Return keys that no other call has used, uniform numbers, and the canvas."""
    keys = jax.random.split(jax.random.key(1), canvas.ids.shape[0])
    return keys, jnp.full(canvas.ids.shape, 0.25), canvas


def test_parameters_of_the_parent_are_kept_and_the_new_input_has_no_effect(system, state, parent):
    before = system_lib.system(make_config(parent.parent / "data").lock(), epath.Path(parent))
    params = evaluate.load_ema_params(before, epath.Path(parent))
    assert set(state.params) - set(params) == {"interval_clock"}
    for name, leaves in params.items():
        jax.tree.map(np.testing.assert_array_equal, leaves, state.params[name])
    size = system.model.config.width
    time = jnp.linspace(0, 1, 7)[None]
    embedded = system.model.apply(
        {"params": state.params}, time, method=lambda model, t: model.interval_clock(t)
    )
    assert embedded.shape == (1, 7, size)
    assert not jnp.any(embedded)


def test_even_rows_have_the_usual_losses_and_odd_rows_those_of_the_map(system, state, canvas):
    rows, every_second = make_rows(canvas), jax.tree.map(lambda x: x[::2], make_rows(canvas))
    both = {"model": system.model, "paradigm": system.paradigm}
    with sharding.mesh_context(system.mesh):
        losses = flow_map.per_row_losses(state.params, state.ema, *rows, **both)
        even = step.per_row_losses(state.params, *every_second, **both)
    assert losses.keys() == {"text", "image", "text_map", "image_map"}
    for name, term in even.items():
        np.testing.assert_allclose(losses[name].total, term.total, rtol=1e-5)
    assert losses["text_map"].total.shape == (canvas.ids.shape[0] // 2,)
    assert all(jnp.all(losses[name].count > 0) for name in ("text_map", "image_map"))
    assert {name for name, _ in system.paradigm.weights} == losses.keys()
    assert system.paradigm.counts(canvas).keys() == losses.keys()


class ConstantModel:
    """A network whose outputs depend neither on the state nor on times; so ψ is constant too."""

    def __init__(self, outputs, table):
        self.outputs, self.table = outputs, table

    def apply(self, params, view=None, method=None):
        if method == "embedding_table":
            return self.table
        scale = params["params"]
        return {
            name: scale * jnp.broadcast_to(value, (*view.time.shape, len(value)))
            for name, value in self.outputs.items()
        }


def test_a_constant_prediction_is_consistent_and_another_is_not(system, state, canvas):
    rng = np.random.default_rng(0)
    outputs = {
        head.name: rng.standard_normal(head.width).astype(np.float32)
        for head in system.paradigm.heads
    }
    table = system.model.apply({"params": state.params}, method="embedding_table")
    losses = functools.partial(
        flow_map.map_losses, model=ConstantModel(outputs, table), paradigm=system.paradigm
    )
    one, two = jnp.float32(1.0), jnp.float32(2.0)
    same = losses(one, one, *make_rows(canvas))
    changed = losses(two, one, *make_rows(canvas))
    for name in ("text_map", "image_map"):
        np.testing.assert_allclose(same[name].total, 0.0, atol=1e-4)
        assert jnp.all(changed[name].total > 0.01)


def test_the_ema_gets_no_gradient_and_the_parameters_do(system, state, canvas):
    def total(params, ema):
        terms = flow_map.map_losses(
            params, ema, *make_rows(canvas), model=system.model, paradigm=system.paradigm
        )
        return sum(jnp.sum(term.total) for term in terms.values())

    # At initialization, the first head of patches is zero, so take parameters that are not.
    params = jax.tree.map(lambda x: x + 0.1, state.params)
    with sharding.mesh_context(system.mesh):
        of_params, of_ema = jax.jit(jax.grad(total, argnums=(0, 1)))(params, state.ema)
    assert not any(map(jnp.any, jax.tree.leaves(of_ema)))
    assert jnp.any(of_params["interval_clock"]["out"]["kernel"])


@pytest.mark.parametrize("solver", ode.FLOW_MAP_SOLVERS)
@pytest.mark.parametrize("steps", [1, 3])
def test_samples_keep_the_prompt_and_take_one_pass_per_step(system, state, solver, steps):
    config = system.config.copy_and_resolve_references()
    config.unlock()
    config.sampling.update({"solver": solver, "steps": steps})
    plan = sampling.sampling_plan(config, system.paradigm, "uniform")
    assert system.paradigm.nfe(plan) == steps
    prompt = prompts.parse("a picture of a tiger: <image>", 4)
    (batch,) = Generator(system, state.ema)([prompt] * 8, plan, seed=0, batch=8)
    assert [document.parts[0] for document in batch.documents] == [prompt.parts[0]] * 8
    first, second, *_ = (document.images()[0] for document in batch.documents)
    assert np.all(np.isfinite(first))
    assert np.any(first != second)


def test_jumps_add_up_to_the_last_prediction():
    """With ψ = 3 everywhere, x moves on the straight line to 3."""
    schedule = ode.make_schedule("jump", 4, (0.0, 0.1, 0.4, 0.8))
    x = jnp.zeros((1, 2, 1))
    stepper = jump.make_stepper(lambda t, end, x: jnp.full_like(x, 3.0), schedule.times)
    states = list_states(stepper, x, schedule.times)
    np.testing.assert_allclose(states[:, 0, 0, 0], [0, 0.3, 1.2, 2.4], rtol=1e-5)
    end, _ = ode.solve(stepper, x, schedule.times)
    np.testing.assert_allclose(end, 3 * 0.8, rtol=1e-6)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"paradigm.objective": "velocity"}, "paradigm.objective='velocity': paradigm.flow_map"),
        ({"paradigm.name": "mask_flow", "sampling.solver": "euler"}, "only oneflow has a flow map"),
        ({"grad_accum_steps": 2}, "a device has 1 rows of a microbatch. Choose a multiple of 32"),
        ({"paradigm.flow_map": False}, "sampling.solver='jump': it needs a model"),
    ],
)
def test_what_does_not_fit_is_refused(parent, changes, message):
    start = {"paradigm.flow_map": True, "sampling.solver": "jump"}
    config = make_config(parent.parent / "data", **(start | changes))
    with pytest.raises(UserError, match=message):
        system_lib.system(config.lock(), epath.Path(parent.parent / "other"))
