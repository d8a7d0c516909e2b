"""Whole runs on toy data: trained once, copied by whoever changes something."""

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

from oneflow_jax.build import system as system_lib
from oneflow_jax.runtime import metric_writer, sharding, workdir
from oneflow_jax.training import checkpoint, loop, train_state
from tests import tiny_config

REPOSITORY = pathlib.Path(__file__).parent.parent
CONFIG = "--config=tests/tiny_config.py"
STEPS = 6

# The same few programs are compiled again and again, here and in other processes.
_CACHE = tempfile.mkdtemp(prefix="oneflow_jax-compiled-")
atexit.register(shutil.rmtree, _CACHE, ignore_errors=True)
jax.config.update("jax_compilation_cache_dir", _CACHE)
jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.1)


def make_config(**changes):
    """The tiny configuration; a change of `a.b` is given as `a__b`."""
    tiny = tiny_config.get_config()
    tiny.update_from_flattened_dict({k.replace("__", "."): v for k, v in changes.items()})
    return tiny.lock()


def prepare_system(folder, config):
    """The system of a run, its folder made ready as `main` does."""
    folder = epath.Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    workdir.check_config(folder, config)
    system = system_lib.system(config, folder)
    workdir.save_config(folder, config)
    return system


@functools.cache
def trained_run(workers=0):
    """The system and the folder of a finished run, which nobody may change."""
    folder = tempfile.mkdtemp(prefix="oneflow_jax-run-")
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    system = prepare_system(folder, make_config(data__workers=workers))
    loop.run(system, epath.Path(folder))
    return system, epath.Path(folder)


def copy_run(folder, tmp_path):
    """A copy of a run, to be changed."""
    return epath.Path(shutil.copytree(folder, tmp_path / "run"))


def copy_newest(folder, target):
    """A copy of a run with its newest checkpoint alone."""

    def older(path, names):
        steps = sorted(map(int, names)) if path.endswith(workdir.CHECKPOINTS) else []
        return [str(step) for step in steps[:-1]]

    shutil.copytree(folder, target, ignore=older)


def load_state(system, folder):
    """The newest state in a folder and where the data stood, as numpy arrays."""
    data = iter(system.batches())
    with sharding.mesh_context(system.mesh), checkpoint.Checkpoints(folder, 10) as checkpoints:
        newest = checkpoints.restore(train_state.abstract_state(system), data)
    key = jax.random.key_data(newest.key)
    position = data.position
    data.close()
    return jax.tree.map(np.asarray, newest.replace(key=key)), position


def assert_identical(actual, expected):
    """Bit for bit."""
    assert jax.tree.structure(actual) == jax.tree.structure(expected)
    for (path, x), y in zip(
        jax.tree.leaves_with_path(actual), jax.tree.leaves(expected), strict=True
    ):
        assert x.dtype == y.dtype, path
        assert x.tobytes() == y.tobytes(), path


def list_reports(folder):
    """The step and the kind of each report in the logs."""
    rows = metric_writer.read_metrics(folder / workdir.LOGS)
    return [(row["step"], sorted(row)[0].split("/")[0]) for row in rows]


def read_files(folder):
    """What must survive a mistake: checkpoints, tokenizer and configuration, byte for byte."""
    kept = [folder / workdir.CONFIG, folder / workdir.TOKENIZER]
    checkpoints = pathlib.Path(folder, workdir.CHECKPOINTS)
    kept += [path for path in checkpoints.rglob("*") if path.is_file()]
    return {str(path): path.read_bytes() for path in kept}


def popen_kwargs(*arguments):
    """The command line, its environment and its folder, for a process of its own."""
    environment = os.environ | {
        "JAX_COMPILATION_CACHE_DIR": _CACHE,
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0.1",
        "JAX_DISABLE_MOST_OPTIMIZATIONS": "true",
    }
    line = [sys.executable, "-m", "oneflow_jax.main", *arguments]
    return {"args": line, "env": environment, "cwd": REPOSITORY, "text": True}


def run(*arguments):
    """Runs the command line to its end."""
    return subprocess.run(**popen_kwargs(*arguments), capture_output=True, check=False, timeout=300)


def load_evaluation(folder):
    return json.loads((folder / workdir.EVALUATION).read_text())
