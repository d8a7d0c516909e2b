"""Tests of frozen parameters: no gradients, moments or updates, and the rest trains as usual."""

import dataclasses
import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from etils import epath

from oneflow_jax.errors import UserError
from oneflow_jax.runtime import sharding, workdir
from oneflow_jax.training import loop
from oneflow_jax.training import optimizer as optimizer_lib
from tests import runs, tiny
from tests.training import test_resume

FROZEN = "backbone/blocks/attention|^rows"
NAMES = {
    "rows",
    *(f"backbone/blocks/attention/{map_}/kernel" for map_ in ("key", "out", "query", "value")),
    *(f"backbone/blocks/attention/{norm}/scale" for norm in ("key_norm", "query_norm")),
    "backbone/blocks/attention_norm/scale",
}


def settings(frozen=FROZEN, **changes):
    return dataclasses.replace(tiny.OPTIMIZER_CONFIG, freeze=frozen, **changes)


@dataclasses.dataclass(frozen=True)
class System(tiny.System):
    """The tiny system with some parameters frozen."""

    optimizer: optax.GradientTransformation = dataclasses.field(
        default_factory=lambda: optimizer_lib.optimizer(settings())
    )
    freeze: str = FROZEN

    def train_step(self):
        return functools.partial(super().train_step(), freeze=self.freeze)


def flatten_params(tree):
    """Return the arrays of a parameter tree by name."""
    return {
        jax.tree_util.keystr(path, simple=True, separator="/"): np.asarray(leaf)
        for path, leaf in jax.tree.leaves_with_path(tree)
    }


@functools.cache
def run_three_steps():
    """Return a state, the state after 3 steps, and the metrics of the last step."""
    system, batch = System(), tiny.packed_batch()
    params = tiny.parameters(system.network)
    before = system.init_state(batch).replace(params=params, ema=jax.tree.map(jnp.copy, params))
    state, step = before, system.jit_train_step()
    for _ in range(3):
        state, logged = step(state, batch)
    return before, state, tiny.compute_metrics(logged)


def test_frozen_parameters_stay_bit_identical_and_others_change():
    before, after, _ = run_three_steps()
    for tree in ("params", "ema"):
        old, new = flatten_params(getattr(before, tree)), flatten_params(getattr(after, tree))
        same = {name for name in old if old[name].tobytes() == new[name].tobytes()}
        assert same == NAMES


def test_frozen_parameters_have_no_moments():
    _, after, _ = run_three_steps()
    whole = optimizer_lib.optimizer(settings(frozen="")).init(after.params)
    count = sum(leaf.size for leaf in jax.tree.leaves(after.params))
    held = sum(leaf.size for name, leaf in flatten_params(after.params).items() if name in NAMES)
    sizes = [
        sum(x.size for x in jax.tree.leaves(opt_state)) for opt_state in (whole, after.opt_state)
    ]
    counters = [sum(x.size == 1 for x in jax.tree.leaves(t)) for t in (whole, after.opt_state)]
    assert sizes[0] - counters[0] == 2 * count
    assert sizes[1] - counters[1] == 2 * (count - held)


def test_gradient_norm_excludes_frozen_parameters():
    """Check that frozen parameters are excluded from the gradient norm that clipping uses."""
    batch = tiny.packed_batch()
    free = tiny.System(optimizer=optax.sgd(1.0))
    held = System(optimizer=optax.sgd(1.0))
    start = free.init_state(batch).replace(params=tiny.parameters(free.network))
    whole, _ = free.jit_train_step()(start, batch)
    frozen_state, logged = held.jit_train_step()(start, batch)
    # With SGD at rate 1, the parameters move by the negative gradient.
    moved = flatten_params(jax.tree.map(jnp.subtract, start.params, whole.params))
    for name, by in flatten_params(
        jax.tree.map(jnp.subtract, start.params, frozen_state.params)
    ).items():
        expected = np.zeros_like(by) if name in NAMES else moved[name]
        np.testing.assert_allclose(by, expected, atol=1e-6)
    norm = np.sqrt(sum(np.sum(by**2) for name, by in moved.items() if name not in NAMES))
    total = np.sqrt(sum(np.sum(by**2) for by in moved.values()))
    np.testing.assert_allclose(tiny.compute_metrics(logged)["grad_norm"], norm, rtol=1e-4)
    assert norm < 0.95 * total


def test_updates_equal_training_only_the_unfrozen_parameters():
    """Check that clipping uses the norm of the trained parameters, and that only these decay."""
    changes = {"warmup_steps": 0, "weight_decay": 0.5, "max_grad_norm": 0.1}
    params = {"a": {"kernel": jnp.full((2, 2), 3.0)}, "b": {"kernel": jnp.full((2, 2), 2.0)}}
    grads = jax.tree.map(lambda x: 10 * x, params)
    partly = optimizer_lib.optimizer(settings(frozen="^a/", **changes))
    alone = optimizer_lib.optimizer(settings(frozen="", **changes))
    updates, _ = partly.update(grads, partly.init(params), params)
    rest = {"b": params["b"]}
    expected, _ = alone.update({"b": grads["b"]}, alone.init(rest), rest)
    np.testing.assert_array_equal(updates["b"]["kernel"], expected["b"]["kernel"])
    np.testing.assert_array_equal(updates["a"]["kernel"], 0.0)
    assert (expected["b"]["kernel"] != 0).all()


def test_ema_of_constant_parameters_stays_bit_identical():
    """Check the EMA over 1,000 updates: constants stay bit-identical, others follow the formula."""
    values = jax.random.normal(jax.random.key(0), (1000,)) * 10.0 ** jnp.linspace(-6, 6, 1000)
    params = {"held": values, "free": values}

    @jax.jit
    def update_once(step, ema):
        moved = params | {"free": values + step}
        return optimizer_lib.update_ema(ema, moved, step, 0.999)

    ema, expected = params, np.asarray(values, np.float64)
    for step in range(1000):
        ema = update_once(jnp.int32(step), ema)
        weight = min(0.999, (1 + step) / (10 + step))
        expected = weight * expected + (1 - weight) * (np.asarray(values, np.float64) + step)
    assert np.asarray(ema["held"]).tobytes() == np.asarray(values).tobytes()
    np.testing.assert_allclose(ema["free"], expected, rtol=1e-4)


def test_freeze_pattern_matches_anywhere_in_a_name():
    params = {"text_in": {"kernel": jnp.ones(2)}, "image_in": {"kernel": jnp.ones(2)}}

    def find_trained(frozen):
        grad = jax.grad(
            lambda p: sum(
                map(jnp.sum, jax.tree.leaves(optimizer_lib.stop_gradient_where(p, frozen)))
            )
        )
        return {name.split("/")[0] for name, by in flatten_params(grad(params)).items() if by.any()}

    assert find_trained("") == {"text_in", "image_in"}
    assert find_trained("text") == find_trained("^text_in/kernel$") == {"image_in"}
    assert find_trained("^in/") == {"text_in", "image_in"}
    assert find_trained("kernel") == set()


@pytest.mark.parametrize("frozen", ["(", "*", "[a"])
def test_invalid_regular_expression_is_reported(frozen):
    with pytest.raises(UserError) as error:
        optimizer_lib.optimizer(settings(frozen))
    assert f"optimizer.freeze={frozen!r}: it is not a valid regular expression: " in str(
        error.value
    )


@pytest.mark.parametrize(("frozen", "which"), [("blocks/words", "none"), (".", "all")])
def test_freezing_none_or_all_parameters_is_reported(frozen, which):
    params = tiny.parameters(tiny.network())
    with pytest.raises(UserError) as error:
        optimizer_lib.optimizer(settings(frozen)).init(params)
    message = str(error.value)
    assert f"optimizer.freeze={frozen!r}: it matches {which} of the parameters. " in message
    assert all(name in message for name in flatten_params(params))


def test_moments_are_sharded_like_their_parameters():
    """Check that moments are sharded like their parameters, and that results agree."""
    sizes = {"data": 2, "fsdp": 2, "tensor": 2}
    with tiny.shard_system(System(), tiny.packed_batch(), sizes) as placed:
        planned = dict(jax.tree.leaves_with_path(placed.shardings))
        assert planned.keys() == dict(jax.tree.leaves_with_path(placed.state)).keys()
        params = dict(jax.tree.leaves_with_path(placed.shardings.params))
        moments = 0
        for path, where in jax.tree.leaves_with_path(placed.shardings.opt_state):
            for name, of_parameter in params.items():
                if path[-len(name) :] == name:
                    assert where.spec == of_parameter.spec
                    moments += 1
        assert moments == 2 * (len(params) - len(NAMES))
        state = placed.state
        for _ in range(3):
            state, metrics = placed.step(state, placed.batch)
        for path, leaf in jax.tree.leaves_with_path(state):
            assert leaf.sharding.is_equivalent_to(planned[path], leaf.ndim), path
        sharded_metrics = tiny.compute_metrics(metrics)
    alone = {"data": 1, "fsdp": 1, "tensor": 1}
    with tiny.shard_system(System(), tiny.packed_batch(), alone, 1) as placed:
        state = placed.state
        for _ in range(3):
            state, metrics = placed.step(state, placed.batch)
    np.testing.assert_allclose(
        sharded_metrics["loss"], tiny.compute_metrics(metrics)["loss"], rtol=2e-5
    )


def test_sharding_of_an_empty_box_is_empty():
    mesh = sharding.make_mesh({"data": 1, "fsdp": 8, "tensor": 1})
    names = ("width", "embed")

    def box(value):
        return nn.LogicallyPartitioned(value, names)

    shapes = {"full": box(jax.ShapeDtypeStruct((16, 4), jnp.float32)), "empty": box(())}
    specs = sharding.state_sharding(mesh, shapes)
    assert specs["empty"] == ()
    assert specs["full"].spec[0] == "fsdp"


def test_run_with_muon_and_frozen_parameters_resumes_bit_for_bit(tmp_path):
    changes = {"optimizer__freeze": FROZEN, "optimizer__name": "muon"}
    config = runs.make_config(**changes, steps=4, evaluation__every=4)
    whole, folder = epath.Path(tmp_path / "whole"), epath.Path(tmp_path / "run")
    system = runs.prepare_system(whole, config)
    loop.run(system, whole)
    runs.shutil.copytree(whole, folder)
    test_resume.delete_checkpoints_after(folder, 2)
    middle, _ = runs.load_state(system, folder)
    assert int(middle.step) == 2
    loop.run(system, folder)
    (state, position), (expected, there) = (runs.load_state(system, at) for at in (folder, whole))
    runs.assert_identical(state, expected)
    assert position == there
    same = {
        name
        for name, leaf in flatten_params(state.params).items()
        if leaf.tobytes() == flatten_params(middle.params)[name].tobytes()
    }
    assert same == NAMES
    assert workdir.load_config(folder).optimizer.freeze == FROZEN
