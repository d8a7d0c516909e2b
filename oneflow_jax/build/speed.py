"""Measured times of a training step and of an evaluation of losses on this machine."""

import logging
import statistics
import time
from typing import NamedTuple

import jax
import ml_collections
from etils import epath

from oneflow_jax.build import system as system_lib
from oneflow_jax.runtime import distributed, sharding
from oneflow_jax.shapes import PyTree
from oneflow_jax.training import loop, train_state

WARM_STEPS, TIMED_STEPS = 2, 8
"""Training steps to compile and warm up, and steps to measure."""


class Speed(NamedTuple):
    """Times in seconds, without compilation."""

    step_seconds: float
    evaluation_seconds: float


def measure(config: ml_collections.ConfigDict, folder: epath.Path) -> Speed:
    """Measure the times of the run in `folder`; all processes return those of the slowest one."""
    logging.info(
        "Measuring the time of a training step and of an evaluation, to choose the number of steps "
        "and of evaluations. Both are compiled first, which can take a minute."
    )
    system = system_lib.system(config, folder, "train")
    with sharding.mesh_context(system.mesh):
        state, step_seconds = _time_steps(system)
        # Each part may take a minute without a message.
        logging.info("A training step takes %.2f s. Next is an evaluation.", step_seconds)
        evaluation_seconds = _time_evaluation(system, system.merge_params(state.ema))
    own = {str(jax.process_index()): [step_seconds, evaluation_seconds]}
    of_all = distributed.all_gather_json(own).values()
    return Speed(*map(max, zip(*of_all, strict=True)))


def _time_steps(system: system_lib.System) -> tuple[train_state.TrainState, float]:
    """Return the state after a few training steps, and the median time of a step in seconds."""
    seconds = []
    state, step = train_state.init_sharded(system), loop.jit_train_step(system)
    batches = iter(system.train_batches())
    try:
        for _ in range(WARM_STEPS + TIMED_STEPS):
            began = time.perf_counter()
            state, metrics = step(state, next(batches))
            jax.block_until_ready(metrics)
            seconds.append(time.perf_counter() - began)
    finally:
        batches.close()
    return state, statistics.median(seconds[WARM_STEPS:])


def _time_evaluation(system: system_lib.System, params: PyTree) -> float:
    """Return the time of an evaluation of losses in seconds."""
    losses, document_losses = system.eval_losses(), system.document_losses()
    loop.measure_losses(params, losses, document_losses)  # This call compiles the programs.
    began = time.perf_counter()
    loop.measure_losses(params, losses, document_losses)
    return time.perf_counter() - began
