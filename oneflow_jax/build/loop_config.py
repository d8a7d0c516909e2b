"""Builder of the training loop's settings from a configuration."""

import ml_collections

from oneflow_jax.training.loop_config import LoopConfig


def make_loop_config(config: ml_collections.ConfigDict) -> LoopConfig:
    """Return the settings of the training loop.

    Raises:
        UserError: values contradict each other.
    """
    return LoopConfig(
        seed=config.seed,
        steps=config.steps,
        log_every=config.logging.every,
        eval_every=config.evaluation.every,
        checkpoint_every=config.checkpoint.every,
        checkpoint_minutes=config.checkpoint.minutes,
        broadcast_min_gb=config.checkpoint.broadcast_min_gb,
        max_to_keep=config.checkpoint.max_to_keep,
        keep_period=config.checkpoint.keep_period,
        skip_damaged=config.checkpoint.skip_damaged,
        keep_best=config.checkpoint.keep_best,
        use=config.checkpoint.use,
        preview_every=config.sampling.preview_every if "sampling" in config else 0,
        wandb_project=config.logging.wandb_project,
        mlflow_uri=config.logging.mlflow_uri,
        profile_steps=tuple(config.profile_steps),
    )
