"""The training loop, training step, optimizer, checkpoints, held-out losses and reports."""
