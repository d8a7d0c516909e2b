"""The number of training steps for a given time: `finetune.minutes`."""

import logging
import statistics
import time

import jax
from etils import epath

from oneflow_jax.build import finetune
from oneflow_jax.build.system import System
from oneflow_jax.runtime import distributed, sharding, workdir
from oneflow_jax.training import loop, train_state

TIMED_STEPS = 5
"""Number of steps whose median time is measured, after a first one that is compiled."""


def fit_to_time(system: System, folder: epath.Path) -> System:
    """Return the system with the number of steps that `finetune.minutes` has room for.

    The time counts training steps only, without compilation, evaluation and samples. A run that
    has a checkpoint keeps its number of steps. Without `finetune.minutes`, the system is returned
    unchanged.

    Args:
        system: the run's system; its data is prepared.
        folder: the run's folder.
    """
    config = system.config
    if not finetune.is_finetuning(config) or not config.finetune.minutes:
        return system
    if workdir.has_checkpoints(folder):
        return system.replace_steps(workdir.load_config(folder).steps)
    seconds = _agree(measure_step(system))
    # The warm-up must end before the last step.
    steps = max(int(config.finetune.minutes * 60 / seconds), config.optimizer.warmup_steps + 1)
    logging.info(
        "finetune.minutes=%g: %d steps of %.3f seconds.", config.finetune.minutes, steps, seconds
    )
    return system.replace_steps(steps)


def measure_step(system: System) -> float:
    """Return the seconds of a training step, the median of `TIMED_STEPS`."""
    with sharding.mesh_context(system.mesh):
        state = train_state.init_sharded(system)
        train_step = loop.jit_train_step(system)
        data = iter(system.train_batches())
        batch = next(data)
        data.close()
        times = []
        for _ in range(1 + TIMED_STEPS):
            start = time.perf_counter()
            state, _ = train_step(state, batch)
            jax.block_until_ready(state.params)
            times.append(time.perf_counter() - start)
    return statistics.median(times[1:])


def _agree(seconds: float) -> float:
    """Return the longest time of all processes, so that all choose the same number of steps."""
    times = distributed.all_gather_json({str(jax.process_index()): seconds})
    return max(times.values())
