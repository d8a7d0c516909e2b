"""Training runs of a comparison: one per paradigm and seed, each run in a separate folder.

<workdir>/codec             VQModel for the paradigms with image codes
<workdir>/<name>-<seed>     run of a paradigm
<workdir>/language-<seed>   run of the text model from which `lmfusion` is initialized
"""

import copy
import dataclasses
import logging
from collections.abc import Iterator

import ml_collections
from etils import epath

from oneflow_jax import evaluate
from oneflow_jax.autoencoder_training import run as autoencoder_run
from oneflow_jax.build import autoencoder_system, paradigms
from oneflow_jax.build import system as system_lib
from oneflow_jax.errors import UserError
from oneflow_jax.nn import two_tower
from oneflow_jax.runtime import run_lock, sharding, workdir
from oneflow_jax.shapes import PyTree
from oneflow_jax.training import checkpoint, loop

CODEC_DIR = "codec"


@dataclasses.dataclass(frozen=True)
class TrainingRun:
    """A training run of the comparison.

    Attributes:
        name: name of the model.
        seed: RNG seed of parameters, batches and noise.
        config: configuration of the run; `flops_budget` determines the number of steps, not
            `config.steps`.
        folder: folder of the run.
        flops_budget: training FLOPs that the run may use.
    """

    name: str
    seed: int
    config: ml_collections.ConfigDict
    folder: epath.Path
    flops_budget: float


@dataclasses.dataclass(frozen=True)
class FinishedRun:
    """A finished training run.

    Attributes:
        run: the training run.
        system: the parts of the run: data, model, paradigm and mesh.
        params: EMA parameters.
        flops_spent: training FLOPs of the run; for `lmfusion` including those of its text model.
    """

    run: TrainingRun
    system: system_lib.System
    params: PyTree
    flops_spent: float


def iter_runs(config: ml_collections.ConfigDict, folder: epath.Path) -> Iterator[TrainingRun]:
    """Yield the runs of all models, seed by seed; codec and text models are not included."""
    for seed in config.seeds:
        for name in config.models_shown:
            yield _make_run(config, folder, name, seed)


def ensure_codec(config: ml_collections.ConfigDict, folder: epath.Path) -> None:
    """Train the VQ codec if a model generates image codes and the codec is not trained yet."""
    names = {config.models[name].paradigm.name for name in config.models_shown}
    if not names & set(paradigms.USES_IMAGE_TOKENS):
        return
    where, codec_config = folder / CODEC_DIR, config.codec
    with run_lock.lock(where):
        workdir.check_config(where, codec_config)
        system = autoencoder_system.system(codec_config)
        if (where / workdir.EVALUATION).exists():
            _require_same_steps(where, codec_config.steps, "codec.steps requires")
            return
        logging.info("Training the codec of %s.", ", ".join(paradigms.USES_IMAGE_TOKENS))
        workdir.save_config(where, codec_config)
        autoencoder_run.train_autoencoder(system, where)
        autoencoder_run.evaluate(system, where)


def train_run(
    config: ml_collections.ConfigDict, folder: epath.Path, run: TrainingRun
) -> FinishedRun:
    """Train or resume a run; if the run is `lmfusion`, train its text model first."""
    if run.config.paradigm.name != paradigms.TEXT_PRETRAINING[1]:
        return train_one(run)
    before = train_one(make_text_model_run(config, folder, run.seed))
    after = train_one(run)
    return dataclasses.replace(after, flops_spent=before.flops_spent + after.flops_spent)


def train_one(run: TrainingRun) -> FinishedRun:
    """Train or resume a run; the text model of `lmfusion` must already be trained."""
    with run_lock.lock(run.folder):
        workdir.check_config(run.folder, run.config)
        config, spent = _steps_for_flops(run)
        system = system_lib.system(config, run.folder)
        if _is_finished(run.folder, config):
            logging.info("%s, seed %d: already trained.", run.name, run.seed)
        else:
            logging.info("%s, seed %d: training to step %d.", run.name, run.seed, config.steps)
            workdir.save_config(run.folder, config)
            loop.run(system, run.folder)
        return FinishedRun(run, system, evaluate.load_ema_params(system, run.folder), spent)


def make_text_model_run(
    config: ml_collections.ConfigDict, folder: epath.Path, seed: int
) -> TrainingRun:
    """Return the run of the text model from which `lmfusion` is initialized."""
    run_config = copy.deepcopy(config.text_model)
    run_config.seed = seed
    where = run_dir(folder, run_config.name, seed)
    return TrainingRun(
        run_config.name, seed, run_config, where, config.text_pretrain_fraction * config.train_flops
    )


def measure_text_losses(text_run: FinishedRun, fused_run: FinishedRun) -> tuple[float, float]:
    """Measure the held-out text loss of a text model, and of the model initialized from it.

    The documents have no images, so the image tower computes nothing that matters, and the text
    model gets the text tower of both runs. The two losses must be equal to the last bit, because
    this tower is frozen.
    """
    losses = text_run.system.eval_losses()
    towers = (text_run.params, two_tower.select_text_tower(fused_run.params))
    with sharding.mesh_context(text_run.system.mesh):
        return tuple(losses(params)["eval/loss_text"] for params in towers)


def run_dir(folder: epath.Path, name: str, seed: int) -> epath.Path:
    """Return the folder of the run of the model `name` with RNG seed `seed`."""
    return folder / f"{name}-{seed}"


def _make_run(
    config: ml_collections.ConfigDict, folder: epath.Path, name: str, seed: int
) -> TrainingRun:
    run_config = copy.deepcopy(config.models[name])
    run_config.seed = seed
    run_config.evaluation.num_samples = config.num_samples
    share = 1.0
    if run_config.codec.name == "vq":
        run_config.codec.path = str(folder / CODEC_DIR / workdir.CODEC)
    if run_config.paradigm.name == paradigms.TEXT_PRETRAINING[1]:
        run_config.init_from = str(run_dir(folder, config.text_model.name, seed))
        share -= config.text_pretrain_fraction
    return TrainingRun(
        name, seed, run_config, run_dir(folder, name, seed), share * config.train_flops
    )


def _steps_for_flops(run: TrainingRun) -> tuple[ml_collections.ConfigDict, float]:
    """Return the configuration with the number of steps that the budget allows, and their FLOPs."""
    config = copy.deepcopy(run.config)
    system = system_lib.system(config, run.folder)
    config.steps = max(1, round(run.flops_budget / system.flops))
    return config, config.steps * system.flops


def _is_finished(folder: epath.Path, config: ml_collections.ConfigDict) -> bool:
    with checkpoint.Checkpoints(folder) as checkpoints:
        latest = checkpoints.latest_step
    if latest is not None:
        _require_same_steps(folder, config.steps, "train_flops and text_pretrain_fraction require")
    return latest == config.steps


def _require_same_steps(folder: epath.Path, steps: int, setting: str) -> None:
    # The steps must be equal, since the learning rate schedule depends on their total number.
    if (was := workdir.load_config(folder).steps) != steps:
        raise UserError(
            f"{folder} was started for {was} steps, but {setting} {steps} now. Give the earlier "
            "values, or choose another --workdir."
        )
