"""Settings of the training loop: number of steps, and intervals of logs, saves and evaluations."""

import dataclasses

from oneflow_jax.errors import UserError, check_at_least
from oneflow_jax.training import profiler

USES = ("newest", "best")
"""Values of `checkpoint.use`: which checkpoint evaluation, sampling and exporting use."""


@dataclasses.dataclass(frozen=True)
class LoopConfig:
    """Settings of the training loop. All intervals except `checkpoint_minutes` are in steps.

    Attributes:
        seed: RNG seed of the run's root key.
        steps: number of parameter updates.
        log_every: interval between rows of the log.
        eval_every: interval between evaluations of the held-out loss.
        checkpoint_every: interval between checkpoints.
        checkpoint_minutes: a checkpoint is also saved at the first logged step after this time
            since the last save; 0 for none.
        broadcast_min_gb: size of the training state in GB from which, on resume, one replica reads
            it and sends it to the others; 0 for never.
        max_to_keep: number of newest checkpoints that are kept.
        keep_period: interval at which checkpoints are kept permanently; 0 for none.
        preview_every: interval between pages of samples; 0 for none.
        skip_damaged: whether to skip damaged checkpoints on resume, and to move them to another
            folder.
        keep_best: whether to also keep the checkpoint with the lowest held-out loss.
        use: which checkpoint evaluation, sampling and exporting use, one of `USES`. Training always
            resumes from the newest one.
        wandb_project: project of Weights & Biases that the run is logged to; "" for none.
        mlflow_uri: address of MLflow that the run is logged to; "" for none.
        profile_steps: first and last step to profile; () for none.
    """

    seed: int
    steps: int
    log_every: int
    eval_every: int
    checkpoint_every: int
    max_to_keep: int
    checkpoint_minutes: float = 0.0
    broadcast_min_gb: float = 0.0
    keep_period: int = 0
    preview_every: int = 0
    skip_damaged: bool = False
    keep_best: bool = False
    use: str = "newest"
    wandb_project: str = ""
    mlflow_uri: str = ""
    profile_steps: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        """Check the intervals of checkpoints and the steps to profile.

        Raises:
            UserError: `checkpoint_every` is less than 1, `keep_period` is not a multiple of
                `checkpoint_every`, or `profile_steps` is outside the run.
        """
        check_at_least("checkpoint.every", self.checkpoint_every, 1)
        if self.keep_period % self.checkpoint_every:
            raise UserError(
                f"checkpoint.keep_period={self.keep_period}: it must be a multiple of "
                f"checkpoint.every={self.checkpoint_every}, or 0 to keep only the newest."
            )
        profiler.validate_range(self.profile_steps, self.steps)
