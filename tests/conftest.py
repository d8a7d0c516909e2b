"""Setup for all tests: 8 CPU devices and JAX's strict modes, set before JAX initializes."""

import gc
import logging
import os
import pathlib
import sys

import jax
import jaxlib
import pytest
from absl import flags

from tests import random_keys

# The pytest workers, the processes that tests start and the next test run need the same compiled
# programs, so all share one cache. Started processes read its folder from the environment.
_CACHE = pathlib.Path(os.environ.get("XDG_CACHE_HOME", pathlib.Path.home() / ".cache"))
_VERSIONS = f"jax-{jax.__version__}-jaxlib-{jaxlib.__version__}"
os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", str(_CACHE / "oneflow_jax-tests" / _VERSIONS))
jax.config.update("jax_compilation_cache_dir", os.environ["JAX_COMPILATION_CACHE_DIR"])
# The workers store all programs: compiling a tiny one takes 35 ms, reading it 10 ms, and there are
# thousands. Other processes read all programs but store only those that take long to compile.
jax.config.update("jax_persistent_cache_min_compile_time_secs", 0)
os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0.1")

# Containers often turn off the storage of bytecode. Turn it on again: without it, each process
# spends 0.6 s on compiling the package.
sys.dont_write_bytecode = False
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)

# XLA's fusion emitters set up MLIR for each program, which takes half of the compile time. The
# older emitters give the same results. Processes that tests start read XLA_FLAGS too.
_FLAGS = ["--xla_cpu_use_fusion_emitters=false", "--xla_cpu_parallel_codegen_split_count=1"]
os.environ["XLA_FLAGS"] = " ".join([*_FLAGS, os.environ.get("XLA_FLAGS", "")]).strip()

jax.config.update("jax_num_cpu_devices", 8)
jax.config.update("jax_numpy_rank_promotion", "raise")
random_keys.enable()
# Tests spend more time on compilation than on computation, so they compile without optimization.
jax.config.update("jax_disable_most_optimizations", True)

# This import does not initialize JAX's devices, so the settings above still apply.
from oneflow_jax import main  # noqa: E402
from oneflow_jax.runtime import gpu, metric_writer  # noqa: E402

# If JAX's CUDA plugin is installed without a GPU, select the CPU; JAX would print an error.
gpu.configure()

# Tracing makes many long-lived objects. Let the garbage collector scan them less often: by default,
# it takes 5 % of the time.
gc.freeze()
gc.set_threshold(20_000, 20, 20)

# grain's worker processes read absl flags, which raises an error unless they are parsed. Only
# `absl.app.run` parses them, and tests do not call it.
flags.FLAGS.mark_as_parsed()


def pytest_addoption(parser):
    parser.addoption(
        "--regenerate-golden", action="store_true", help="rewrite tests/golden/*, then compare"
    )


SLOW = (
    "compare/test_run.py",
    "paradigms/test_lmfusion.py",
    "test_configs.py",
    "notebooks",
    "distributed",
    "cloud",
    "data/beam",
    "training/test_resume.py",
    "runtime/test_preemption.py",
    "training/test_profiler.py",
    "training/test_optimizer.py",
    "test_main.py",
    "runtime/test_sharding.py",
    "autoencoder_training/test_run.py",
    "packaging",
    "aot",
    "benchmarks",
    "test_docs.py",
    "test_site.py",
    "viewer/test_browser.py",
    "demo/test_page.py",
)
"""Files and folders of tests that take a minute or more, the longest first.

`make test-fast` leaves them out: whole runs, other processes, compilers, and pages in a browser.
"""


LONG = (
    "samplers/test_edit.py",
    "api/test_compilation.py",
    "test_read_only.py",
    "training/test_step.py",
    "samplers/test_ar_images.py",
    "nn/test_context_parallel.py",
    "paradigms/test_mask_flow.py",
    "data/test_pipeline.py",
    "paradigms/test_oneflow_sampling.py",
    "api/test_model.py",
    "paradigms/test_objectives.py",
    "generation/test_generator.py",
)
"""Files of tests that take 30 to 90 seconds, the longest first; `make test-fast` runs them too."""


def pytest_collection_modifyitems(items):
    """Mark slow tests; run them and long ones first, so that no worker starts one of them last."""
    root = pathlib.Path(__file__).parent
    first = (*SLOW, *LONG)

    def rank(item):
        path = item.path.relative_to(root).as_posix()
        return next((n for n, name in enumerate(first) if path.startswith(name)), len(first))

    for item in items:
        if rank(item) < len(SLOW):
            item.add_marker(pytest.mark.slow)
    items.sort(key=rank)


@pytest.fixture(autouse=True)
def _restore_logging():
    """Remove the log handlers that a test installed, whose captured stderr pytest closes."""
    root = logging.getLogger()
    level, handlers = root.level, set(root.handlers)
    yield
    root.setLevel(level)
    for handler in root.handlers.copy():
        if type(handler) is metric_writer.ConsoleHandler and handler not in handlers:
            root.removeHandler(handler)


@pytest.fixture
def key():
    return jax.random.key(0)


@pytest.fixture
def cli():
    """Return a function that parses and runs a command line in this process."""

    def call(*arguments):
        _reset_flags()
        main.run(main.parse_config(["main", *arguments]))

    yield call
    _reset_flags()
    flags.FLAGS.mark_as_parsed()


@pytest.fixture
def parse():
    """Return a function that parses a command line in this process."""

    def call(*arguments):
        _reset_flags()
        return main.parse_config(["main", *arguments])

    yield call
    _reset_flags()
    flags.FLAGS.mark_as_parsed()


def _reset_flags():
    """Mark the flags as unparsed, and remove `--config.*`, which each parse defines again."""
    for name in list(flags.FLAGS):
        if name.split(".")[0] == "config":
            delattr(flags.FLAGS, name)
    flags.FLAGS.unparse_flags()
