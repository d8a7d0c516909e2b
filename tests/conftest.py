"""What every test needs: 8 devices on the CPU, and JAX's strict modes, set before JAX starts."""

import jax
import pytest
from absl import flags
from jax.experimental.key_reuse import _core as key_reuse

jax.config.update("jax_num_cpu_devices", 8)
jax.config.update("jax_numpy_rank_promotion", "raise")
jax.config.update("jax_debug_key_reuse", True)
# Tests compile much and compute little.
jax.config.update("jax_disable_most_optimizations", True)

# JAX's checker does not know that to transpose keys is not to draw from them.
key_reuse.key_reuse_signatures[jax.lax.transpose_p] = key_reuse.KeyReuseSignature(
    key_reuse.Forward(0, 0)
)

# What follows starts no devices.
from oneflow_jax import main  # noqa: E402

# grain's worker processes read absl's flags, which only `absl.app.run` parses.
flags.FLAGS.mark_as_parsed()


def pytest_addoption(parser):
    parser.addoption(
        "--regenerate-golden", action="store_true", help="write tests/golden/* anew, then compare"
    )


SLOW_FILES = (
    "test_configs.py",
    "test_resume.py",
    "test_main.py",
    "test_sharding.py",
    "test_run.py",
    "test_lmfusion.py",
    "test_optim.py",
)


def pytest_collection_modifyitems(items):
    """The longest files first, so that no worker is left alone with one of them at the end."""
    items.sort(key=lambda item: item.path.name not in SLOW_FILES)


@pytest.fixture
def key():
    return jax.random.key(0)


@pytest.fixture
def cli():
    """Parses and runs a command line in this process."""

    def call(*arguments):
        _reset_flags()
        main.run(main.parse_config(["main", *arguments]))

    yield call
    _reset_flags()
    flags.FLAGS.mark_as_parsed()


@pytest.fixture
def parse():
    """Parses a command line in this process."""

    def call(*arguments):
        _reset_flags()
        return main.parse_config(["main", *arguments])

    yield call
    _reset_flags()
    flags.FLAGS.mark_as_parsed()


def _reset_flags():
    """As if nothing had been parsed yet; `--config` is defined anew by each parse."""
    for name in list(flags.FLAGS):
        if name.split(".")[0] == "config":
            delattr(flags.FLAGS, name)
    flags.FLAGS.unparse_flags()
