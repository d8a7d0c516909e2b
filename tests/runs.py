"""Whole runs on toy data, trained once and copied by tests that change them."""

import atexit
import functools
import json
import os
import pathlib
import shutil
import subprocess
import sys
import tempfile

import jax
import numpy as np
from etils import epath

import oneflow_jax as of
from configs import common
from oneflow_jax.build import system as system_lib
from oneflow_jax.codecs.autoencoder import diffusers_weights
from oneflow_jax.runtime import metric_writer, sharding, workdir
from oneflow_jax.training import checkpoint, loop, train_state
from tests import tiny_config
from tests.codecs.autoencoder import small_models

REPOSITORY = pathlib.Path(__file__).parent.parent
CONFIG = "--config=tests/tiny_config.py"
STEPS = 6

TIMEOUT_S = 900
"""Timeout in seconds, generous because the machine may be busy."""


def make_config(**changes):
    """Return the tiny configuration; `a__b=value` sets the key `a.b`."""
    tiny = tiny_config.get_config()
    tiny.update_from_flattened_dict({k.replace("__", "."): v for k, v in changes.items()})
    return tiny.lock()


def prepare_system(folder, config):
    """Create the run's folder as `main` does, and return the run's system."""
    folder = epath.Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    workdir.check_config(folder, config)
    system = system_lib.system(config, folder)
    workdir.save_config(folder, config)
    return system


@functools.cache
def trained_run(workers=0):
    """Return the system and folder of a finished run; callers must not modify it."""
    folder = tempfile.mkdtemp(prefix="oneflow_jax-run-")
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    system = prepare_system(folder, make_config(data__num_workers=workers))
    loop.run(system, epath.Path(folder))
    return system, epath.Path(folder)


def make_untrained_model(kind, folder):
    """Return an untrained model of the paradigm `kind`, with its run in `folder`."""
    config = make_config().copy_and_resolve_references().unlock()
    config.data.dir = str(folder / "data")
    common.set_paradigm(config, kind)
    if kind == "chameleon":
        diffusers_weights.save(
            folder / "vq", small_models.VQ, small_models.random_params(small_models.VQ)
        )
        config.codec = common.vq_codec(str(folder / "vq"), pixels=4)
    config.sampling.update({"solver": "euler", "time_grid": "uniform", "steps": 2})
    system = prepare_system(folder / "run", config.lock())
    return of.Model(system, train_state.init_sharded(system).ema)


def copy_run(folder, tmp_path):
    """Return a copy of a run that may be modified."""
    return epath.Path(shutil.copytree(folder, tmp_path / "run"))


def copy_newest(folder, target):
    """Copy a run with its newest checkpoint only."""

    def older(path, names):
        steps = sorted(map(int, names)) if path.endswith(workdir.CHECKPOINTS) else []
        return [str(step) for step in steps[:-1]]

    shutil.copytree(folder, target, ignore=older)


def load_state(system, folder):
    """Return the newest state of a run as numpy arrays, and the position of its data loader."""
    data = iter(system.train_batches())
    with sharding.mesh_context(system.mesh), checkpoint.Checkpoints(folder, 10) as checkpoints:
        newest = checkpoints.restore(system.abstract_state, data)
    key = jax.random.key_data(newest.key)
    position = data.state
    data.close()
    return jax.tree.map(np.asarray, newest.replace(key=key)), position


def assert_identical(actual, expected):
    """Assert that two trees are bit-identical."""
    assert jax.tree.structure(actual) == jax.tree.structure(expected)
    for (path, x), y in zip(
        jax.tree.leaves_with_path(actual), jax.tree.leaves(expected), strict=True
    ):
        assert x.dtype == y.dtype, path
        assert x.tobytes() == y.tobytes(), path


def list_reports(folder):
    """Return the step and the kind, such as "train" or "eval", of each report in the logs."""
    rows = metric_writer.read_metrics(folder / workdir.LOGS)
    return [(row["step"], sorted(row)[0].split("/")[0]) for row in rows]


def read_files(folder):
    """Return the bytes of checkpoints, tokenizer and configuration, by path."""
    paths = [folder / workdir.CONFIG, folder / workdir.TOKENIZER]
    checkpoints = pathlib.Path(folder, workdir.CHECKPOINTS)
    paths += [path for path in checkpoints.rglob("*") if path.is_file()]
    return {str(path): path.read_bytes() for path in paths}


TRAINING_MODULE = "tests.distributed.training"
"""The command line without evaluation and samples, for tests that do not look at them."""


def popen_kwargs(*arguments, module="oneflow_jax.main"):
    """Return arguments of `subprocess.Popen` that run the command line."""
    environment = os.environ | {
        "JAX_DISABLE_MOST_OPTIMIZATIONS": "true",
    }
    line = [sys.executable, "-m", module, *arguments]
    return {"args": line, "env": environment, "cwd": REPOSITORY, "text": True}


def run(*arguments, **options):
    """Run the command line and return the completed process."""
    kwargs = popen_kwargs(*arguments, **options)
    return subprocess.run(**kwargs, capture_output=True, check=False, timeout=TIMEOUT_S)


def load_evaluation(folder):
    return json.loads((folder / workdir.EVALUATION).read_text())
