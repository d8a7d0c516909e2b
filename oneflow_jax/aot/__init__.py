"""Ahead-of-time compilation (`--mode=aot`) for TPUs and GPUs that this machine does not have.

The report has memory, FLOPs, traffic and estimates of the step time.
"""

PROGRAMS = ("train", "sample")
"""Names of the programs that `--mode=aot` compiles: the training step and the sampler."""
