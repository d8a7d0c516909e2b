"""Ahead-of-time compilation for TPUs (`--mode=aot`): memory, FLOPs and step time, without a TPU."""

PROGRAMS = ("train", "sample")
"""Names of the programs that `--mode=aot` compiles: the training step and the sampler."""
