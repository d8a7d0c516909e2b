"""Choice of configuration values from the data and from the speed of this machine.

`config.choose` lists the keys whose values are chosen before the first training step:

    source.heldout_fraction   a small folder holds out enough documents for a diagnosis
    data.text_slot_multiple   95 % of the texts fit the gap `<text>`
    data.sequence_length      95 % of the documents fit a row, and three usual ones together
    batch_size                a batch has about 2,048 slots
    steps                     training takes about `config.minutes`
    optimizer.warmup_steps    the configured value, or a quarter of the steps if that is less
    evaluation.every          the run has 20 evaluations, or fewer if they would take longer than an
                              eighth of the time of the training steps
    checkpoint.every          each evaluated checkpoint can become the best one
    evaluation.num_samples    the documents that are generated after training take another eighth

The chosen values are saved in the configuration of the run, so a resumed run keeps them
(`workdir.load_choices`), and `choices.json` has the reasons (`build.choice_record`). A value that
is given on the command line is not chosen.
"""

import functools
import logging
import math
from collections.abc import Callable

import jax
import ml_collections
from etils import epath

from oneflow_jax.build import choice_record, data, finetune, heldout_fraction, row_lengths, speed
from oneflow_jax.build.choice_record import Choice
from oneflow_jax.data import layout as layouts
from oneflow_jax.errors import UserError
from oneflow_jax.evaluation import own_data
from oneflow_jax.runtime import plurals, workdir
from oneflow_jax.samplers import guidance

BATCH_SLOTS = 2_048

NUM_EVALUATIONS, MIN_INTERVAL = 20, 25
"""Evaluations of a run, and minimum number of steps between them, because each takes seconds."""

MAX_LOSS_TIME, MAX_GENERATION_TIME = 1 / 8, 1 / 8
"""Maximum time of all evaluations of losses during training, and of generating documents after it,
as fractions of the time of the training steps."""

MAX_WARMUP = 1 / 4
"""Maximum length of the warm-up of the learning rate, as a fraction of the run."""

MIN_SAMPLES = 8
"""Minimum number of documents for each task of an evaluation, also in the shortest run."""

FORWARD_PASSES_PER_STEP = 3
"""Forward passes that take as long as a training step, whose backward pass costs two."""

SAMPLES_FACTOR, MORE_SAMPLES = 4, own_data.NUM_CAPTIONS * own_data.NUM_SEEDS
"""The suite "own" generates this multiple of `evaluation.num_samples` documents, and more."""

HELDOUT = "source.heldout_fraction"
"""The key that decides the split of a user's own documents."""

WARMUP = "optimizer.warmup_steps"
"""The key that is chosen last, and for any data; its configured value is kept in longer runs."""

MeasureSpeed = Callable[[], speed.Speed]


def choose(
    config: ml_collections.ConfigDict, folder: epath.Path, mode: str
) -> ml_collections.ConfigDict:
    """Return the configuration with a value for each key in `config.choose`; log the reasons.

    The function prepares the data and trains the tokenizer if they do not exist yet. The mode
    "prepare" chooses only values that depend on the data alone; the modes that do not train choose
    nothing. The values and reasons are also written to the run's folder.

    Raises:
        UserError: `config.choose` has a key that cannot be chosen.
    """
    names = config.get("choose", ())
    known = (HELDOUT, *DATA_CHOICES, *TRAINING_CHOICES, WARMUP)
    if unknown := [name for name in names if name not in known]:
        raise UserError(
            f"choose={names!r}: cannot choose {', '.join(unknown)}. Use any of {', '.join(known)}."
        )
    # The split is chosen first, because the tokenizer is trained on training documents.
    if mode in ("train", "prepare") and HELDOUT in names:
        config = _apply(config, folder, HELDOUT, heldout_fraction.choose_fraction(config))
    if mode in ("train", "prepare") and set(names) & set(DATA_CHOICES):
        if finetune.is_finetuning(config):  # Files of another start model are deleted.
            finetune.check_start(config, folder)
        layout = data.make_layout(config, folder)
        for name, choose_value in DATA_CHOICES.items():
            if name in names:
                config = _apply(config, folder, name, choose_value(config, layout))
    if mode == "train":
        measure = functools.cache(functools.partial(speed.measure, config, folder))
        for name, choose_number in TRAINING_CHOICES.items():
            if name in names:
                config = _apply(config, folder, name, choose_number(config, measure))
        if WARMUP in names and (choice := choose_warmup(config)):
            config = _apply(config, folder, WARMUP, choice)
    return config


def _apply(
    config: ml_collections.ConfigDict, folder: epath.Path, name: str, choice: Choice
) -> ml_collections.ConfigDict:
    logging.info("Chosen: %s=%s, %s.", name, choice.value, choice.reason)
    choice_record.write(folder, name, choice)
    left = tuple(other for other in config.choose if other != name)
    return workdir.replace_values(config, {name: choice.value, "choose": left})


def choose_batch_size(config: ml_collections.ConfigDict, layout: layouts.Layout) -> Choice:
    """Choose the number of rows of a batch, a multiple of the numbers of devices and of streams."""
    del layout
    unit = math.lcm(jax.device_count(), config.data.num_streams)
    rows = -(-max(1, BATCH_SLOTS // config.data.sequence_length) // unit) * unit
    return Choice(rows, f"so that a batch has {rows * config.data.sequence_length:,} slots")


def choose_steps(config: ml_collections.ConfigDict, measure: MeasureSpeed) -> Choice:
    """Choose the number of steps for `config.minutes`, from the measured time of a step."""
    seconds = measure().step_seconds
    least = 1 if WARMUP in config.choose else config.optimizer.warmup_steps + 1
    steps = max(round(60 * config.minutes / seconds), least)
    return Choice(
        steps,
        f"so that training takes about {config.minutes:g} minutes ({seconds:.2f} s per step)",
    )


def choose_warmup(config: ml_collections.ConfigDict) -> Choice | None:
    """Choose a shorter warm-up of the learning rate for a short run; None if it needs none."""
    most = max(1, int(MAX_WARMUP * config.steps))
    if config.optimizer.warmup_steps <= most:
        return None
    return Choice(
        most,
        f"because a warm-up of {config.optimizer.warmup_steps} steps would be longer than "
        f"{MAX_WARMUP:.0%} of the run",
    )


def choose_evaluation_interval(config: ml_collections.ConfigDict, measure: MeasureSpeed) -> Choice:
    """Choose the number of steps between evaluations, from the measured time of an evaluation."""
    measured = measure()
    shortest = measured.evaluation_seconds / (MAX_LOSS_TIME * measured.step_seconds)
    wanted = max(config.steps // NUM_EVALUATIONS, MIN_INTERVAL, math.ceil(shortest))
    count = max(1, config.steps // wanted)
    return Choice(
        config.steps // count,
        f"so that the run has {plurals.format_count(count, 'evaluation')} of "
        f"{measured.evaluation_seconds:.1f} s, beside "
        f"{config.steps * measured.step_seconds / 60:.1f} minutes of training steps",
    )


def choose_checkpoint_interval(config: ml_collections.ConfigDict, measure: MeasureSpeed) -> Choice:
    """Choose the number of steps between checkpoints, so that each evaluation has one."""
    del measure
    interval = min(config.evaluation.every, config.steps)
    return Choice(interval, "so that each evaluation has a checkpoint")


def choose_num_samples(config: ml_collections.ConfigDict, measure: MeasureSpeed) -> Choice:
    """Choose the number of documents for each task of the evaluation after training.

    The configured number is the maximum. The time is not measured but computed: a document takes
    NFE forward passes of a row, and `FORWARD_PASSES_PER_STEP` forward passes of a batch take as
    long as a training step. Models that write from left to right need other times.
    """
    del measure
    options = config.sampling
    factor = guidance.nfe_factor(options.image_guidance_scale, options.text_guidance_scale)
    time_of_document = factor * sum(config.evaluation.nfe) / FORWARD_PASSES_PER_STEP
    time_of_training = config.batch_size * config.steps  # in training steps of one row
    affordable = int(MAX_GENERATION_TIME * time_of_training / time_of_document - MORE_SAMPLES)
    allowed = max(affordable // SAMPLES_FACTOR, MIN_SAMPLES)
    samples = min(config.evaluation.num_samples, allowed)
    part = (SAMPLES_FACTOR * samples + MORE_SAMPLES) * time_of_document / time_of_training
    limit = "; it is the minimum" if samples == MIN_SAMPLES else ""
    return Choice(
        samples,
        f"so that generating documents after training takes at most about {part:.0%} of the time "
        f"of training steps{limit}",
    )


DATA_CHOICES: dict[str, Callable[[ml_collections.ConfigDict, layouts.Layout], Choice]] = {
    "data.text_slot_multiple": row_lengths.choose_text_slots,
    "data.sequence_length": row_lengths.choose_sequence_length,
    "batch_size": choose_batch_size,
}
TRAINING_CHOICES: dict[str, Callable[[ml_collections.ConfigDict, MeasureSpeed], Choice]] = {
    "steps": choose_steps,
    "evaluation.every": choose_evaluation_interval,
    "checkpoint.every": choose_checkpoint_interval,
    "evaluation.num_samples": choose_num_samples,
}
"""Functions that choose values, in their order: later ones use the values chosen before."""
