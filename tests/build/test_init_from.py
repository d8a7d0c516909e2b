"""Tests of `init_from`: training initialized from another run."""

import shutil

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from etils import epath

from oneflow_jax.build import init_from
from oneflow_jax.errors import UserError
from oneflow_jax.nn import two_tower
from oneflow_jax.runtime import sharding, workdir
from oneflow_jax.training import checkpoint, export, loop, train_state
from tests import runs, tiny
from tests.paradigms.test_lmfusion import make_config


def save_random_run(folder, config, step=1):
    """Create a run with a checkpoint of a random state, without training."""
    system = runs.prepare_system(folder, config)

    def random_like(seed, tree):
        keys = iter(jax.random.split(jax.random.key(seed), len(jax.tree.leaves(tree))))

        def draw(leaf):
            return jax.device_put(jax.random.normal(next(keys), leaf.shape), leaf.sharding)

        return jax.tree.map(draw, tree)

    with sharding.mesh_context(system.mesh), checkpoint.Checkpoints(folder, 3) as checkpoints:
        state = train_state.init_sharded(system)
        state = state.replace(
            step=jax.device_put(jnp.int32(step), state.step.sharding),
            params=random_like(1, state.params),
            ema=random_like(2, state.ema),
        )
        data = iter(system.train_batches())
        checkpoints.save(state, step, data)
        checkpoints.wait()
        data.close()
    return state


def restore_state(folder, config):
    """Return the state with which training in the folder starts or resumes."""
    system = runs.prepare_system(folder, config)
    with sharding.mesh_context(system.mesh), checkpoint.Checkpoints(folder, 3) as checkpoints:
        data = iter(system.train_batches())
        state = loop.restore_or_init(system, checkpoints, data)
        data.close()
    return state


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return epath.Path(tmp_path_factory.mktemp("start"))


@pytest.fixture(scope="module")
def language(folder):
    """Return the folder and the state of a text model."""
    return str(folder / "language"), save_random_run(
        folder / "language", make_config("language", folder)
    )


@pytest.mark.parametrize("kind", ["language", "lmfusion", "transfusion"])
def test_parameters_are_the_ema_of_the_other_run(kind, folder, language, tmp_path):
    """Check that parameters equal the other run's EMA bit by bit; all other state is fresh.

    The runs have the same paradigm, so no tower is copied from the other one.
    """
    first = make_config(kind, folder, init_from=language[0] if kind == "lmfusion" else "")
    source_state = save_random_run(tmp_path / "first", first)
    config = make_config(kind, folder, init_from=str(tmp_path / "first"))
    system = runs.prepare_system(epath.Path(tmp_path / "run"), config)
    with sharding.mesh_context(system.mesh):
        new = train_state.init_sharded(system)
        state = system.initialize_from(new)
    for tree in (state.params, state.ema):
        tiny.assert_trees_close(tree, source_state.ema, atol=0)
    assert state.step == 0
    tiny.assert_trees_close(state.opt_state, new.opt_state, atol=0)
    pairs = zip(jax.tree.leaves(state), jax.tree.leaves(new), strict=True)
    assert all(one.sharding.is_equivalent_to(two.sharding, one.ndim) for one, two in pairs)
    # A donated state must not contain one buffer twice.
    pairs = zip(jax.tree.leaves(state.params), jax.tree.leaves(state.ema), strict=True)
    shards = [[x.addressable_shards[0].data for x in pair] for pair in pairs]
    assert all(a.unsafe_buffer_pointer() != b.unsafe_buffer_pointer() for a, b in shards)


def test_text_model_gets_an_image_tower(folder, language, tmp_path):
    state = restore_state(
        epath.Path(tmp_path), make_config("lmfusion", folder, init_from=language[0])
    )
    for tree in (state.params, state.ema):
        tiny.assert_trees_close(tree, two_tower.add_image_tower(language[1].ema), atol=0)


def test_transfusion_starts_from_a_text_model(folder, language, tmp_path):
    config = make_config("transfusion", folder, init_from=language[0])
    state = restore_state(epath.Path(tmp_path), config)
    tiny.assert_trees_close(state.params, language[1].ema, atol=0)


@pytest.mark.parametrize("stored", ["checkpoint", "export"])
def test_text_models_with_two_towers_are_refused(folder, language, tmp_path, stored):
    """Check the message for the folders of earlier versions, in which `language` had two towers."""
    old = epath.Path(tmp_path / "old")
    config = make_config("lmfusion", folder, init_from=language[0])
    state = save_random_run(old, config)
    if stored == "export":
        shutil.rmtree(old / workdir.CHECKPOINTS)
        export.write_unrounded(config, old, state.ema)
    system = runs.prepare_system(epath.Path(language[0]), make_config("language", folder))
    with pytest.raises(UserError, match="with two towers, but the paradigm language has one now"):
        export.load_ema_params(old, system.abstract_state.ema)


def test_empty_init_from_changes_nothing(folder, tmp_path):
    system = runs.prepare_system(epath.Path(tmp_path), make_config("transfusion", folder))
    state = object()
    assert init_from.init_from_checkpoint(system, state) is state


def test_tokenizer_is_copied(folder, language, tmp_path):
    """Check that the tokenizer is copied if the folder has none, instead of training one."""
    source_run, run = epath.Path(language[0]), epath.Path(tmp_path / "run")
    config = make_config("lmfusion", folder, init_from=str(source_run), **{"data.vocab_size": 40})
    learned = runs.prepare_system(
        source_run.parent / "small", make_config("language", folder, **{"data.vocab_size": 40})
    )
    system = runs.prepare_system(run, config)
    assert (run / workdir.TOKENIZER).read_bytes() == (source_run / workdir.TOKENIZER).read_bytes()
    assert len(learned.layout.vocab.text) < len(system.layout.vocab.text)
    tokenizer = (source_run.parent / "small" / workdir.TOKENIZER).read_bytes()
    (run / workdir.TOKENIZER).write_bytes(tokenizer)
    runs.prepare_system(run, config)
    assert (run / workdir.TOKENIZER).read_bytes() == tokenizer


def test_tokenizer_follows_init_from_until_the_first_checkpoint(folder, language, tmp_path):
    """Check that the tokenizer follows `init_from` until there is a checkpoint.

    Otherwise parameters and token ids would come from two different runs.
    """
    other_run = epath.Path(tmp_path / "other")
    runs.prepare_system(other_run, make_config("language", folder, **{"data.vocab_size": 40}))
    run = epath.Path(tmp_path / "run")
    for path in (other_run, epath.Path(language[0])):
        runs.prepare_system(run, make_config("lmfusion", folder, init_from=str(path)))
        assert (run / workdir.TOKENIZER).read_bytes() == (path / workdir.TOKENIZER).read_bytes()


def test_run_resumes_from_its_own_checkpoint(folder, language, tmp_path):
    run = epath.Path(tmp_path / "run")
    config = make_config("lmfusion", folder, init_from=language[0])
    own = save_random_run(run, config, step=3)
    state = restore_state(run, config)
    assert state.step == 3
    tiny.assert_trees_close(state.params, own.params, atol=0)
    tiny.assert_trees_close(state.ema, own.ema, atol=0)
    assert np.any(own.params["rows"] != language[1].ema["rows"])


def test_started_run_needs_only_its_own_folder(folder, language, tmp_path):
    """Check that resuming and sampling need only the run's own folder."""
    first, run = epath.Path(tmp_path / "first"), epath.Path(tmp_path / "run")
    shutil.copytree(language[0], first)
    config = make_config("lmfusion", folder, init_from=str(first))
    own = save_random_run(run, config, step=3)
    shutil.rmtree(first)
    state = restore_state(run, config)
    tiny.assert_trees_close(state.params, own.params, atol=0)


def test_lmfusion_requires_init_from(folder, tmp_path):
    with pytest.raises(UserError) as error:
        runs.prepare_system(epath.Path(tmp_path), make_config("lmfusion", folder))
    assert "paradigm.name='lmfusion': it initializes from a text model" in str(error.value)
    assert "paradigm.name='language'" in str(error.value)
    assert "set init_from to" in str(error.value)


@pytest.mark.parametrize("kind", ["lmfusion", "transfusion"])
def test_folder_without_a_run_is_reported(kind, folder, tmp_path):
    """Check that the error is raised before any file is written."""
    config = make_config(kind, folder, init_from=str(tmp_path / "nowhere"))
    with pytest.raises(UserError, match=rf"init_from={tmp_path}/nowhere: there is no such folder"):
        runs.prepare_system(epath.Path(tmp_path / "run"), config)
    assert not (tmp_path / "run" / workdir.TOKENIZER).exists()


def test_run_without_a_checkpoint_is_reported(folder, tmp_path):
    first = epath.Path(tmp_path / "first")
    runs.prepare_system(first, make_config("language", folder))
    config = make_config("lmfusion", folder, init_from=str(first))
    with pytest.raises(UserError, match=rf"{first}/checkpoints: there is no checkpoint"):
        restore_state(epath.Path(tmp_path / "run"), config)


@pytest.mark.parametrize(
    "changes",
    [
        {"model.width": 64},
        {"model.layers": 1},
        {"model.layers": 3},
        {"model.hidden": 128},
        {"codec.patch_size": 1},
    ],
    ids=str,
)
def test_different_parameters_are_reported(changes, folder, language, tmp_path):
    config = make_config("lmfusion", folder, init_from=language[0], **changes)
    with pytest.raises(UserError) as error:
        restore_state(epath.Path(tmp_path), config)
    message = f"init_from={language[0]}: the parameters of that run do not match this configuration"
    assert message in str(error.value)
