"""What takes part in a comparison, and its training: one run a paradigm and seed, in its folder.

<workdir>/codec             the VQModel of those whose pictures are codes
<workdir>/<name>-<seed>     a paradigm; of lmfusion also its text model, language-<seed>
"""

import copy
import dataclasses
import logging
from collections.abc import Iterator

import ml_collections
from etils import epath

from oneflow_jax import evaluate
from oneflow_jax.autoencoder_training import run as autoencoder_run
from oneflow_jax.autoencoder_training import system as autoencoder_system
from oneflow_jax.build import paradigms
from oneflow_jax.build import system as system_lib
from oneflow_jax.errors import UserError
from oneflow_jax.runtime import sharding, workdir
from oneflow_jax.shapes import PyTree
from oneflow_jax.training import checkpoint, loop

CODEC_DIR = "codec"


@dataclasses.dataclass(frozen=True)
class TrainingRun:
    """One training.

    Attributes:
        name: of the contestant.
        seed: of parameters, batches and noise.
        config: of the run, but for its number of steps.
        folder: of the run.
        flops: that it may spend.
    """

    name: str
    seed: int
    config: ml_collections.ConfigDict
    folder: epath.Path
    flops: float


@dataclasses.dataclass(frozen=True)
class FinishedRun:
    """A run that is finished.

    Attributes:
        run: which.
        system: that it was made of.
        params: averaged.
        flops: that it has spent, its text model's among them.
    """

    run: TrainingRun
    system: system_lib.System
    params: PyTree
    flops: float


def iter_runs(config: ml_collections.ConfigDict, folder: epath.Path) -> Iterator[TrainingRun]:
    """All runs but the codec's and the text models', seed by seed."""
    for seed in config.seeds:
        for name in config.order:
            yield _make_run(config, folder, name, seed)


def ensure_codec(config: ml_collections.ConfigDict, folder: epath.Path) -> None:
    """Trains the codec, if one of the contestants needs it and it is not there."""
    names = {config.contestants[name].paradigm.name for name in config.order}
    if not names & set(paradigms.USES_IMAGE_TOKENS):
        return
    where, given = folder / CODEC_DIR, config.codec
    with workdir.lock(where):
        workdir.check_config(where, given)
        system = autoencoder_system.system(given)
        if (where / workdir.EVALUATION).exists():
            _require_same_steps(where, given.steps, "codec.steps asks")
            return
        logging.info("The codec of %s.", ", ".join(paradigms.USES_IMAGE_TOKENS))
        workdir.save_config(where, given)
        autoencoder_run.train_autoencoder(system, where)
        autoencoder_run.evaluate(system, where)


def train_run(
    config: ml_collections.ConfigDict, folder: epath.Path, run: TrainingRun
) -> FinishedRun:
    """A run, trained to the end: it goes on from where it was, if it was begun."""
    if run.config.paradigm.name != paradigms.TEXT_PRETRAINING[1]:
        return train_one(run)
    before = train_one(make_text_model_run(config, folder, run.seed))
    after = train_one(run)
    return dataclasses.replace(after, flops=before.flops + after.flops)


def train_one(run: TrainingRun) -> FinishedRun:
    """The same of a run that needs no other, or whose other is finished."""
    with workdir.lock(run.folder):
        workdir.check_config(run.folder, run.config)
        config, spent = _steps_for_flops(run)
        system = system_lib.system(config, run.folder)
        if _is_finished(run.folder, config):
            logging.info("%s, seed %d: is trained.", run.name, run.seed)
        else:
            logging.info("%s, seed %d: %d steps.", run.name, run.seed, config.steps)
            workdir.save_config(run.folder, config)
            loop.run(system, run.folder)
        return FinishedRun(run, system, evaluate.load_ema_params(system, run.folder), spent)


def make_text_model_run(
    config: ml_collections.ConfigDict, folder: epath.Path, seed: int
) -> TrainingRun:
    """The run that lmfusion begins from."""
    given = copy.deepcopy(config.text_model)
    given.seed = seed
    where = run_dir(folder, given.name, seed)
    return TrainingRun(given.name, seed, given, where, config.language * config.flops)


def measure_text_losses(text_run: FinishedRun, fused_run: FinishedRun) -> tuple[float, float]:
    """Held-out losses of documents without pictures, of the text model and of what began from it.

    They are equal, to the last bit: the words' tower is frozen.
    """
    losses = text_run.system.losses()
    with sharding.mesh_context(text_run.system.mesh):
        return tuple(losses(one.params)["heldout/text"] for one in (text_run, fused_run))


def run_dir(folder: epath.Path, name: str, seed: int) -> epath.Path:
    """Where a run is."""
    return folder / f"{name}-{seed}"


def _make_run(
    config: ml_collections.ConfigDict, folder: epath.Path, name: str, seed: int
) -> TrainingRun:
    given = copy.deepcopy(config.contestants[name])
    given.seed = seed
    given.evaluation.samples = config.samples
    share = 1.0
    if given.codec.name == "codes":
        given.codec.path = str(folder / CODEC_DIR / workdir.CODEC)
    if given.paradigm.name == paradigms.TEXT_PRETRAINING[1]:
        given.start = str(run_dir(folder, config.text_model.name, seed))
        share -= config.language
    return TrainingRun(name, seed, given, run_dir(folder, name, seed), share * config.flops)


def _steps_for_flops(run: TrainingRun) -> tuple[ml_collections.ConfigDict, float]:
    """The configuration with as many steps as its FLOPs allow, and how many FLOPs these are."""
    config = copy.deepcopy(run.config)
    system = system_lib.system(config, run.folder)
    config.steps = max(1, round(run.flops / system.flops))
    return config, config.steps * system.flops


def _is_finished(folder: epath.Path, config: ml_collections.ConfigDict) -> bool:
    with checkpoint.Checkpoints(folder) as checkpoints:
        latest = checkpoints.latest
    if latest is not None:
        _require_same_steps(folder, config.steps, "flops and language ask")
    return latest == config.steps


def _require_same_steps(folder: epath.Path, steps: int, setting: str) -> None:
    # The learning rate has followed the steps that were planned.
    if (was := workdir.load_config(folder).steps) != steps:
        raise UserError(
            f"{folder} was begun for {was} steps, and {setting} for {steps} now: give the values "
            "that were there, or another --workdir."
        )
