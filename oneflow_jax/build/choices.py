"""Choice of configuration values from the data and from the speed of this machine.

`config.choose` lists the keys whose values are chosen before the first training step:

    data.text_slot_multiple   95 % of the texts fit the gap `<text>`
    data.sequence_length      95 % of the documents fit a row, and three usual ones together
    batch_size                a batch has about 2,048 slots
    steps                     training takes about `config.minutes`
    evaluation.every          the run has 20 evaluations, or fewer if it is short
    checkpoint.every          each evaluated checkpoint can become the best one

The chosen values are saved in the configuration of the run, so a resumed run keeps them
(`workdir.load_choices`). A value that is given on the command line is not chosen.
"""

import dataclasses
import logging
import math
import statistics
import time
from collections.abc import Callable

import jax
import ml_collections
import numpy as np
from etils import epath

from oneflow_jax.build import data
from oneflow_jax.build import system as system_lib
from oneflow_jax.data import layout as layouts
from oneflow_jax.data import overflow
from oneflow_jax.errors import UserError
from oneflow_jax.runtime import distributed, sharding, workdir
from oneflow_jax.training import loop, train_state

QUANTILE = 0.95
"""Fraction of the texts that fit a gap, and of the documents that fit a row."""

MAX_MEASURED_DOCUMENTS = 2_000
"""Maximum number of documents whose lengths are measured, spread evenly over the split."""

TEXT_SLOT_UNIT, MAX_TEXT_SLOTS = 4, 64
ROW_UNIT, MIN_ROW, MAX_ROW = 16, 128, 512
DOCUMENTS_PER_ROW = 3
"""Documents of median length that a row should hold, so that few of its slots stay empty."""

BATCH_SLOTS = 2_048

WARM_STEPS, TIMED_STEPS = 2, 8
"""Training steps to compile and warm up, and steps to measure."""

NUM_EVALUATIONS, MIN_INTERVAL = 20, 25
"""Evaluations of a run, and minimum number of steps between them, because each takes seconds."""

Choice = tuple[int, str]
"""A value and the reason for it."""


def choose(
    config: ml_collections.ConfigDict, folder: epath.Path, mode: str
) -> ml_collections.ConfigDict:
    """Return the configuration with a value for each key in `config.choose`; log the reasons.

    The function prepares the data and trains the tokenizer if they do not exist yet. The mode
    "prepare" chooses only values that depend on the data alone; the modes that do not train choose
    nothing.

    Raises:
        UserError: `config.choose` has a key that cannot be chosen.
    """
    names = config.get("choose", ())
    if unknown := [name for name in names if name not in DATA_CHOICES | TRAINING_CHOICES]:
        raise UserError(
            f"choose={names!r}: cannot choose {', '.join(unknown)}. Use any of "
            f"{', '.join(DATA_CHOICES | TRAINING_CHOICES)}."
        )
    if mode in ("train", "prepare") and set(names) & set(DATA_CHOICES):
        layout = data.make_layout(config, folder)
        for name, choose_value in DATA_CHOICES.items():
            if name in names:
                config = _apply(config, name, choose_value(config, layout))
    if mode == "train":
        for name, choose_number in TRAINING_CHOICES.items():
            if name in names:
                config = _apply(config, name, choose_number(config, folder))
    return config


def _apply(
    config: ml_collections.ConfigDict, name: str, choice: Choice
) -> ml_collections.ConfigDict:
    value, reason = choice
    logging.info("Chosen: %s=%d, so that %s.", name, value, reason)
    left = tuple(other for other in config.choose if other != name)
    return workdir.replace_values(config, {name: value, "choose": left})


def choose_text_slots(config: ml_collections.ConfigDict, layout: layouts.Layout) -> Choice:
    """Choose the number of slots that most texts fit."""
    source = data.open_split(config, "train")
    lengths = overflow.text_lengths(source, layout, MAX_MEASURED_DOCUMENTS) or [1]
    slots = min(_round_up(np.quantile(lengths, QUANTILE), TEXT_SLOT_UNIT), MAX_TEXT_SLOTS)
    fitting = np.mean(np.array(lengths) <= slots)
    return slots, f"{fitting:.0%} of the texts fit the gap <text> (median {np.median(lengths):.0f})"


def choose_sequence_length(config: ml_collections.ConfigDict, layout: layouts.Layout) -> Choice:
    """Choose the length of a row that most documents fit whole."""
    layout = dataclasses.replace(layout, text_slots=config.data.text_slot_multiple)
    source = data.open_split(config, "train")
    lengths = overflow.document_lengths(source, layout, MAX_MEASURED_DOCUMENTS)
    median = np.median(lengths)
    wanted = max(np.quantile(lengths, QUANTILE), DOCUMENTS_PER_ROW * median)
    slots = int(np.clip(_round_up(wanted, ROW_UNIT), MIN_ROW, MAX_ROW))
    fitting = np.mean(np.array(lengths) <= slots)
    return slots, f"{fitting:.0%} of the documents fit a row (median {median:.0f} slots)"


def choose_batch_size(config: ml_collections.ConfigDict, layout: layouts.Layout) -> Choice:
    """Choose the number of rows of a batch, a multiple of the numbers of devices and of streams."""
    del layout
    unit = math.lcm(jax.device_count(), config.data.num_streams)
    rows = _round_up(max(1, BATCH_SLOTS // config.data.sequence_length), unit)
    return rows, f"a batch has {rows * config.data.sequence_length:,} slots"


def choose_steps(config: ml_collections.ConfigDict, folder: epath.Path) -> Choice:
    """Choose the number of steps for `config.minutes`, from the measured time of a step.

    All processes of the run choose the same number, from the longest time.
    """
    logging.info(
        "Measuring the time of a training step, to choose steps for config.minutes=%g. The step is "
        "compiled first, which can take a minute.",
        config.minutes,
    )
    measured = measure_step(system_lib.system(config, folder, "train"))
    seconds = max(distributed.all_gather_json({str(jax.process_index()): measured}).values())
    steps = max(round(60 * config.minutes / seconds), config.optimizer.warmup_steps + 1)
    return steps, f"training takes about {config.minutes:g} minutes ({seconds:.2f} s per step)"


def choose_evaluation_interval(config: ml_collections.ConfigDict, folder: epath.Path) -> Choice:
    """Choose the number of steps between evaluations."""
    del folder
    interval = min(max(config.steps // NUM_EVALUATIONS, MIN_INTERVAL), config.steps)
    return interval, f"the run has {config.steps // interval} evaluations"


def choose_checkpoint_interval(config: ml_collections.ConfigDict, folder: epath.Path) -> Choice:
    """Choose the number of steps between checkpoints, so that each evaluation has one."""
    interval, _ = choose_evaluation_interval(config, folder)
    return interval, "each evaluation has a checkpoint"


def measure_step(system: system_lib.System) -> float:
    """Return the median time of a training step on this machine, in seconds."""
    seconds = []
    with sharding.mesh_context(system.mesh):
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
    return statistics.median(seconds[WARM_STEPS:])


DATA_CHOICES: dict[str, Callable[[ml_collections.ConfigDict, layouts.Layout], Choice]] = {
    "data.text_slot_multiple": choose_text_slots,
    "data.sequence_length": choose_sequence_length,
    "batch_size": choose_batch_size,
}
TRAINING_CHOICES: dict[str, Callable[[ml_collections.ConfigDict, epath.Path], Choice]] = {
    "steps": choose_steps,
    "evaluation.every": choose_evaluation_interval,
    "checkpoint.every": choose_checkpoint_interval,
}
"""Functions that choose values, in their order: later ones use the values chosen before."""


def _round_up(number: float, unit: int) -> int:
    return -(-int(np.ceil(number)) // unit) * unit
