"""Ahead-of-time compilation for TPUs (`--mode=aot`): memory, FLOPs and step time without TPUs."""

PROGRAMS = ("train", "sample")
"""Names of the programs that are compiled."""
