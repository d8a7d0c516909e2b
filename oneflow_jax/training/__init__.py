"""The training loop, its step, optimizer, checkpoints, held-out losses and reports."""
